"""The loss terms of cmapkd. Levels are compared sample by sample; pairs of levels across the batch.

`literal_...` are the plan's own forms where they can be computed.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import contrast

ON, OFF = 0.0, -math.log(2)  # compatibility of a visual with its own level of language, and with another


def level_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """(batch,) mean over positions of 1 - cos over channels, in [0, 2]; maps (batch, C, row, column) or (batch, C).

    Half the squared distance of unit vectors.
    """
    away = 1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=1)
    return away.flatten(1).mean(1) if away.ndim > 1 else away


def literal_level_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """(batch,) the plan's: mean square of features normalised over the last axis, which of maps is the width."""
    s, t = (F.normalize(x.float(), dim=-1) for x in (student, teacher.detach()))
    return (s - t).square().flatten(1).mean(1)


def weighted(w: Tensor, losses: Tensor) -> Tensor:
    """mean_b sum_k w_bk l_bk, both (batch, level); with uniform w the plain mean."""
    return (w * losses).sum(-1).mean()


def compatibility(vision: Tensor, language: Tensor, uniform: bool = False) -> Tensor:
    """(visual level, level of language) weights of sum 1 over the active pairs, bool (level,) each: softmax of 0 on
    the diagonal and -ln 2 beside it, which of all sixteen pairs is 0.1 and 0.05; uniform: all alike."""
    n = len(vision)
    c = torch.full((n, n), ON if uniform else OFF, device=vision.device).fill_diagonal_(ON)
    active = vision[:, None] & language[None]
    return c.masked_fill(~active, -torch.inf).flatten().softmax(0).view(n, n)


def align(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    alpha: Tensor,
    scale: float | Tensor,
    temperature: float,
) -> Tensor:
    """sum_ij alpha_ij T^2 KL(P_ij^T || P_ij^S), rows and columns averaged, P_ij from scaled cosines of visual level i
    and level j of language over the batch. Each side (batch, level, C)."""
    (v, t), (vt, tt) = ([F.normalize(x.float(), dim=-1) for x in both] for both in (student, teacher))
    terms = [
        alpha[i, j]
        * contrast.both_ways(
            contrast.cosines(vt[:, i], tt[:, j], scale),
            contrast.cosines(v[:, i], t[:, j], scale),
            temperature,
        )
        for i, j in alpha.nonzero().tolist()
    ]
    return sum(terms)


def literal_align(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], active: Tensor) -> Tensor:
    """The plan's: raw products over 4, rows alone, weight 1 on and 0.5 beside the diagonal, over 16."""
    (v, t), (vt, tt) = student, teacher
    total = v.new_zeros(())
    for i, j in active.nonzero().tolist():
        own, its = v[:, i] @ t[:, j].T / 4, (vt[:, i] @ tt[:, j].T / 4).detach()
        kl = F.kl_div(own.log_softmax(-1), its.softmax(-1), reduction="batchmean")
        total = total + (1.0 if i == j else 0.5) * kl
    return total / 16


def same_pairs(student: Sequence[Tensor], teacher: Sequence[Tensor], alpha: Tensor, scale) -> Tensor:
    """sum_ij alpha_ij InfoNCE of visual level i and level j of language, the right partner being that of the pair."""
    v, t = (F.normalize(x.float(), dim=-1) for x in (student, teacher))
    found = [
        alpha[i, j] * contrast.pairs(contrast.cosines(v[:, i], t[:, j], scale))
        for i, j in alpha.nonzero().tolist()
    ]
    return sum(found)


def relation_of_samples(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs of samples of the squared difference of their cosines, (batch, C) each; B(B-1) pairs, as a
    sample is alike itself in both."""
    s, t = (F.normalize(x.float(), dim=-1) for x in (student, teacher.detach()))
    n = len(s)
    return (s @ s.T - t @ t.T).square().sum() / max(1, n * (n - 1))


def relation_of_levels(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_b of the squared difference of the correlations of a sample's levels off the diagonal; (batch, level, C)."""
    n = student.shape[1]
    away = (correlations(student) - correlations(teacher.detach())).square()
    return away.sum(dim=(1, 2)).mean() / (n * (n - 1))


def correlations(x: Tensor) -> Tensor:
    """(batch, level, level) correlation coefficients over channels of x (batch, level, C)."""
    x = F.normalize(x.float() - x.float().mean(-1, keepdim=True), dim=-1)
    return x @ x.transpose(1, 2)


def relation_of_levels_cka(student: Tensor, teacher: Tensor) -> Tensor:
    """The same with linear CKA between levels over the batch (Kornblith et al. 2019): no basis is shared."""
    n = student.shape[1]
    return (cka(student) - cka(teacher.detach())).square().sum() / (n * (n - 1))


def cka(x: Tensor) -> Tensor:
    """(level, level) linear CKA of x (batch, level, C)."""
    x = x.float() - x.float().mean(0)
    gram = torch.einsum("bkc,dkc->kbd", x, x).flatten(1)
    return F.normalize(gram, dim=1) @ F.normalize(gram, dim=1).T


def literal_relation_of_levels(student: Tensor, teacher: Tensor) -> Tensor:
    """The plan's: correlations of the means over the batch, in which no single sample is left."""
    return F.mse_loss(torch.corrcoef(student.mean(0)), torch.corrcoef(teacher.detach().mean(0)))
