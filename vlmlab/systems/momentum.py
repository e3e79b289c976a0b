"""Momentum encoders and queues of what they made (He et al. 2020, MoCo)."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import processes


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that does not train."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, m: float) -> None:
    """slow <- m slow + (1 - m) fast, parameters only: batch statistics are each module's own."""
    for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
        a.mul_(m).add_(b, alpha=1 - m)


@torch.no_grad()
def distance(slow: nn.Module, fast: nn.Module) -> Tensor:
    """Euclidean distance of two modules' parameters, a single number."""
    pairs = zip(slow.parameters(), fast.parameters(), strict=True)
    return torch.stack([(a - b).square().sum() for a, b in pairs]).sum().sqrt()


class Queue(nn.Module):
    """The last `size` vectors that were put in, the oldest leaves first.

    rows: (size, width), random unit vectors until it is full. born: int64 (size,), at which push each came, 0 for the
    random ones. size 0 is a queue that holds nothing.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("born", torch.zeros(size, dtype=torch.long))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        self.register_buffer("pushes", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Put in rows (n, width) of this process and of those beside it."""
        rows = processes.gather(rows)[-len(self) :] if len(self) else rows[:0]
        self.pushes.add_(1)
        if not len(self):
            return
        at = (self.place + torch.arange(len(rows), device=rows.device)) % len(self)
        self.rows[at], self.born[at] = rows.to(self.rows), self.pushes
        self.place.copy_((self.place + len(rows)) % len(self))

    def ages(self) -> Tensor:
        """int64: how many pushes ago each row came, 0 for those of the last one; random rows are left out."""
        return self.pushes - self.born[self.born > 0]


class Drift(nn.Module):
    """How far keys drift while they wait in a queue: mean 1 - cosine of the keys of the same images now and some steps ago
    (He et al. 2020, section 3.2: what the inconsistency of keys comes to, whatever the loss makes of it).

    The images are the first that it is shown; images, side: how many, and their pixels; width: of the keys.
    """

    ages = (1, 2, 4, 8)  # steps between the two

    def __init__(self, images: int, side: int, width: int):
        super().__init__()
        self.register_buffer("probe", torch.zeros(images, 3, side, side))
        self.register_buffer("earlier", torch.zeros(max(self.ages), images, width))  # the newest first
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, encoder: nn.Module, shown: Tensor) -> dict[str, Tensor]:
        """drift 1, drift 2, ... from the first step on that has such keys; shown (batch, 3, side, side)."""
        if not (before := int(self.steps)):  # again and again where they are fewer
            self.probe.copy_(shown[torch.arange(len(self.probe), device=shown.device) % len(shown)])
        now = self.keys(encoder)
        found = 1 - (now * self.earlier).sum(2).mean(1)
        self.earlier.copy_(torch.cat([now[None], self.earlier[:-1]]))
        self.steps.add_(1)
        return {f"drift {age}": found[age - 1] for age in self.ages if age <= before}

    def keys(self, encoder: nn.Module) -> Tensor:
        """(image, width), unit length, by statistics of the probe itself; those that the encoder collects stay as they are."""
        own = {name: value.clone() for name, value in encoder.named_buffers()}
        return F.normalize(torch.func.functional_call(encoder, own, (self.probe,)), dim=1)
