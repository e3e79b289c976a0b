"""The lists of images of CoOp's data sets: from a split file, text files, or a folder per class."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from .. import split_files
from ..split_files import Rows
from . import regenerate
from .flat import flat_images, is_flat, laid_out, usual_names
from .layouts import CLASSNAMES_PAGE, PARTS, Layout
from .regenerate import is_image, lines


@dataclasses.dataclass(frozen=True)
class Lists:
    """What is in a data set.

    names: of the classes, by label. parts: part -> (paths below the root, labels). provenance: "published"
    (the lists everybody uses), "changed" (others) or "regenerated" (made by CoOp's rule, see `regenerate`).
    """

    names: tuple[str, ...]
    parts: dict[str, tuple[list[str], list[int]]]
    provenance: str


def read(layout: Layout, root: Path, parts: tuple[str, ...] = PARTS, make_split: bool = False) -> Lists:
    """The lists of a data set; `parts` that are not asked for are left out where that saves time.

    make_split: where the split file is missing, make the split by CoOp's own rule.
    Raises FileNotFoundError naming what is missing, ValueError for a file that cannot be understood.
    """
    folder, layout = root / layout.folder, laid_out(layout, root)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; {layout.where}")
    if layout.kind == "folders":
        return from_folders(layout, root, parts)
    if layout.kind == "variants":
        return from_rows(layout, variants(folder), f"{folder}/variants.txt")
    path = folder / layout.split
    if path.exists():
        return from_rows(layout, split_files.read(path, f"Get it again from {layout.split_page}"), path)
    if not make_split:
        raise FileNotFoundError(
            f"{path} is missing; get CoOp's split from {layout.split_page}, or pass make_split=True "
            "(--make-split) for a random one by the same rule, whose numbers are not comparable"
        )
    return from_rows(layout, regenerate.rows(layout, folder), path, "regenerated")


def variants(folder: Path) -> Rows:
    """FGVC-Aircraft: labels count the lines of variants.txt, a line of a list is 'image class name'."""
    label = {name: i for i, name in enumerate(lines(folder / "variants.txt"))}
    rows = {}
    for part in PARTS:
        path = folder / f"images_variant_{part}.txt"
        pairs = [line.split(" ", 1) for line in lines(path)]
        unknown = [p for p in pairs if p[-1] not in label]
        if unknown:
            raise ValueError(
                f"{path} has the line {' '.join(unknown[0])!r}; expected an image and a class of variants.txt"
            )
        rows[part] = [(f"{image}.jpg", label[name], name) for image, name in pairs]
    return rows


def from_rows(layout: Layout, rows: Rows, path: str | Path, provenance: str = "") -> Lists:
    """Names come from the train list, as in CoOp. ValueError when labels and names do not fit together."""
    names = split_files.names_of(rows, path)
    prefix = "/".join(filter(None, (layout.folder, layout.images)))
    parts = {
        part: ([f"{prefix}/{image}" for image, _, _ in found], [label for _, label, _ in found])
        for part, found in rows.items()
    }
    return Lists(
        names,
        parts,
        provenance or ("published" if is_published(layout, rows) else "changed"),
    )


def is_published(layout: Layout, rows: Rows) -> bool:
    """Whether these are the published lists, as far as can be told: digest, else counts and some images."""
    if layout.digest:
        return digest(rows) == layout.digest
    return tuple(len(rows[part]) for part in PARTS) == layout.counts and all(
        rows["train"][i][0] == image for i, image in layout.witness
    )


def digest(rows: Rows) -> str:
    """16 hex digits of sha256 over all rows, with / between folders."""
    return hashlib.sha256(json.dumps({part: rows[part] for part in PARTS}).encode()).hexdigest()[:16]


def from_folders(layout: Layout, root: Path, parts: tuple[str, ...]) -> Lists:
    """ImageNet and its variants: labels count the sorted class folders, or are their names (ImageNetV2); see also flat.

    Images are sorted by name; CoOp takes them as the disk gives them, so that its few-shot images of
    ImageNet differ between machines.
    """
    names = class_names(layout, root)
    found, order = {}, None
    for part, sub in layout.parts:
        if part in parts:
            prefix = "/".join(filter(None, (layout.folder, layout.images, sub)))
            if is_flat(root / prefix):
                order = order or sorted(names)
                found[part] = flat_images(root, prefix, order)
                continue
            folders = class_folders(root / prefix, layout)
            if order is not None and folders != order:
                odd = sorted(set(folders) ^ set(order))
                raise ValueError(
                    f"train and val below {root / layout.folder / layout.images} have different "
                    f"class folders, for example {odd[0]}; extract both again"
                )
            order = folders
            found[part] = folder_images(root, prefix, labels_of(folders, names, layout))
    wnids = list(names) if by_number(layout) else order
    unknown = [w for w in wnids if w not in names]
    if unknown:
        raise ValueError(
            f"classnames.txt names no class for the folder {unknown[0]} of {layout.id}; get it "
            f"again from {CLASSNAMES_PAGE}"
        )
    whole = all(len(found[p][0]) == n for p, n in zip(PARTS, layout.counts, strict=True) if p in found)
    return Lists(tuple(names[w] for w in wnids), found, "published" if whole else "changed")


def by_number(layout: Layout) -> bool:
    """ImageNetV2 names class folders by label, all others by WordNet id."""
    return layout.id == "imagenetv2"


def labels_of(folders: list[str], names: dict[str, str], layout: Layout) -> dict[str, int]:
    """Class folder -> label."""
    if not by_number(layout):
        return {folder: i for i, folder in enumerate(folders)}
    odd = [f for f in folders if not f.isdecimal() or int(f) >= len(names)]
    if odd:
        raise ValueError(
            f"{layout.folder}/{layout.images} has the folder {odd[0]}; expected 0 to "
            f"{len(names) - 1}, the lines of classnames.txt"
        )
    return {folder: int(folder) for folder in sorted(folders, key=int)}


def folder_images(root: Path, prefix: str, labels: dict[str, int]) -> tuple[list[str], list[int]]:
    """Paths below the root and labels of all images, one listing per class folder."""
    paths, numbers = [], []
    for folder, label in labels.items():
        here = f"{prefix}/{folder}"
        images = sorted(filter(is_image, os.listdir(root / here)))
        paths += [f"{here}/{name}" for name in images]
        numbers += [label] * len(images)
    return paths, numbers


def class_folders(folder: Path, layout: Layout) -> list[str]:
    """Sorted names of the class folders; ValueError when there is none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; {layout.where}")
    with os.scandir(folder) as entries:
        found = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    if not found:
        raise ValueError(
            f"{folder} has no class folders; sort its images into one folder per class "
            "(for ImageNet's val with the script valprep.sh)"
        )
    return found


def class_names(layout: Layout, root: Path) -> dict[str, str]:
    """WordNet id -> class name, in the order of classnames.txt: the data set's own, else ImageNet's, else CLIP's names."""
    places = [root / layout.folder / "classnames.txt", root / "imagenet/classnames.txt"]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        if usual := usual_names(layout, root):
            return usual
        raise FileNotFoundError(
            f"{' or '.join(dict.fromkeys(map(str, places)))} is missing; get it from {CLASSNAMES_PAGE}"
        )
    pairs = [line.split(" ", 1) for line in lines(path)]
    odd = [p for p in pairs if len(p) != 2]
    if odd:
        raise ValueError(f"{path} has the line {odd[0][0]!r}; expected 'n01440764 tench'")
    return dict(pairs)


def missing(root: Path, paths: Iterable[str]) -> list[str]:
    """Those of `paths` (below the root) that are not there; every folder is listed once."""

    @functools.cache
    def there(folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    return [path for path in paths if path.rpartition("/")[2] not in there(path.rpartition("/")[0])]
