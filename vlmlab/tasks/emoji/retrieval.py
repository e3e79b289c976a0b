"""Images with captions: every picture is a class of its own, and scenes of two objects with ground truth."""

import dataclasses
import re

import numpy as np
import pandas as pd
from PIL import Image

from ..split import Split
from . import captions as pretraining
from . import data as emoji
from . import pictures as emoji_pictures
from .tasks import TEMPLATE

MOST_KEYWORDS = 8  # keeps captions inside the 32 tokens of the tiny models


def usable(style: str, novel: bool) -> pd.DataFrame:
    """Concepts that `style` draws, without near-duplicates: the known ones, or the novel ones."""
    known = (*emoji.SOURCE_STYLES, *emoji.SHIFT_STYLES)
    if style not in known:
        raise ValueError(
            f"style must be one of {', '.join(known)} (pretraining has seen the others), got {style!r}"
        )
    table, drawn = emoji.concepts(), emoji.webp().keys() - emoji.near_duplicates()
    return table[table["hexcode"].map(lambda h: (style, h) in drawn) & (table["novel"] == novel)]


def strict_keywords(name: str, tags: list[str], keywords: list[str]) -> str:
    """Keywords as one caption, '' where none is left.

    Kept are plain words that add something to the name and the tags, which pretraining reads:
    no numbered names ("dog2"), signs, or rearranged names ("flag ireland").
    """

    def letters(text):
        return set(re.findall("[a-z]+", text.lower()))

    seen, kept = letters(" ".join([name, *tags])), []
    for word in keywords:
        word = word.replace("\u00a0", " ").replace("\u2019", "'").strip()
        if re.fullmatch("[a-z][a-z' -]*", word) and not letters(word) <= seen and word not in kept:
            kept.append(word)
    return ", ".join(kept[:MOST_KEYWORDS])


def retrieval_set(
    style: str, captions: str = "names", limit: int | None = None, *, novel: bool = False
) -> Split:
    """Pictures of one style, each with its own caption; near-duplicates of pretraining are left out.

    captions: "names" ("a photo of a dog face.") or "keywords" (strict: words that no pretraining
    caption has for this concept; concepts without any, or whose caption another one shares, are
    dropped). novel: only concepts that pretraining never saw, else only the others. limit: a fixed,
    mixed subset of this size.

    Returns a Split in which image i has label i and caption `prompts[i]`.
    """
    if captions not in ("names", "keywords"):
        raise ValueError(f'captions must be "names" or "keywords", got {captions!r}')
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, or None for all, got {limit}")
    table = usable(style, novel)
    if captions == "names":
        texts, template = table["name"], TEMPLATE
    else:
        texts = pd.Series(map(strict_keywords, table["name"], table["tags"], table["keywords"]), table.index)
        texts, template = texts[(texts != "") & ~texts.duplicated(keep=False)], "{}"
    if limit is not None:
        texts = texts.sample(min(limit, len(texts)), random_state=0).sort_index()
    ids = [f"{style}/{h}" for h in table["hexcode"].loc[texts.index]]
    return Split(
        ids, np.arange(len(ids)), tuple(texts), template, emoji_pictures.image, emoji_pictures.content
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Two objects side by side, listed in the order of the caption.

    image: 64 x 64 RGB; names, hexcodes: of the two objects; boxes: (x0, y0, x1, y1) in pixels, x1 and
    y1 exclusive; masks: bool (2, 64, 64), true where the object covers more than half of a pixel.
    """

    image: Image.Image
    caption: str
    names: tuple[str, str]
    hexcodes: tuple[str, str]
    boxes: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
    masks: np.ndarray


def scenes(n: int, seed: int = 0, style: str = "noto") -> list[Scene]:
    """`n` scenes of known concepts, the same for the same arguments; a longer list starts with the shorter.

    No concept occurs twice before all have occurred, so within a few hundred scenes each caption
    fits one image.
    """
    table = usable(style, novel=False)
    table = table[table["group"] != "flags"].reset_index(drop=True)
    half = len(table) // 2
    out = []
    for start in range(0, n, half):
        order = np.random.default_rng([seed, start]).permutation(len(table))
        out += [
            scene(table.loc[order[2 * i : 2 * i + 2]], style, np.random.default_rng([seed, start + i, 1]))
            for i in range(min(half, n - start))
        ]
    return out


def scene(pair: pd.DataFrame, style: str, rng: np.random.Generator) -> Scene:
    """Draw two concepts; which of them stands on the left is drawn as well."""
    import torch

    from . import augment

    art = [emoji.rgba(style, h) for h in pair["hexcode"]]
    x = torch.from_numpy(np.stack(art)).permute(0, 3, 1, 2).float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    side = 0.5 if rng.random() < 0.5 else -0.5
    scale, height = rng.uniform(0.42, 0.5, 2), rng.uniform(-0.3, 0.3, 2)
    angle, shift = rng.uniform(-0.15, 0.15, 2), np.array([[-side, height[0]], [side, height[1]]])
    layout = (torch.from_numpy(v).float() for v in (scale, angle, shift))
    x = augment.place(x, *layout, torch.zeros(2, dtype=torch.bool)).permute(0, 2, 3, 1).numpy()
    ground = scene_ground(rng, x)
    for part in x:
        ground = part[..., :3] + ground * (1 - part[..., 3:])
    masks, names = x[..., 3] > 0.5, tuple(pair["name"])
    image = Image.fromarray(np.round(255 * ground).clip(0, 255).astype(np.uint8))
    return Scene(
        image, pretraining.SCENE.format(*names), names, tuple(pair["hexcode"]), tuple(map(box, masks)), masks
    )


def scene_ground(rng: np.random.Generator, parts: np.ndarray) -> np.ndarray:
    """White, or the one of six colours that differs most from both objects; (3,) in [0, 1]."""
    if rng.random() < 0.4:
        return np.ones(3, np.float32)
    ink = parts[..., :3].sum((1, 2)) / np.maximum(parts[..., 3].sum((1, 2))[:, None], 1)
    colours = rng.random((6, 3), dtype=np.float32)
    return colours[np.abs(colours[:, None] - ink).sum(2).min(1).argmax()]


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest (x0, y0, x1, y1) around a non-empty mask, x1 and y1 exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
