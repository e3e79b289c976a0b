"""Split files as CoOp writes them, split_zhou_*.json, and what must be true of lists of images with labels."""

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

PARTS = ("train", "val", "test")
LONGEST = 200  # letters of a class name: CLIP reads 77 tokens
Rows = dict[str, list[tuple[str, int, str]]]  # part -> (path below the images, label, class name)


def read(path: Path, fix: str) -> Rows:
    """The rows of a split file, also of one written on Windows; ValueError, which ends in `fix`, for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {part: [row(*each) for each in found[part]] for part in PARTS}
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ValueError(
            f"{path} is not a split of CoOp ({type(e).__name__}: {e}); expected train, val and "
            f"test, each a list of [path, label, class name]. {fix}"
        ) from e


def row(image: object, label: object, name: object) -> tuple[str, int, str]:
    """One row with its types; ValueError names what is none."""
    if not isinstance(image, str):
        raise ValueError(f"the path {image!r} is no text")
    if isinstance(label, bool) or not isinstance(label, (int, float)) or label != int(label):
        raise ValueError(f"the label {label!r} of {image} is no whole number")
    return image.replace("\\", "/"), int(label), str(name)


def names_of(rows: Rows, where: object) -> tuple[str, ...]:
    """The class names by label, from the train list as in CoOp.

    ValueError, naming the file `where`, the image and what it says, unless labels count from 0 without gaps, every
    list calls a label by the same name, no two share one, and every path stays below the images and is in one list.
    """
    names: dict[int, str] = {}
    for image, label, name in rows["train"]:
        if names.setdefault(label, name) != name:
            raise ValueError(
                f"{where} gives class {label} two names, {names[label]!r} and {name!r} (at {image})"
            )
    if not names or sorted(names) != [*range(len(names))]:
        raise ValueError(
            f"the {len(names)} classes of the train list in {where} must have the labels 0 to "
            f"{len(names) - 1}, got {min(names, default=None)} to {max(names, default=None)}"
        )
    part_of: dict[str, str] = {}
    for part, found in rows.items():
        for image, label, name in found:
            if names.get(label) != name:
                known = f"train calls it {names[label]!r}" if label in names else "train has no such label"
                raise ValueError(f"{where} calls class {label} {name!r} in {part} (at {image}); {known}")
            if part_of.setdefault(image, part) != part:
                raise ValueError(
                    f"{where} has {image} in {part_of[image]} and in {part}; leave it out of one of them"
                )
    if outside := [image for image in part_of if leads_out(image)]:
        raise ValueError(f"{where} names {outside[0]!r}, which is no path below the folder of the images")
    ordered = tuple(names[i] for i in range(len(names)))
    check_names(ordered, where)
    return ordered


def leads_out(path: str) -> bool:
    """Whether a path of a list is empty, absolute, or leads out of the folder that it starts from."""
    parts = PurePosixPath(path).parts
    return not parts or path.startswith("/") or ".." in parts or "\0" in path


def prompt_of(name: str) -> str:
    """What a text model makes of a class name: without case, underscores as spaces."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").casefold().split())


def check_names(names: Iterable[str], where: object) -> None:
    """ValueError for class names that are empty, hold what is no text, are too long, or read the same."""
    seen: dict[str, str] = {}
    for name in names:
        read_as = prompt_of(name)
        if not read_as or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
            raise ValueError(f"{where} has a class called {name!r}; a class needs a name of readable text")
        if len(name) > LONGEST:
            raise ValueError(
                f"{where} has a class name of {len(name):,} letters ({name[:40]!r}...); shorten it to at most {LONGEST}"
            )
        if read_as in seen:
            raise ValueError(
                f"{where} has two classes called {seen[read_as]!r} and {name!r}, which read the same; "
                "rename one or join them"
            )
        seen[read_as] = name
