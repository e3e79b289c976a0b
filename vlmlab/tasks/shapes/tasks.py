"""The tasks made of generated scenes (see composition); their test scenes are on the other side of every training scene.

- `shapes/one`: 24 classes, a colour and a shape each.
- `shapes/pairs`: two shapes and how they stand, with a caption or, under the protocol vqa, with questions.
- `shapes/noisy`: the same, but of the captions that are trained on 30 % are wrong; `flaws` says which and why.
- `shapes/clean`: a few other scenes of two shapes whose captions are all true, as people write them for some images.
- `shapes/many`: one to four shapes, with a caption that counts them or, under vqa, with questions of all three kinds.
"""

import functools

import numpy as np

from ..captions import Captions
from ..split import Dataset, Split
from . import pixels, texts
from .asked import questions
from .composition import COLOURS, KEYS, SHAPES, SIDES, scene

PROTOCOLS = {
    "shapes/one": ("zero_shot", "few_shot", "base_to_new"),
    "shapes/pairs": ("retrieval", "vqa"),
    "shapes/noisy": ("retrieval",),
    "shapes/clean": ("retrieval",),
    "shapes/many": ("retrieval", "vqa"),
}
SIZES = {"train": 3000, "val": 200, "test": 500}  # scenes
SEEDS = {"train": 1, "val": 2, "test": 2}
CLEAN = {"train": 1000}, {"train": 3}  # the same of shapes/clean, where they differ
NOISE = 0.3  # share of wrong captions
TEMPLATE = "a {}"
READING = {"read": pixels.image, "content": pixels.content, "flip": False}


def names() -> list[str]:
    """Ids of the generated tasks."""
    return list(PROTOCOLS)


@functools.lru_cache(maxsize=8)
def dataset(id: str, protocol: str) -> Dataset:
    """The data of one of `names()`."""
    kind = {"noisy": "pairs", "clean": "pairs"}.get(id.partition("/")[2], id.partition("/")[2])
    sizes, seeds = (a | b for a, b in zip((SIZES, SEEDS), CLEAN if id == "shapes/clean" else ({}, {})))
    parts = {}
    for side, n in sizes.items():
        if kind == "one":
            parts[side] = labelled(n, seeds[side], side)
        else:
            noise = NOISE if id == "shapes/noisy" and side == "train" else 0.0
            parts[side] = scenes(n, seeds[side], kind, side, noise=noise)
    if protocol == "vqa":
        parts = {side: questions(part) for side, part in parts.items()}
    return Dataset(id, **parts, protocols=PROTOCOLS[id])


def ids(n: int, seed: int, kind: str, side: str) -> list[str]:
    """The first `n` of a stream of scenes. ValueError for a kind or a side that there is not."""
    for what, value, legal in (("kind", kind, KEYS), ("side", side, SIDES)):
        if value not in legal:
            raise ValueError(f"{what} must be one of {', '.join(legal)}, got {value!r}")
    return [f"{kind}/{side}/{seed}.{i}" for i in range(n)]


def scenes(n: int, seed: int = 0, kind: str = "pairs", side: str = "test", *, noise: float = 0.0) -> Captions:
    """`n` scenes of one, pairs or many, the same for the same arguments; more of them start with the fewer.

    side: train, val or test, which share no scene. Each has one caption; `shows` and the masks, bool (name, 64, 64), are
    in its order and true on exactly the pixels of what the name means: of `pairs` each shape ("small red circle"), of
    `many` all of a kind ("two red circles"). noise: share of captions that are wrong, as `flaws` tells; `shows` stays true.

    >>> found = scenes(1500, noise=0.3)
    >>> [text for text, flaw in zip(found.texts, found.flaws) if flaw]
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is a share from 0 to 1, got {noise}")
    found = ids(n, seed, kind, side)
    shown = [texts.shown(scene(id)) for id in found]
    said, flaws = (
        texts.with_noise(found, noise) if noise else ([texts.caption(scene(id)) for id in found], None)
    )
    return Captions(
        found,
        tuple(said),
        np.arange(n),
        tuple(tuple(name for name, _ in one) for one in shown),
        None if flaws is None else tuple(flaws),
        mask_of=texts.masks,
        **READING,
    )


def labelled(n: int, seed: int = 0, side: str = "test") -> Split:
    """`n` scenes of one shape, whose class is its colour and shape; as `scenes`."""
    found = ids(n, seed, "one", side)
    kinds = [scene(id).things[0].kind for id in found]
    labels = np.array([colour * len(SHAPES) + shape for colour, shape in kinds], dtype=np.int64)
    classnames = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
    return Split(found, labels, classnames, TEMPLATE, **READING)
