"""Photographs of things cut out of their ground: the stamps of Tux Paint, read from where they are installed.

The package `tuxpaint-stamps-default` (Debian, Ubuntu and others; GPL-2) is no part of vlmlab. Where it lies in one of
`FOLDERS`, or where $VLMLAB_STAMPS says, the tasks photos/... test on them what was trained on drawings.
`data/drawings/stamps.csv` says which of its folders show which subgroup of the emoji; what it draws is left out.
"""

import functools
import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from ...paths import data_dir

STYLE = "stamps"
ALL = ("photos/animals", "photos/food")  # the groups of the emoji with photographs of at least two classes
FOLDERS = ("/usr/share/tuxpaint/stamps", "/usr/local/share/tuxpaint/stamps")
SIZE, MARGIN = 64, 2  # pixels, as of the drawings


def folder() -> Path | None:
    """Where the stamps are, or None."""
    given = os.environ.get("VLMLAB_STAMPS")
    there = [Path(given).expanduser()] if given else map(Path, FOLDERS)
    return next((path for path in there if path.is_dir()), None)


def names() -> list[str]:
    """Ids of the tasks that the stamps there serve."""
    return [*ALL] if folder() else []


def missing(id: str) -> str:
    """What to do where a task has no stamps."""
    return (
        f"{id} needs the photographs of Tux Paint, in {' or '.join(FOLDERS)}: `apt install tuxpaint-stamps-default`, or "
        "unpack that package and let $VLMLAB_STAMPS name its folder `stamps`"
    )


@functools.cache
def table() -> pd.DataFrame:
    """A row per photograph: hexcode (its key, "animals.birds.crow"), subgroup, path. Empty without the package."""
    root, rows = folder(), []
    for of, subgroup, but in pd.read_csv(data_dir() / "drawings/stamps.csv").fillna("").to_numpy():
        for path in sorted((root / of).glob("*.png")) if root else ():
            if path.stem not in but.split():
                rows.append((".".join(path.relative_to(root).with_suffix("").parts), subgroup, path))
    return pd.DataFrame(rows, columns=["hexcode", "subgroup", "path"])


@functools.cache
def paths() -> dict[str, Path]:
    return dict(zip(table()["hexcode"], table()["path"], strict=True))


def content(key: str) -> bytes:
    """The bytes of a photograph's file; ValueError for one that is not there."""
    if key not in paths():
        raise ValueError(f"there is no photograph {key!r} in {folder()}")
    return paths()[key].read_bytes()


@functools.lru_cache(maxsize=1024)
def rgba(key: str) -> np.ndarray:
    """One photograph as (64, 64, 4) uint8, cropped to what it shows and centred. ValueError where it cannot be read."""
    content(key)
    try:
        image = Image.open(paths()[key]).convert("RGBA")
        image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{paths()[key]} is no picture that can be read ({error})") from error
    inner = ImageOps.contain(image, (SIZE - 2 * MARGIN,) * 2, Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(inner, tuple((SIZE - side) // 2 for side in inner.size))
    return np.asarray(canvas)
