"""Masked language modelling: which words are corrupted and how (Devlin et al. 2019, section 3.1)."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from .words import MASK, SPECIAL

IGNORED = -100
KINDS = ("left", "masked", "random", "unchanged")


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """ids: with the corrupted words; labels: the true word where one was selected, -100 elsewhere; kind: position in
    KINDS of what happened to each, 0 for those not selected. All int64 (batch, token)."""

    ids: Tensor
    labels: Tensor
    kind: Tensor


def corrupted(
    ids: Tensor, vocabulary: int, share: float = 0.15, generator: torch.Generator | None = None
) -> Corrupted:
    """Select `share` of the words, never a special token: 80 % of them become [MASK], 10 % a random word of the
    vocabulary, 10 % stay as they are.

    generator: a CPU generator, by default torch's own.
    """
    draw, how = torch.rand(2, *ids.shape, generator=generator).to(ids.device)
    words = torch.randint(len(SPECIAL), vocabulary, ids.shape, generator=generator).to(ids.device)
    selected = (draw < share) & (ids >= len(SPECIAL))
    kind = torch.where(how < 0.8, 1, torch.where(how < 0.9, 2, 3)) * selected
    changed = torch.where(kind == 1, MASK, torch.where(kind == 2, words, ids))
    return Corrupted(changed, torch.where(selected, ids, IGNORED), kind)


def masked_loss(
    logits: Tensor, labels: Tensor, soft: Tensor | None = None, alpha: float | Tensor = 0.0
) -> Tensor:
    """Mean cross-entropy of the selected words, 0 where none was: (1 - alpha) to the true word, alpha to the
    distribution of a teacher's logits `soft` (ALBEF, equation 7). logits, soft (batch, token, vocabulary)."""
    at = labels != IGNORED
    logits, count = logits[at].float(), at.sum().clamp(min=1)
    hard = F.cross_entropy(logits, labels[at], reduction="sum")
    if soft is None:
        return hard / count
    kept = -(soft[at].float().softmax(1) * logits.log_softmax(1)).sum()
    return ((1 - alpha) * hard + alpha * kept) / count
