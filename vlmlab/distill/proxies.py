"""What C2KD adds to a tower: a proxy, and the rule that selects which samples are taught."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import contrast


def head(width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear."""
    return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out))


def kendall(a: Tensor, b: Tensor) -> Tensor:
    """(row,) Kendall's tau-b of each row of a and b (row, class): class^2 comparisons a row. 0 where all are tied."""
    one, other = ((x[:, :, None] - x[:, None]).sign().flatten(1) for x in (a, b))
    norm = (one.square().sum(1) * other.square().sum(1)).sqrt()
    return (one * other).sum(1) / norm.clamp(min=1)


def others(teacher: Tensor, student: Tensor, threshold: float, quirk: bool) -> Tensor:
    """KL(teacher || student) over what is not the target, the diagonal, of the rows that rank alike (tau-b above the
    threshold), mean over all rows; logits (batch, batch). The teacher is a target: it gets no gradient.

    quirk: as the authors' code has it, the target's logit is multiplied by 0, not left out, and keeps mass.
    """
    teacher, right = teacher.detach(), torch.eye(len(student), dtype=torch.bool, device=student.device)
    chosen = kendall(teacher, student.detach()) > threshold
    teacher, student = (x * ~right if quirk else x.masked_fill(right, -torch.inf) for x in (teacher, student))
    log_t, log_s = (F.log_softmax(x, dim=-1).masked_fill(right & (not quirk), 0) for x in (teacher, student))
    p = log_t.exp() if quirk else log_t.exp().masked_fill(right, 0)
    return ((p * (log_t - log_s)).sum(-1) * chosen).mean()


def within(network: Tensor, proxy: Tensor) -> dict[str, Tensor]:
    """What network and proxy learn from each other; logits (row, class), each a fixed target of the other."""
    return {
        "to_proxy": contrast.divergence(network, proxy),
        "from_proxy": contrast.divergence(proxy, network),
    }
