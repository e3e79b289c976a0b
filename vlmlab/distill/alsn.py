"""ALSN, the adaptive layer selection network: which level counts how much for a pair."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import processes

SIDES = ("vision", "language")
TINY = 1e-12  # of a weight in a logarithm


class ALSN(nn.Module):
    """Global features of image and text (batch, inputs) -> weights (batch, side, level) over four levels of both.

    w = softmax((z + log m) / tau) over the active levels m. sigmoid: z is squashed into (0, 1) first, as in the plan,
    which keeps every weight away from 0 and 1.
    """

    def __init__(self, inputs: int, levels: int = 4, tau: float = 1.0, sigmoid: bool = False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(inputs, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 256), nn.ReLU()
        )
        self.heads = nn.ModuleList(nn.Linear(256, levels) for _ in SIDES)
        self.tau, self.sigmoid = tau, sigmoid

    def forward(self, features: Tensor, active: Tensor) -> Tensor:
        """active: bool (side, level), at least one of each side."""
        h = self.body(features.float())
        z = torch.stack([head(h) for head in self.heads], dim=1)
        return masked_softmax(torch.sigmoid(z) if self.sigmoid else z, active, self.tau)


def masked_softmax(z: Tensor, active: Tensor, tau: float = 1.0) -> Tensor:
    """softmax(z / tau) over the last axis, exactly 0 where active (broadcast to z) is false."""
    return (z / tau).masked_fill(~active, -torch.inf).softmax(dim=-1)


def entropy(w: Tensor) -> Tensor:
    """H(w) = -sum w log w >= 0 in nats over the last axis; 0 log 0 is 0, with a finite gradient, as masked levels have."""
    return -(w * w.clamp(min=TINY).log()).sum(-1)


def spread(w: Tensor, active: Tensor) -> Tensor:
    """(side,) KL(mean over samples || uniform over the active levels) of w (batch, side, level): 0 where all levels are
    used alike on average, whatever single samples do; samples of all processes together."""
    mean = processes.gather(w).mean(0)
    return active.sum(-1).to(w.dtype).log() - entropy(mean)


def objective(w: Tensor, costs: Tensor, active: Tensor, eta: float, kappa: float) -> Tensor:
    """L_w - eta * mean H(w) + kappa * KL(mean w || uniform), summed over both sides.

    w, costs: (batch, side, level); costs hold no gradient here. For one sample and kappa 0 its minimum over w is
    softmax(-costs / eta): the cheapest level has the most weight.
    """
    paid = (w * costs.detach()).masked_fill(~active, 0).sum(-1).mean(0)
    return (paid - eta * entropy(w).mean(0) + kappa * spread(w, active)).sum()


def agreement(w: Tensor, target: Tensor) -> Tensor:
    """KL(target || w) over levels, mean over samples, summed over both sides; (batch, side, level) each."""
    kl = torch.xlogy(target, target) - target * w.clamp(min=TINY).log()
    return kl.sum(-1).mean(0).sum()


def utility(task: Tensor, levels: list[Tensor], tau: float) -> Tensor:
    """(batch, level) = softmax over levels of cos(g_task, g_level) / tau, per sample.

    task: gradient of the task's loss with respect to an early tap (batch, ...); levels: those of the level losses.
    """
    flat = torch.stack([g.flatten(1) for g in levels], dim=1).float()
    return (F.cosine_similarity(task.flatten(1).float()[:, None], flat, dim=-1) / tau).softmax(-1)
