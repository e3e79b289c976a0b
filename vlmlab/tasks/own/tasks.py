"""Tasks of one's own data: `folder:PATH`, and for tables `csv:`, `parquet:`, `split:`, or `table:` by its ending.
The usual sets of emotions are named so too (see emotions.py): `table:Emotion6/ground_truth.txt`, `table:fer2013.csv`,
`folder:RAF-DB`.

Where nobody divided the images, of every class (or of all pairs of image and text) half train, a fifth validate and
the rest test: CoOp's rule, drawn with a seed of its own, so that every seed of a task has the same test.
"""

import functools
import hashlib
import json
import os
import random
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ... import image_files
from ...files import nearby
from ..captions import Captions
from ..sampling import by_class
from ..split import Dataset, Split
from ..split_files import PARTS, check_names
from . import tables
from .emotions import pixel_image
from .folders import list_folder
from .listing import Listing, content, leaked, look, sizes

TEMPLATE = "a photo of a {}."
SEED = 1  # of the division into train, val and test
READERS = {
    "folder": lambda path, root: list_folder(path),
    "csv": tables.list_csv,
    "parquet": tables.list_parquet,
    "split": tables.list_split,
}
ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "split",
}
KINDS = (*READERS, "table")
NEEDS = {
    "few_shot": "training images with labels",
    "base_to_new": "training images with labels",
    "label_distribution": "soft labels, a column of numbers for each class in place of label",
    "retrieval": "a column text",
}


def is_own(id: object) -> bool:
    """Whether an id of a task names data of one's own."""
    return isinstance(id, str) and id.partition(":")[0] in KINDS and ":" in id


def start(root: str | Path | None) -> Path:
    """What relative paths start from: `root`, else the working folder."""
    return Path(os.path.expanduser(root or "")).absolute()


def place_of(id: str, root: str | Path | None = None) -> tuple[str, Path]:
    """(kind of `READERS`, absolute path) of an id. FileNotFoundError, with what is nearly called so, where nothing is."""
    kind, _, text = id.partition(":")
    if not text.strip():
        raise ValueError(f"{id!r} names nothing; write {kind}:PATH")
    path = start(root) / os.path.expanduser(text.strip())
    if not os.path.exists(path):
        raise FileNotFoundError(f"{id!r} names {path}, which is not there{nearby(path)}")
    if kind == "table":
        if path.suffix.lower() not in ENDINGS:
            raise ValueError(
                f"{id!r} is no table by its ending; there are {', '.join(ENDINGS)}, or name it csv:{text}"
            )
        kind = ENDINGS[path.suffix.lower()]
    if kind != "folder" and path.is_dir():
        raise ValueError(f"{path} is a folder; images in folders are folder:{text}")
    return kind, path


def list_images(id: str, root: str | Path | None = None) -> Listing:
    """All that an id names, with what is wrong about it."""
    kind, path = place_of(id, root)
    listing = READERS[kind](path, start(root))
    if listing.names and not listing.problems:
        try:
            check_names(listing.names, path)
        except ValueError as e:
            listing.problems.append(e)
    if not listing.problems:
        look(listing)
    if len(listing.names) == 1:
        listing.notes.append(
            f"all images are of one class, {listing.names[0]!r}: there is nothing to tell apart"
        )
    return listing


def protocols(listing: Listing) -> tuple[str, ...]:
    """What a listing can serve."""
    parts = set(listing.parts or PARTS)
    labelled = listing.labels is not None
    trained = labelled and "train" in parts
    return (
        *(["zero_shot"] if labelled else []),
        *(["few_shot", "base_to_new"] if trained else []),
        *(["label_distribution"] if trained and listing.soft is not None else []),
        *(["retrieval"] if listing.texts is not None else []),
    )


def dataset(id: str, root: str | Path | None, protocol: str) -> Dataset:
    """The data that an id names. Warns of what a user should know.

    Raises FileNotFoundError for what is not there, ValueError for what no task can be made of.
    """
    listing = list_images(id, root)
    if listing.problems:
        more = len(listing.problems) - 1
        first = listing.problems[0]
        tail = f" (and {more} more problems: vlmlab data describe {listing.place})" if more else ""
        raise type(first)(f"{first}{tail}")
    if protocol not in protocols(listing):
        needs = f"; {protocol} needs {NEEDS[protocol]}" if protocol in NEEDS else ""
        raise ValueError(f"{id} has no protocol {protocol}; it has {', '.join(protocols(listing))}{needs}")
    part = functools.partial(captions if protocol == "retrieval" else labelled, listing)
    if protocol == "zero_shot" and not {"test", "val"} & set(listing.parts or ()):
        test = train = part(range(len(listing)))
        val = None
    else:
        drawn = divide(listing)
        leaked(listing)
        found = {p: part(listing.of(p), "drawn" if drawn else "") for p in PARTS if listing.of(p)}
        test, val = found["test"], found.get("val")
        train = found.get("train", test.select([]) if protocol == "retrieval" else test)
    for note in listing.notes:
        warnings.warn(f"{listing.place}: {note}", stacklevel=3)  # at the call of `task`
    return Dataset(id, train, test, val, protocols=protocols(listing))


def divide(listing: Listing) -> bool:
    """Fill in the parts that nobody made; whether they were drawn."""
    given = set(listing.parts or ())
    if "test" in given:
        return False
    if "val" in given:  # as in ImageNet
        listing.parts = ["test" if part == "val" else part for part in listing.parts]
        listing.notes.append("there are no test images; those of val are the test, and nothing validates")
        return False
    listing.parts = draw(listing)
    listing.notes.append(
        "nobody divided the images: of every class half train, a fifth validate, the rest test, drawn with seed "
        f"{SEED} whatever the seed of the task"
    )
    return True


def draw(listing: Listing) -> list[str]:
    """A part for each image. ValueError for a class that has none to train or to test on."""
    stream, parts = random.Random(SEED), ["test"] * len(listing)
    for label, group in sorted(by_class(listing.labels or [0] * len(listing)).items()):
        if len(group) < 2 and listing.soft is None:
            name = f"the class {listing.names[label]!r} has" if listing.names else "there is"
            raise ValueError(
                f"{listing.place}: {name} one image; two are needed, one to train and one to test on"
            )
        stream.shuffle(group)
        train, val = round(len(group) * 0.5), round(len(group) * 0.2) if len(group) > 3 else 0
        for i in group[:train]:
            parts[i] = "train"
        for i in group[train : train + val]:
            parts[i] = "val"
    return parts


def about(listing: Listing, provenance: str) -> dict:
    """How the images of a listing are read."""
    if listing.pixels is not None:
        read = functools.partial(pixel_image, listing.pixels)
        return {"read": read, "content": listing.content, "provenance": provenance}
    read, bytes_of = functools.partial(read_image, listing.base), functools.partial(content, listing.base)
    return {"read": read, "content": bytes_of, "provenance": provenance}


def labelled(listing: Listing, rows: Sequence[int], provenance: str = "") -> Split:
    """The images at these positions with their labels."""
    soft = None if listing.soft is None else listing.soft[list(rows)]
    labels = np.array([listing.labels[i] for i in rows])
    ids = [listing.paths[i] for i in rows]
    return Split(ids, labels, listing.names, TEMPLATE, soft, **about(listing, provenance))


def captions(listing: Listing, rows: Sequence[int], provenance: str = "") -> Captions:
    """The images at these positions with their texts."""
    texts = [listing.texts[i] for i in rows]
    owner = np.repeat(np.arange(len(texts)), [len(each) for each in texts])
    flat = tuple(text for each in texts for text in each)
    return Captions([listing.paths[i] for i in rows], flat, owner, **about(listing, provenance))


def read_image(base: Path, id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The image at a path below the base, upright, as RGB; `image_files.Unreadable` names a damaged one."""
    return image_files.read(base / id)


def state(id: str) -> str:
    """Digest of what an id names now: paths, sizes and times of the images, and the table; "" where it is not there."""
    try:
        kind, path = place_of(id)
        listing = READERS[kind](path, start(None))
    except (OSError, ValueError):
        return ""
    stamps = [
        (p, s, (listing.base / p).stat().st_mtime_ns)
        for p, s in zip(listing.paths, sizes(listing.base, listing.paths))
        if s
    ]
    record = [listing.paths, listing.parts, listing.labels, listing.names, listing.texts, stamps]
    record += [] if listing.soft is None else [listing.soft.tolist()]
    record += [] if listing.pixels is None else [hashlib.sha256(listing.pixels).hexdigest()]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def folder_name(id: str) -> str:
    """An id of a task as the name of a folder: "emoji.food", "folder.trees"; never a path."""
    if not is_own(id):
        return id.replace("/", ".")
    kind, _, text = id.partition(":")
    name = re.sub(r"[^\w.-]+", "-", Path(text.strip()).name).strip(".-")
    return f"{kind}.{name[:60] or 'images'}"
