"""The visual pyramid P2 to P5: the tapped blocks of a tower on four grids, top-down as in FPN (Lin et al. 2017).

All blocks of a ViT have one grid: P2 and P3 hold what earlier blocks hold, not finer detail. P5 is linear in its tap,
the others are smoothed, as in FPN.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]
LEVELS = ("P2", "P3", "P4", "P5")


def to_map(x: Tensor, grid: Size) -> Tensor:
    """(batch, channel, row, column) of patches (batch, patch, channel)."""
    return x.transpose(1, 2).unflatten(2, grid)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map at another size, bilinear; smoothed first where it gets smaller."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    smaller = size[0] < x.shape[2] or size[1] < x.shape[3]
    return F.interpolate(x.float(), tuple(size), mode="bilinear", antialias=smaller)


def sizes_for(sides: Sequence[int], grid: Size) -> list[Size]:
    """Rows and columns per level: its side is that of the shorter axis, the longer one keeps the aspect of the grid."""
    short = min(grid)
    return [tuple(round(side * n / short) for n in grid) for side in sides]


class VisualPyramid(nn.Module):
    """widths: channels of the taps; channels: C of every level; sizes: rows and columns of P2 to P5.

    Takes maps (batch, width, row, column) of any grids, gives four (batch, C, *size). Every tap is normalised over its
    channels first, without parameters: raw tokens have a few huge ones.
    """

    def __init__(self, widths: Sequence[int], channels: int, sizes: Sequence[Size]):
        super().__init__()
        if len(widths) != len(sizes):
            raise ValueError(f"{len(widths)} taps for {len(sizes)} levels; there is one tap per level")
        self.sizes = [tuple(size) for size in sizes]
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths[:-1])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x = [lateral(normed_map(m)) for lateral, m in zip(self.lateral, maps, strict=True)]
        found = [F.adaptive_avg_pool2d(x[-1], self.sizes[-1])]
        for k in range(len(x) - 2, -1, -1):
            above = F.interpolate(found[0], self.sizes[k], mode="nearest")
            found.insert(0, self.smooth[k](resized(x[k], self.sizes[k]) + above))
        return found


def normed_map(x: Tensor) -> Tensor:
    """A map normalised over its channels, without parameters, in float32."""
    return F.layer_norm(x.float().movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


def pooled(levels: Sequence[Tensor]) -> Tensor:
    """(batch, level, C): the mean of every map over its places."""
    return torch.stack([x.float().mean(dim=(2, 3)) for x in levels], dim=1)
