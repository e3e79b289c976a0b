"""A folder per class, below a folder or below train, val and test folders."""

import collections
import os
import unicodedata
from pathlib import Path

from ... import image_files
from ...nearest import near
from .. import split_files
from . import emotions
from .listing import Listing, few

PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), "val"),  # the last as in FER2013
    **dict.fromkeys(("test", "testing", "privatetest"), "test"),
}
SORT = (
    "sort the images into folders that are named like their classes, or list them in a table (table:FILE, with "
    "the columns path and label)"
)
LEFT_BY_SYSTEMS = ("__MACOSX", "@eaDir")
NO_IMAGES = ("thumbs.db", "desktop.ini", "readme.md", "readme.txt", "readme", "license", "license.txt")


def list_folder(path: Path) -> Listing:
    """What a folder of one's own holds. FileNotFoundError or ValueError where there is nothing to list."""
    below, loose = entries(path)
    if not below:
        what = f"holds {len(loose):,} images, but no folder" if loose else "holds no folder"
        raise ValueError(f"{path} {what} per class; {SORT}")
    given = divided(below)
    if not given and len(below) > 1 and all(PART_OF.get(name.casefold()) for name in below):
        raise ValueError(f"{path} has the folders {few(below)}, which hold no folder per class; {SORT}")
    listing = Listing(path, "a folder per class", path, [], labels=[])
    if loose:
        listing.notes.append(f"{len(loose):,} images beside the folders are left out: {few(loose)}")
    if given:
        listing.layout, listing.parts = f"{', '.join(given)} folders with a folder per class", []
        used = {folder.name for folder in given.values()}
        if others := [name for name in below if name not in used]:
            listing.notes.append(f"folders beside {', '.join(given)} are left out: {few(others)}")
    found = {part: entries(folder)[0] for part, folder in given.items()} or {"": below}
    fill(listing, {part: classes(listing, part, folders) for part, folders in found.items()})
    emotions.call_raf(listing)
    return listing


def entries(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Folders by name, in order, and names of images; without what is hidden or left by some system."""
    try:
        with os.scandir(folder) as found:
            seen = sorted((e.name, e.is_dir()) for e in found if not hidden(e.name))
    except NotADirectoryError:
        raise ValueError(f"{folder} is a file; a table of images is table:{folder}") from None
    images = [name for name, is_folder in seen if not is_folder and image_files.is_picture(name)]
    return {name: folder / name for name, is_folder in seen if is_folder}, images


def hidden(name: str) -> bool:
    return name.startswith(".") or name in LEFT_BY_SYSTEMS


def divided(below: dict[str, Path]) -> dict[str, Path]:
    """Part -> its folder where folders are train, val and test and hold classes; else nothing.

    ValueError where one is and another is nearly called so, or where there is none to train or to test on beside
    folders that may be one.
    """
    found: dict[str, Path] = {}
    others = []
    for name, folder in below.items():
        part = PART_OF.get(name.casefold())
        if part and entries(folder)[0]:
            found.setdefault(part, folder)
        else:
            others.append(name)
    for name in others if found else ():
        meant = near(name, PART_OF, alike=0.75)
        if (meant or "train" not in found) and entries(below[name])[0]:
            first = next(iter(found.values()))
            raise ValueError(
                f"{below[name]} is none of train, val and test, but lies beside {first.name}, which is; "
                f"{f'did you mean {meant[0]}?' if meant else 'rename or move it'}"
            )
    whole = not others or "train" in found
    return {part: found[part] for part in split_files.PARTS if part in found} if whole else {}


def classes(listing: Listing, part: str, folders: dict[str, Path]) -> dict[str, list[str]]:
    """Class name -> paths of the images below its folder."""
    found, empty, others = {}, [], collections.Counter()
    for folder, path in folders.items():
        images, odd = below_class(listing.base, path)
        others.update(odd)
        name = unicodedata.normalize("NFC", folder).replace("_", " ").strip()
        if name in found:
            listing.wrong(f"two folders of {part or 'it'} are called {name!r}; rename or join them")
        elif images:
            found[name] = images
        else:
            empty.append(f"{part}/{folder}".lstrip("/"))
    kinds = ", ".join(f"{n:,} {suffix or 'without an ending'}" for suffix, n in others.most_common(5))
    if empty:
        but = f" (but files that are none: {kinds})" if others else ""
        listing.wrong(f"{len(empty):,} class folders hold no image: {few(empty)}{but}; fill or remove them")
    elif others:
        listing.notes.append(f"files that are no images by their endings are left out: {kinds}")
    return found


def fill(listing: Listing, found: dict[str, dict[str, list[str]]]) -> None:
    """Paths, labels and parts; classes are those of the first part, in sorted order."""
    first, known = next(iter(found.items()))
    listing.names = tuple(known)
    label = {name: i for i, name in enumerate(known)}
    for part, images_of in found.items():
        for name, images in images_of.items():
            if name not in label:
                like = f" (it has {alike[0]!r})" if (alike := near(name, known, alike=0.5)) else ""
                listing.wrong(f"{part} has the class {name!r}, which {first} lacks{like}")
                continue
            listing.paths += images
            listing.labels += [label[name]] * len(images)
            if listing.parts is not None:
                listing.parts += [part] * len(images)


def below_class(base: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Paths, relative to the base, of all images at any depth below a class folder; endings of other files."""
    images, others = [], []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not hidden(name))
        at = Path(where).relative_to(base).as_posix()
        for name in sorted(files):
            if image_files.is_picture(name):
                images.append(f"{at}/{name}")
            elif not hidden(name) and name.lower() not in NO_IMAGES:
                others.append(Path(name).suffix.lower())
    return images, others
