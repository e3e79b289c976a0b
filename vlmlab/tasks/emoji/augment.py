"""Put RGBA pictures on backgrounds, in batches, on any device.

All functions take straight-alpha RGBA and return RGB in [0, 1]; randomness comes from the
generator that is handed in, so a batch is a function of its seed.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(g: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(*shape, generator=g) * (high - low) + low


def plain(rgba: Tensor, value: float = 1.0) -> Tensor:
    """uint8 (batch, height, width, 4) on one grey level -> (batch, 3, height, width)."""
    x = rgba.permute(0, 3, 1, 2).float() / 255
    return x[:, :3] * x[:, 3:] + value * (1 - x[:, 3:])


def backgrounds(g: torch.Generator, n: int, size: int, strength: float = 1.0) -> Tensor:
    """(n, 3, size, size): white, one colour, a linear blend of two colours, or coloured noise."""
    colour = uniform(g, n, 3, 1, 1)
    other = uniform(g, n, 3, 1, 1)
    angle = uniform(g, n, 1, 1, high=2 * math.pi)
    line = torch.linspace(-0.7, 0.7, size)
    ramp = (torch.cos(angle) * line[None, :, None] + torch.sin(angle) * line[None, None, :] + 0.5).clamp(
        0, 1
    )[:, None]
    blend = colour * ramp + other * (1 - ramp)
    noise = F.interpolate(uniform(g, n, 3, 6, 6), size=size, mode="bilinear", align_corners=False)
    kind = torch.rand(n, generator=g)[:, None, None, None]
    out = torch.where(kind < 0.3, colour.expand(-1, -1, size, size), torch.where(kind < 0.6, blend, noise))
    return torch.where(
        torch.rand(n, 1, 1, 1, generator=g) < 0.25 + 0.75 * (1 - strength), torch.ones_like(out), out
    )


def place(rgba: Tensor, scale: Tensor, angle: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Scale, rotate, shift and mirror (batch, 4, height, width) pictures inside their frame.

    scale (batch,) relative size; angle (batch,) radians; shift (batch, 2) in half frames;
    flip (batch,) bool. Colours are premultiplied, so edges carry no halo.
    """
    c, s = torch.cos(angle) / scale, torch.sin(angle) / scale
    sign = 1 - 2 * flip.float()
    theta = torch.stack(
        [
            torch.stack([c * sign, s * sign, -(c * shift[:, 0] + s * shift[:, 1]) * sign], -1),
            torch.stack([-s, c, s * shift[:, 0] - c * shift[:, 1]], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(rgba.shape), align_corners=False)
    return F.grid_sample(rgba, grid, align_corners=False)


def random_place(
    g: torch.Generator, rgba: Tensor, flip: Tensor, strength: float, low: float = 0.62
) -> Tensor:
    """`place` with random scale (low to 1), shift inside the frame and rotation up to 17 degrees."""
    n = len(rgba)
    scale = 1 - strength * uniform(g, n, high=1 - low)
    room = (1 - scale).unsqueeze(1)
    angle = strength * uniform(g, n, low=-0.3, high=0.3)
    mirrored = flip & (torch.rand(n, generator=g) < 0.5)
    return place(rgba, scale, angle, uniform(g, n, 2, low=-1.0) * room, mirrored)


def jitter(g: torch.Generator, rgb: Tensor, strength: float) -> Tensor:
    """Random brightness, contrast, saturation and a small colour rotation."""
    n = len(rgb)

    def gain(a):
        return 1 + strength * uniform(g, n, 1, 1, 1, low=-a, high=a)

    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * gain(0.5)
    rgb = (rgb - 0.5) * gain(0.3) + 0.5
    mix = torch.eye(3) + strength * 0.12 * torch.randn(n, 3, 3, generator=g)
    return (torch.einsum("nij,njhw->nihw", mix, rgb) * gain(0.3)).clamp(0, 1)


def compose(
    g: torch.Generator, rgba: Tensor, flip: Tensor, strength: float = 1.0, low: float = 0.62
) -> Tensor:
    """Augmented training pictures.

    rgba: uint8 (batch, height, width, 4); flip: (batch,) bool, where mirroring keeps the meaning;
    strength 0 (white, centred, untouched) to 1. Returns (batch, 3, height, width) in [0, 1].
    """
    x = rgba.permute(0, 3, 1, 2).float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    x = random_place(g, x, flip, strength, low)
    rgb = readable(g, x[:, :3], x[:, 3:], backgrounds(g, len(x), x.shape[-1], strength))
    drop = torch.rand(len(rgb), 1, 1, 1, generator=g) < 0.12 * strength
    rgb = torch.where(drop, rgb.mean(1, keepdim=True).expand_as(rgb), rgb)
    return jitter(g, rgb, strength)


def line_art(g: torch.Generator, rgba: Tensor) -> Tensor:
    """Drawings (batch, height, width, 4) uint8 as black lines on nothing: where colours or the ground meet within a
    pixel or two, and of more than half of them the dark parts."""
    n, x = len(rgba), rgba.permute(0, 3, 1, 2).float() / 255
    on_white = torch.cat([x[:, :3] * x[:, 3:] + 1 - x[:, 3:], x[:, 3:]], 1)

    def number(low: float = 0.0, high: float = 1.0) -> Tensor:
        return uniform(g, n, 1, 1, 1, low=low, high=high)

    thin, thick = (contrast(on_white, side) for side in (3, 5))
    edges = torch.where(number() < 0.6, thin, thick)
    lines = ((edges - number(0.08, 0.3)) / number(0.15, 0.3)).clamp(0, 1)
    grey = on_white[:, :3].mean(1, keepdim=True)
    dark = ((number(0.1, 0.5) - grey) / 0.1).clamp(0, 1) * (number() < 0.6)
    ink = (255 * torch.maximum(lines, dark)).round().byte()
    return torch.cat([torch.zeros_like(ink).expand(-1, 3, -1, -1), ink], 1).permute(0, 2, 3, 1)


def contrast(x: Tensor, side: int) -> Tensor:
    """(batch, channel, height, width) -> (batch, 1, height, width): the largest range of a channel within a square."""
    return (F.max_pool2d(x, side, 1, side // 2) + F.max_pool2d(-x, side, 1, side // 2)).amax(1, keepdim=True)


def readable(g: torch.Generator, ink: Tensor, alpha: Tensor, ground: Tensor) -> Tensor:
    """Composite; a one-colour black glyph gets a light ground, or a light ink on a dark one."""
    total = alpha.sum((2, 3), keepdim=True).clamp(min=1)
    dark = (ink.sum((2, 3), keepdim=True) / total).amax(1, keepdim=True) < 0.06
    invert = dark & (torch.rand(len(ink), 1, 1, 1, generator=g) < 0.3)
    ground = torch.where(dark, 0.55 + 0.45 * ground, ground)
    ground = torch.where(invert, ground - 0.55, ground)
    ink = torch.where(invert, 0.95 * alpha, ink)
    return ink + ground * (1 - alpha)


def side_by_side(g: torch.Generator, left: Tensor, right: Tensor, strength: float = 1.0) -> Tensor:
    """Scenes of two objects: uint8 (batch, size, size, 4) twice -> (batch, 3, size, size).

    Each object fills about half of the frame, the first on the left.
    """
    n, size = len(left), left.shape[1]
    x = torch.cat([left, right]).permute(0, 3, 1, 2).float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    scale = uniform(g, 2 * n, low=0.5 - 0.1 * strength, high=0.5)
    side = torch.cat([torch.full((n,), -0.5), torch.full((n,), 0.5)])
    shift = torch.stack([side, strength * uniform(g, 2 * n, low=-0.45, high=0.45)], 1)
    x = place(
        x,
        scale,
        strength * uniform(g, 2 * n, low=-0.2, high=0.2),
        shift,
        torch.zeros(2 * n, dtype=torch.bool),
    )
    ground = backgrounds(g, n, size, strength)
    for part in (x[:n], x[n:]):
        ground = readable(g, part[:, :3], part[:, 3:], ground)
    return jitter(g, ground, strength)
