"""What DoLa makes of two distributions over the same words or candidates (Chuang et al. 2024, arXiv 2309.03883).

All take logits or log-probabilities of any precision, (..., word), and compute in float32; logarithms are natural.
"""

import math

import torch
from torch import Tensor

LEAST = -1e3  # log of a probability; so that a word which the early layer rules out has a finite ratio
RULES = ("published", "jensen_shannon")


def log_probabilities(logits: Tensor) -> Tensor:
    """(..., word) natural logarithms of probabilities, float32; the same again for what already is that."""
    return logits.float().log_softmax(dim=-1)


def plausible(final: Tensor, alpha: float = 0.1) -> Tensor:
    """(..., word) True where q_N(x) >= alpha max q_N: the head V of the final distribution (APC).

    In log space, so that no epsilon is needed. alpha = 0 keeps every word that is not ruled out; V is never empty.
    """
    final = log_probabilities(final)
    possible = final > -math.inf
    return possible & (final >= final.amax(dim=-1, keepdim=True) + math.log(alpha)) if alpha else possible


def contrast(final: Tensor, early: Tensor, alpha: float = 0.1) -> Tensor:
    """(..., word) log p of DoLa: F = log q_N - log q_J on V, -inf elsewhere, renormalised over V.

    Greedy choice and sampling need F only up to a constant; beams sum over steps and need the normalised one.
    q_J uniform gives q_N back (alpha = 0: all of it; else its head); q_J = q_N gives the uniform distribution on V.

    >>> from vlmlab import decode
    >>> log_p = decode.contrast(final, early, alpha=0.1)  # (batch, word) each
    >>> kept = decode.plausible(final, alpha=0.1).sum(-1)  # how many words are left
    """
    ratio = log_probabilities(final) - log_probabilities(early).clamp_min(LEAST)
    return ratio.masked_fill(~plausible(final, alpha), -math.inf).log_softmax(dim=-1)


def halves(final: Tensor, early: Tensor, from_mixture: bool) -> Tensor:
    """(...,) the mean of two KL divergences between each distribution and their mixture M = (q_N + q_J) / 2, nats."""
    possible = (
        log_probabilities(final) > -math.inf
    )  # words that another processor ruled out say nothing about layers
    both = [log_probabilities(q).clamp_min(LEAST) for q in torch.broadcast_tensors(final, early)]
    mixed = torch.logaddexp(*both) - math.log(2)
    terms = [mixed.exp() * (mixed - q) if from_mixture else q.exp() * (q - mixed) for q in both]
    return 0.5 * (sum(terms) * possible).sum(dim=-1)


def jensen_shannon(final: Tensor, early: Tensor) -> Tensor:
    """(...,) Jensen-Shannon divergence, nats: [KL(q_N || M) + KL(q_J || M)] / 2, at most ln 2."""
    return halves(final, early, from_mixture=False)


def published_criterion(final: Tensor, early: Tensor) -> Tensor:
    """(...,) what the released code of DoLa computes for its choice of a layer, nats: [KL(M || q_N) + KL(M || q_J)] / 2.

    Its arguments stand the other way round than in the Jensen-Shannon divergence; it has no upper bound.
    """
    return halves(final, early, from_mixture=True)


def choose_layer(final: Tensor, early: Tensor, rule: str) -> Tensor:
    """(row,) which of the early layers is contrasted: the one most unlike the final.

    final: (row, word); early: (layer, row, word). rule: "published" takes the mean of its criterion over the rows,
    one layer for the whole batch, as the released code does; "jensen_shannon" each row its own. ValueError for
    another rule.
    """
    if rule == "published":
        best = published_criterion(final, early).mean(dim=1).argmax()
        return best.expand(early.shape[1])
    if rule == "jensen_shannon":
        return jensen_shannon(final, early).argmax(dim=0)
    raise ValueError(f"unknown rule {rule!r} of choosing a layer; there are {', '.join(RULES)}")
