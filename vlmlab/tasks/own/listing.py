"""`Listing`: what a folder or a table says there is, with all that is wrong about it."""

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SHOWN = 3  # names of images or classes in a message


@dataclasses.dataclass
class Listing:
    """Images of one's own before they are looked at.

    place: what the user named, for messages. layout: what it is, in words. base: the folder that paths are relative
    to. paths: one per image. parts: "train", "val" or "test" of each, None where the user did not divide them.
    names: of the classes, by label. labels: of each image, None without classes. texts: captions of each image, None
    without. soft: float32 (image, class) shares, or None. pixels: uint8 (image, height, width) where the images are
    in the table itself, else None. sizes: bytes of each image, once `look` looked. problems: why no task can be made
    of it. notes: what a user should know of it.
    """

    place: Path
    layout: str
    base: Path
    paths: list[str]
    parts: list[str] | None = None
    names: tuple[str, ...] = ()
    labels: list[int] | None = None
    texts: list[tuple[str, ...]] | None = None
    soft: np.ndarray | None = None
    pixels: np.ndarray | None = None
    sizes: list[int | None] = dataclasses.field(default_factory=list)
    problems: list[Exception] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def wrong(self, message: str, kind: type[Exception] = ValueError) -> None:
        self.problems.append(kind(f"{self.place}: {message}"))

    def content(self, path: str) -> bytes:
        """sha256 of an image."""
        if self.pixels is None:
            return content(self.base, path)
        return hashlib.sha256(self.pixels[int(path.split()[1]) - 1]).digest()

    def of(self, part: str) -> list[int]:
        """Positions of the images of a part."""
        return [i for i, p in enumerate(self.parts or ()) if p == part]


def few(items: Iterable[object], more: str = "") -> str:
    """The first few of many, with how many there are."""
    items = list(items)
    rest = len(items) - SHOWN
    return ", ".join(map(str, items[:SHOWN])) + (f" and {rest:,} more{more}" if rest > 0 else "")


def sizes(base: Path, paths: Iterable[str]) -> list[int | None]:
    """Bytes of each file, None where there is none."""

    def size(path: str) -> int | None:
        try:
            found = os.stat(base / path)
        except (OSError, ValueError):  # a path may hold what no file system takes
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    return [size(path) for path in paths]


def look(listing: Listing) -> None:
    """Add what the files tell without being read: which are missing or empty."""
    if listing.pixels is not None:
        listing.sizes = [listing.pixels[0].size] * len(listing)
        return
    listing.sizes = sizes(listing.base, listing.paths)
    missing = [p for p, size in zip(listing.paths, listing.sizes) if size is None]
    if missing:
        text = f"{len(missing):,} of {len(listing):,} images are not in {listing.base}: {few(missing)}"
        listing.wrong(text, FileNotFoundError)
    if empty := [p for p, size in zip(listing.paths, listing.sizes) if size == 0]:
        listing.wrong(f"{len(empty):,} images are empty files: {few(empty)}; copy them again or remove them")


def leaked(listing: Listing) -> None:
    """Note test images whose bytes are also those of an image to train or validate on."""
    if pairs := leaks(listing):
        said = few(f"{a} is {b}" for a, b in pairs)
        listing.notes.append(
            f"{len(pairs):,} test images are also training or validation images ({said}), which makes the test "
            "too easy; remove one of each"
        )


def leaks(listing: Listing) -> list[tuple[str, str]]:
    """(test image, training or validation image with the same bytes); only files of equal size are read."""
    sides: dict[int, dict[bool, list[str]]] = {}
    for path, part, size in zip(listing.paths, listing.parts or (), listing.sizes):
        if size:
            sides.setdefault(size, {}).setdefault(part == "test", []).append(path)
    pairs = []
    for same in sides.values():
        if len(same) == 2:
            known = {listing.content(path): path for path in same[False]}
            pairs += [(p, known[c]) for p in same[True] if (c := listing.content(p)) in known]
    return pairs


def content(base: Path, path: str) -> bytes:
    """sha256 of an image file; from memory while the file is the same."""
    found = os.stat(base / path)
    return _content(base / path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1_000_000)
def _content(path: Path, size: int, time: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
