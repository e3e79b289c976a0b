"""What the columns of a table of images mean."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ...nearest import hint
from .. import split_files
from . import emotions
from .folders import PART_OF
from .listing import Listing, few

# what a table calls its columns -> what they are; also as Hugging Face, open_clip and torchvision call them
COLUMNS = {
    **dict.fromkeys(("path", "file", "filename", "file_name", "filepath", "file_path", "image"), "path"),
    **dict.fromkeys(("image_filename", "image_name", "image_id", "imagename"), "path"),
    "pixels": "pixels",  # the image itself, in FER2013
    **dict.fromkeys(("label", "class", "emotion"), "label"),
    **dict.fromkeys(("name", "classname", "class_name"), "name"),
    **dict.fromkeys(("text", "caption", "title"), "text"),
    **dict.fromkeys(("split", "part", "usage"), "split"),
    **dict.fromkeys(("valence", "arousal", "dominance"), "rating"),  # of Emotion6, no class
}
DRESSED = re.compile(r"\[?\s*(?:prob\.\s*)?(.*?)\s*\]?", re.IGNORECASE)  # "[prob. anger]", as in Emotion6
MISSING = ("", "nan", "NaN", "<NA>")  # as pandas writes what is not there


def called(column: str) -> str:
    """A column's name without what some files put around it."""
    return DRESSED.fullmatch(column.strip())[1]


def plain(column: str) -> str:
    return called(column).lower()


def listed(path: Path, root: Path, table: pd.DataFrame) -> Listing:
    """The rows of a table of texts."""
    if not len(table):
        raise ValueError(f"{path} has no rows")
    listing = Listing(path, "a table of images", path.parent, [])
    kinds, others = sorted_columns(table)
    soft = others if others and not {"label", "name"} & kinds.keys() and "text" not in kinds else []
    columns_checked(listing, others if not soft else [])
    cells = {kind: table[column].str.strip() for kind, column in kinds.items()}
    if not {"path", "pixels"} & kinds.keys():
        raise ValueError(f"{path} has no column path; it has {', '.join(table.columns)}")
    if "pixels" in kinds:
        there = emotions.take_pixels(listing, cells)
    else:
        there = placed(listing, cells["path"], root)
    if not there:
        return listing
    if "split" in cells:
        listing.parts = parts_of(listing, cells["split"])
    if soft:
        soft_labels(listing, table[soft])
    elif {"label", "name"} & cells.keys():
        hard_labels(listing, cells)
    if "text" in cells:
        listing.texts = [(" ".join(t.split()),) for t in cells["text"]]
        if gone := [p for p, (text,) in zip(listing.paths, listing.texts) if not text]:
            listing.wrong(f"{len(gone):,} images have no text: {few(gone)}; write one or leave them out")
    if listing.labels is None and listing.texts is None and not listing.problems:
        listing.wrong(
            "has neither labels nor texts; a table has the columns path and label, or path and text"
        )
    joined(listing)
    return listing


def placed(listing: Listing, cells: pd.Series, root: Path) -> bool:
    """Paths as ones below the folder that they are relative to; whether they are."""
    paths = [p.replace("\\", "/") for p in cells]
    listing.base = base_of(listing.place, root, paths[0])
    listing.paths = [below(listing.base, p) for p in paths]
    if outside := [p for p in listing.paths if split_files.leads_out(p)]:
        listing.wrong(
            f"{len(outside):,} paths are empty or lead out of {listing.base}, such as {outside[0]!r}; name the "
            "folder that holds all images as root (--root)"
        )
    return not outside


def sorted_columns(table: pd.DataFrame) -> tuple[dict[str, str], list[str]]:
    """(what it is -> column, other columns)."""
    kinds: dict[str, str] = {}
    for column in table.columns:
        if kind := COLUMNS.get(plain(column)):
            kinds.setdefault(kind, column)
    others = [c for c in table.columns if c not in kinds.values() and not unnamed(c)]
    return kinds, [c for c in others if COLUMNS.get(plain(c)) != "rating"]


def unnamed(column: str) -> bool:
    """Whether a column is the index that pandas wrote along."""
    return column.startswith("Unnamed: ") or column in ("", "__index_level_0__")


def columns_checked(listing: Listing, others: list[str]) -> None:
    """Unknown columns are left out and said; one that is nearly a known one is wrong."""
    for column in others:
        if meant := hint(column, COLUMNS, 0.8):
            listing.wrong(f"unknown column {column!r}{meant}")
    if others:
        listing.notes.append(f"columns that mean nothing here are left out: {few(others)}")


def base_of(path: Path, root: Path, first: str) -> Path:
    """The folder that the paths of a table are relative to: the first of three in which its first image is."""
    folders = (path.parent, path.parent / "images", root)
    return next((f for f in folders if os.path.exists(f / first) and in_it(f, first)), path.parent)


def in_it(folder: Path, path: str) -> bool:
    return not path.startswith("/") or Path(path).is_relative_to(folder)


def below(base: Path, path: str) -> str:
    """A path as one that is relative to the base, where it is in it."""
    return Path(path).relative_to(base).as_posix() if path.startswith("/") and in_it(base, path) else path


def parts_of(listing: Listing, cells: pd.Series) -> list[str]:
    """The split of each row."""
    unknown = [c for c in dict.fromkeys(cells) if c.casefold() not in PART_OF]
    if unknown:
        listing.wrong(f"the column split says {few(map(repr, unknown))}; it may say train, val or test")
    return [PART_OF.get(cell.casefold(), "") for cell in cells]


def hard_labels(listing: Listing, cells: dict[str, pd.Series]) -> None:
    """Class names and labels: numbers in their order, names in sorted order."""
    keys, said = cells.get("label", cells.get("name")), cells.get("name", cells.get("label"))
    for column in (keys, said):
        if gone := [row for row, cell in enumerate(column, start=1) if cell in MISSING]:
            listing.wrong(f"{len(gone):,} images have no {column.name}, the first in row {gone[0]}")
            return
    numbers = pd.to_numeric(keys, errors="coerce")
    if numbers.notna().all():
        keys = numbered(listing, numbers)
        if keys is None:
            return
        if "name" not in cells:
            listing.notes.append(
                "the classes are called by their numbers, '0', '1' ...; a column `name` gives them names"
            )
            said = keys.astype(str)
    names: dict[object, str] = {}
    for key, name in zip(keys, said, strict=True):
        if names.setdefault(key, name) != name:
            listing.wrong(f"class {key!r} has two names, {names[key]!r} and {name!r}")
            return
    order = sorted(names)
    listing.names = tuple(names[key].replace("_", " ") for key in order)
    label = {key: i for i, key in enumerate(order)}
    listing.labels = [label[key] for key in keys]


def numbered(listing: Listing, numbers: pd.Series) -> pd.Series | None:
    """Labels that are numbers as whole ones from 0 without gaps; None, and why, where they are not."""
    odd = numbers[(numbers % 1 != 0) | (numbers.abs() > 2**53)]
    if len(odd):
        listing.wrong(f"the label {odd.iloc[0]} of {listing.paths[odd.index[0]]} is no whole number")
        return None
    found = sorted(set(numbers.astype(int)))
    if found != [*range(len(found))]:
        gap = next(i for i, n in enumerate(found) if n != i)
        listing.wrong(
            f"labels that are numbers count from 0 without gaps; {gap} is missing among {found[0]} to {found[-1]}. "
            "Number them anew, or write class names"
        )
        return None
    return numbers.astype(int)


def soft_labels(listing: Listing, table: pd.DataFrame) -> None:
    """Shares per class, and the first largest as label."""
    shares = table.apply(lambda column: pd.to_numeric(column, errors="coerce"))
    for column in shares:
        if not np.isfinite(shares[column]).all() or (shares[column] < 0).any():
            why = hint(column, COLUMNS) or "; soft labels are numbers of at least 0"
            listing.wrong(
                f"the column {column!r} is none of path, label, text and split, and holds no numbers{why}"
            )
    if len(shares.columns) == 1:
        listing.wrong(
            f"unknown column {table.columns[0]!r}; did you mean label? Soft labels need two or more"
        )
    if listing.problems:
        return
    sums = shares.sum(axis=1)
    if (sums <= 0).any():
        listing.wrong(f"the soft labels of {listing.paths[int((sums <= 0).argmax())]} are all 0")
        return
    listing.soft = shares.div(sums, axis=0).to_numpy(np.float32)
    listing.labels = [int(i) for i in listing.soft.argmax(1)]
    listing.names = tuple(called(column).replace("_", " ") for column in table.columns)


def joined(listing: Listing) -> None:
    """One entry per image: rows of the same path are its captions; anything else twice is wrong."""
    if len(set(listing.paths)) == len(listing) or listing.problems:
        return
    at: dict[str, list[int]] = {}
    for i, path in enumerate(listing.paths):
        at.setdefault(path, []).append(i)
    for what, values in (("split", listing.parts), ("label", listing.labels)):
        for path, rows in at.items():
            if values is not None and len({values[i] for i in rows}) > 1:
                both = " and ".join(str(v) for v in dict.fromkeys(values[i] for i in rows))
                listing.wrong(f"{path} has the {what}s {both}; an image has one")
                return
    twice = [path for path, rows in at.items() if len(rows) > 1]
    if listing.texts is None:
        listing.wrong(f"{len(twice):,} images are listed twice: {few(twice)}; remove the second row of each")
        return
    listing.texts = [tuple(t for i in rows for t in listing.texts[i]) for rows in at.values()]
    first: Callable = lambda values: None if values is None else [values[rows[0]] for rows in at.values()]
    listing.parts, listing.labels = first(listing.parts), first(listing.labels)
    listing.soft = None if listing.soft is None else listing.soft[[rows[0] for rows in at.values()]]
    listing.paths = [*at]
