"""Pictures of the embedded tasks. An id says what is drawn, and on what:

"noto/1f600" on white; "noto/1f600+1" on the first of its fixed colour backgrounds;
"noto/1f600+noise0" on fixed coloured noise. With an id alone the picture never changes.
"""

import functools
import hashlib

import numpy as np
from PIL import Image

from . import data as emoji
from . import stamps

SIZE = 64
STRENGTH = 0.6  # of the training variety, see augment.compose


def parse(id: str) -> tuple[str, str, str]:
    """'noto/1f600+noise0' -> ('noto', '1f600', 'noise0'); the last is '' for white."""
    style, _, rest = id.partition("/")
    hexcode, _, variant = rest.partition("+")
    return style, hexcode, variant


def image(id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The 64 x 64 RGB picture of an id.

    With `rng`, a training picture of the same emoji instead: scaled, shifted, turned, recoloured, on a
    random background. It takes one draw from `rng`. Raises ValueError for an unknown or corrupt picture.
    """
    return Image.fromarray(composed(id) if rng is None else augmented(id, rng))


def content(id: str) -> bytes:
    """The stored bytes behind an id, for fingerprints."""
    style, hexcode, _ = parse(id)
    return stamps.content(hexcode) if style == stamps.STYLE else emoji.webp()[style, hexcode]


def concept(id: str) -> str:
    """What is drawn, whatever the style, the hand and the ground."""
    style, hexcode, _ = parse(id)
    return hexcode.rpartition("-")[0] if style == emoji.CLIPART else hexcode  # "clipart-1a2b3c4d-0"


@functools.lru_cache(maxsize=8192)
def composed(id: str) -> np.ndarray:
    """The fixed picture of an id as (64, 64, 3) uint8."""
    style, hexcode, variant = parse(id)
    x = (stamps.rgba(hexcode) if style == stamps.STYLE else emoji.rgba(style, hexcode)).astype(
        np.float32
    ) / 255
    ink, alpha = x[..., :3], x[..., 3:]
    out = ink * alpha + background(id, variant, mean_ink(ink, alpha)) * (1 - alpha)
    return np.round(255 * out).clip(0, 255).astype(np.uint8)


def mean_ink(ink: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Mean colour (3,) of the drawn pixels, 0 to 1."""
    return (ink * alpha).sum((0, 1)) / max(float(alpha.sum()), 1.0)


def background(id: str, variant: str, ink: np.ndarray) -> np.ndarray:
    """What lies behind the drawing, broadcastable to (64, 64, 3) in [0, 1]; seeded by md5 of the id."""
    if not variant:
        return np.ones(3, np.float32)
    rng = np.random.default_rng(int.from_bytes(hashlib.md5(id.encode()).digest()[:8], "big"))
    if variant.startswith("noise"):
        cells = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        noise = np.asarray(cells.resize((SIZE, SIZE), Image.BILINEAR), np.float32) / 255
        return 0.55 + 0.45 * noise if ink.max() < 0.06 else noise  # black glyphs need a light ground
    # of a few colours, the two that differ most from the drawing: it must stay visible
    colours = rng.random((8, 3), dtype=np.float32)
    first, second = colours[np.argsort(-np.abs(colours - ink).sum(1))[:2]]
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-0.7, 0.7, SIZE, dtype=np.float32)
    ramp = (np.cos(angle) * line[:, None] + np.sin(angle) * line + 0.5).clip(0, 1)[..., None]
    return first if rng.random() < 0.5 else (first * ramp + second * (1 - ramp)).astype(np.float32)


def augmented(id: str, rng: np.random.Generator) -> np.ndarray:
    """A random training picture as (64, 64, 3) uint8."""
    import torch  # listing and fingerprinting tasks does without

    from . import augment

    style, hexcode, _ = parse(id)
    g = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rgba = torch.from_numpy(emoji.rgba(style, hexcode).copy())[None]
    flip = torch.tensor([hexcode in emoji.mirrorable()])
    out = augment.compose(g, rgba, flip, STRENGTH)[0]
    return (255 * out).round().to(torch.uint8).permute(1, 2, 0).numpy()
