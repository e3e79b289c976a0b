"""Scenes of two objects side by side, with captions, masks and questions. An id says what is drawn:

"noto/1f436&1f697@3.7" is scene 7 of seed 3, a dog face and a car; which of them stands on the left, where and
on what ground is drawn from (seed, number). With an id alone the picture never changes.
"""

import functools

import numpy as np
import pandas as pd
from PIL import Image

from ..captions import Captions
from ..questions import Questions
from . import captions as pretraining
from . import data as emoji
from .retrieval import usable


def scenes(n: int, seed: int = 0, style: str = "noto", *, part: str | None = None) -> Captions:
    """`n` scenes of known concepts, the same for the same arguments; more of them start with the fewer.

    part: "train" or "test" for the concepts of one side only. The caption, "a {} and a {}.", names both objects
    in the order of `shows` and of the masks, bool (2, 64, 64), true where the object covers more than half of a
    pixel. No concept occurs twice before all have occurred, so within a few hundred scenes each caption fits one
    image.
    """
    table = usable(style, novel=False)
    table = table[table["group"] != "flags"]
    table = (table if part is None else table[table["split"] == part]).reset_index(drop=True)
    half, pairs = len(table) // 2, []
    for start in range(0, n, half):
        order = np.random.default_rng([seed, start]).permutation(len(table))
        pairs += [table.loc[order[2 * i : 2 * i + 2]] for i in range(min(half, n - start))]
    names = tuple(tuple(pair["name"]) for pair in pairs)
    return Captions(
        [f"{style}/{'&'.join(pair['hexcode'])}@{seed}.{i}" for i, pair in enumerate(pairs)],
        tuple(pretraining.SCENE.format(*pair) for pair in names),
        np.arange(n),
        names,
        read=image,
        content=content,
        flip=False,
        mask_of=masks,
    )


def parse(id: str) -> tuple[str, tuple[str, str], tuple[int, int]]:
    """'noto/1f436&1f697@3.7' -> ('noto', ('1f436', '1f697'), (3, 7))."""
    style, _, rest = id.partition("/")
    pair, _, number = rest.partition("@")
    first, second = pair.split("&")
    seed, i = map(int, number.split("."))
    return style, (first, second), (seed, i)


def image(id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The 64 x 64 RGB picture of an id; with `rng` other sizes, heights, angles and ground, the same sides."""
    return Image.fromarray(drawn(id)[0] if rng is None else draw(id, rng)[0])


def masks(id: str) -> np.ndarray:
    """bool (2, 64, 64), in the order of the caption."""
    return drawn(id)[1]


def content(id: str) -> bytes:
    """The stored bytes of both drawings, for fingerprints."""
    style, pair, _ = parse(id)
    return b"".join(emoji.webp()[style, h] for h in pair)


def first_on_left(id: str) -> tuple[bool, np.random.Generator]:
    """Whether the object named first stands on the left, and the generator of all else in the picture."""
    own = np.random.default_rng([*parse(id)[2], 1])
    return own.random() < 0.5, own


@functools.lru_cache(maxsize=2048)
def drawn(id: str) -> tuple[np.ndarray, np.ndarray]:
    """The fixed picture of an id, uint8 (64, 64, 3), and its masks."""
    return draw(id, None)


def draw(id: str, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """Draw both objects; the sides are those of the id, all else is drawn by `rng` where it is given."""
    import torch

    from . import augment

    style, pair, _ = parse(id)
    left, own = first_on_left(id)
    side, rng = 0.5 if left else -0.5, own if rng is None else rng
    x = torch.from_numpy(np.stack([emoji.rgba(style, h) for h in pair])).permute(0, 3, 1, 2).float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    scale, height = rng.uniform(0.42, 0.5, 2), rng.uniform(-0.3, 0.3, 2)
    angle, shift = rng.uniform(-0.15, 0.15, 2), np.array([[-side, height[0]], [side, height[1]]])
    layout = (torch.from_numpy(v).float() for v in (scale, angle, shift))
    x = augment.place(x, *layout, torch.zeros(2, dtype=torch.bool)).permute(0, 2, 3, 1).numpy()
    picture = ground(rng, x)
    for part in x:
        picture = part[..., :3] + picture * (1 - part[..., 3:])
    return np.round(255 * picture).clip(0, 255).astype(np.uint8), x[..., 3] > 0.5


def ground(rng: np.random.Generator, parts: np.ndarray) -> np.ndarray:
    """White, or the one of six colours that differs most from both objects; (3,) in [0, 1]."""
    if rng.random() < 0.4:
        return np.ones(3, np.float32)
    ink = parts[..., :3].sum((1, 2)) / np.maximum(parts[..., 3].sum((1, 2))[:, None], 1)
    colours = rng.random((6, 3), dtype=np.float32)
    return colours[np.abs(colours[:, None] - ink).sum(2).min(1).argmax()]


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest (x0, y0, x1, y1) in pixels around a non-empty mask, x1 and y1 exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def questions(found: Captions) -> Questions:
    """Three questions a scene, each with one true answer: what stands on the left, whether the object named
    first does, and whether something is there, which every second scene does not show."""
    asked = []
    for i, (first, second) in enumerate(found.shows):
        left, _ = first_on_left(found.ids[i])
        absent = next(n for n in found.shows[i - 1] + found.shows[i - 2] if n not in (first, second))
        asked += [
            (i, "what is on the left?", first if left else second, "other"),
            (i, f"is the {first} on the left?", "yes" if left else "no", "yes/no"),
            (i, f"is there a {absent if i % 2 else second}?", "no" if i % 2 else "yes", "yes/no"),
        ]
    frame = pd.DataFrame(asked, columns=["image", "question", "answer", "kind"])
    return Questions(
        found.ids,
        tuple(frame["question"]),
        frame["image"].to_numpy(),
        tuple({answer: 1} for answer in frame["answer"]),
        tuple(frame["kind"]),
        read=found.read,
        content=found.content,
        flip=found.flip,
    )
