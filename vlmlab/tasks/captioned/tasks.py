"""The real data sets of images and texts as tasks, from folders that people have, below one root.

- `coco`, `coco-1k`, `flickr30k`: Karpathy's division; five captions an image, the first, without a prefix. coco-1k is
  tested on all 5,000 images and on five folds of them, of which `1K` is the mean.
- `cc3m`: to train on. Files with "val" in their name are the test; where there are none, one image in a hundred.
- `vqav2`: questions on COCO's images; trained on its train, tested on its val, whose answers are public. Its val images
  are those of val2014, of which Karpathy's restval is a part: who has trained on `coco` has seen them, though no answer.
"""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..captions import Captions
from ..coop.tasks import content, read_image
from ..images import Images
from ..protocols import FOLDS
from ..split import Dataset
from ..split_files import PARTS
from . import cc3m, karpathy, vqa
from .files import found

PROTOCOLS = {
    "coco": ("retrieval",),
    "coco-1k": ("retrieval",),
    "flickr30k": ("retrieval",),
    "cc3m": ("retrieval",),
    "vqav2": ("vqa",),
}
PUBLISHED = {
    "coco": (113_287, 5000, 5000),
    "flickr30k": (29_000, 1014, 1000),
}  # images to train, validate and test on
CAPTIONS = 5  # of an image; COCO has a few with six or seven


def names() -> list[str]:
    """Ids of the real data sets of images and texts."""
    return list(PROTOCOLS)


def dataset(id: str, root: Path, protocol: str) -> Dataset:
    """The data of one of `names()`.

    Raises FileNotFoundError naming what is missing and where to get it; ValueError, naming file and field, for lists that
    cannot be understood or have an image both to train and to test on.
    """
    parts, shifts = READERS[id](root), {}
    test = parts["test"]
    if id == "coco-1k":
        shifts = {
            name: test.select(rows) for name, rows in zip(FOLDS, np.array_split(range(len(test)), len(FOLDS)))
        }
    train = parts.get("train", test.select([]))
    return Dataset(id, train, test, parts.get("val"), shifts=shifts, protocols=PROTOCOLS[id])


def divided(name: str, root: Path) -> dict[str, Images]:
    """Part -> captions of coco or flickr30k; warns where the counts are not the published ones."""
    read = karpathy.entries(name, root)
    paths = found(root, [entry.places for entry in read], name, karpathy.IMAGES[name])
    chosen = {part: [i for i, entry in enumerate(read) if entry.part == part] for part in PARTS}
    counts = {part: (len(rows), n) for (part, rows), n in zip(chosen.items(), PUBLISHED[name], strict=True)}
    odd = [
        f"{part} has {n:,} images, published are {m:,}" for part, (n, m) in counts.items() if n not in (0, m)
    ]
    if odd:
        warnings.warn(
            f"{name}: {', '.join(odd)}. Numbers measured on it cannot be compared with published ones",
            stacklevel=5,
        )
    texts = [entry.texts[:CAPTIONS] for entry in read]
    provenance = "changed" if odd else "published"
    about = {"read": functools.partial(read_image, root), "content": functools.partial(content, root)}
    return {
        part: captions([paths[i] for i in rows], [texts[i] for i in rows], provenance=provenance, **about)
        for part, rows in chosen.items()
        if rows
    }


def captions(ids: list[str], texts: list[tuple[str, ...]], **about) -> Captions:
    """Images with their texts."""
    owner = np.repeat(np.arange(len(ids)), [len(each) for each in texts])
    return Captions(ids, tuple(" ".join(text.split()) for each in texts for text in each), owner, **about)


def pairs(root: Path) -> dict[str, Images]:
    """Part -> captions of CC3M."""
    listed = cc3m.pairs(root)
    about = {
        "read": functools.partial(cc3m.read_image, root),
        "content": functools.partial(cc3m.content, root),
    }
    parts = {}
    for part in ("train", "test"):
        ids = [id for id, _, of in listed.rows if of == part]
        texts = [(text,) for _, text, of in listed.rows if of == part]
        parts[part] = captions(ids, texts, provenance=listed.provenance, **about)
    return parts


READERS: dict[str, Callable[[Path], dict[str, Images]]] = {
    "coco": functools.partial(divided, "coco"),
    "coco-1k": functools.partial(divided, "coco"),
    "flickr30k": functools.partial(divided, "flickr30k"),
    "cc3m": pairs,
    "vqav2": vqa.parts,
}
