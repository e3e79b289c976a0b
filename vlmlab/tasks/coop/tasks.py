"""The 15 data sets of CoOp as tasks, from folders that users of CoOp already have (see layouts).

Few-shot images are drawn by CoOp's rule (`sampling.few_shot`) on every call. The samples that CoOp keeps in
split_fewshot/*.pkl are not read: they are pickled and hold the absolute paths of another machine.
"""

import functools
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from ... import image_files
from ...files import nearby
from ..split import Dataset, Split
from . import lists
from .layouts import LAYOUTS, OTHERS, PARTS, SHIFTS, Layout

ROOT = "VLMLAB_DATASETS"


def names() -> list[str]:
    """Ids of the real data sets, as CoOp names them."""
    return list(LAYOUTS)


def root_folder(root: str | Path | None) -> Path:
    """The folder that holds the data sets: as given, else $VLMLAB_DATASETS.

    ValueError when neither is said, FileNotFoundError when there is no such folder.
    """
    said = root or os.environ.get(ROOT)
    if not said:
        raise ValueError(
            f"the real data sets need the folder that holds them: pass root=... (--root) or set {ROOT}"
        )
    path = Path(said).expanduser().absolute()
    if path.is_file():
        raise NotADirectoryError(
            f"{path} is a file; pass the folder that holds the real data sets as root=... (--root) or set {ROOT}"
        )
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}, the folder of the real data sets, does not exist{nearby(path)}; pass root=... (--root) or set {ROOT}"
        )
    return path


def protocols(id: str) -> tuple[str, ...]:
    """Protocols that CoOp has for a data set; the variants of ImageNet are for testing only."""
    if id in SHIFTS:
        return ("zero_shot",)
    more = ("cross_dataset", "domain_shift") if id == "imagenet" else ()
    return ("zero_shot", "few_shot", "base_to_new", *more)


def dataset(id: str, root: Path, protocol: str = "few_shot", make_split: bool = False) -> Dataset:
    """The data of one of `names()`, read as far as the protocol needs it: zero_shot needs test images only.

    ImageNet has no validation images of its own. CoOp hands its methods the test images there; here val is
    None, so that nothing can be chosen on them (`protocols.sampled` lends some of the training images).

    Raises FileNotFoundError naming what is missing and where to get it; ValueError for files that cannot be
    understood. Warns when the lists of images are not the published ones.
    """
    parts = ("test",) if protocol == "zero_shot" or id in SHIFTS else PARTS
    own = splits(LAYOUTS[id], root, parts, make_split)
    test, others, shifts = own["test"], {}, {}

    def test_of(other: str) -> Split:
        return splits(LAYOUTS[other], root, ("test",), make_split)["test"]

    if id == "imagenet" and protocol == "cross_dataset":
        others = {other: functools.partial(test_of, other) for other in OTHERS}
    if id == "imagenet" and protocol == "domain_shift":
        shifts = {other: test_of(other) for other in SHIFTS}
    return Dataset(
        id,
        own.get("train", test),
        test,
        own.get("val"),
        shifts=shifts,
        others=others,
        protocols=protocols(id),
    )


def splits(layout: Layout, root: Path, parts: tuple[str, ...], make_split: bool) -> dict[str, Split]:
    """Parts of a data set, after a look at whether all of their images are there."""
    listed = lists.read(layout, root, parts, make_split)
    chosen = {part: listed.parts[part] for part in parts if part in listed.parts}
    paths = [path for found, _ in chosen.values() for path in found]
    gone = [] if layout.kind == "folders" else lists.missing(root, paths)
    if gone:
        raise FileNotFoundError(
            f"{len(gone):,} of {len(paths):,} images of {layout.id} are missing, the "
            f"first is {root / gone[0]}; {layout.where}"
        )
    if listed.provenance == "changed":
        warnings.warn(
            f"{layout.id}: {not_published(layout, chosen)}. Numbers measured on it cannot be "
            "compared with published ones",
            stacklevel=4,
        )  # at the call of `task`
    read, size = functools.partial(read_image, root), functools.partial(content, root)
    return {
        part: Split(
            paths,
            np.array(labels),
            listed.names,
            layout.template,
            read=read,
            content=size,
            provenance=listed.provenance,
        )
        for part, (paths, labels) in chosen.items()
    }


def not_published(layout: Layout, chosen: dict[str, tuple[list, list]]) -> str:
    """What is wrong with lists that are not the published ones."""
    counts = dict(zip(PARTS, layout.counts, strict=True))
    text = ", ".join(
        f"{part} has {len(paths):,} images, published are {counts[part]:,}"
        for part, (paths, _) in chosen.items()
        if len(paths) != counts[part]
    )
    if layout.kind != "split":
        return text or "the lists are not the published ones"
    return (
        f"{layout.folder}/{layout.split} is not the published split ({text or 'other images'}); CoOp "
        f"makes one of its own where it finds none. The published one is at {layout.split_page}"
    )


def read_image(root: Path, id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The image at a path below the root, as RGB; ValueError names a damaged one.

    As CoOp reads it: what EXIF says of its orientation does not count, since published numbers are without.
    """
    return image_files.read(root / id, upright=False, fix="extract it again from the archive")


def content(root: Path, id: str) -> bytes:
    """The size of an image file: reading all of ImageNet for a fingerprint would take an hour.

    ValueError for a file without content, the mark of an extraction that was broken off.
    """
    size = os.stat(root / id).st_size
    if not size:
        raise ValueError(f"{root / id} is empty; extract it again from the archive")
    return str(size).encode()
