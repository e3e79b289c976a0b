"""What is in images of one's own, and what is wrong with them (`vlmlab data describe PATH`); reads every image once."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ... import image_files
from ..split_files import PARTS
from .listing import SHOWN, Listing, few
from .tasks import ENDINGS, divide, is_own, list_images, protocols

CLASSES = 20  # shown as text; JSON has all
GREY = ("1", "L", "LA", "La")


@dataclasses.dataclass(frozen=True)
class Seen:
    """One image file. why: it cannot be read, "" where it can; marks: what is said of it in the report."""

    digest: str = ""
    why: str = ""
    format: str = ""
    size: tuple[int, int] = (0, 0)  # width and height in pixels, upright
    marks: tuple[str, ...] = ()


def describe(path: str, root: str | Path | None = None) -> dict:
    """All that is known of a folder or table, as plain values; a path without "folder:" or the like may be either.

    layout, images, protocols; parts: part -> images; classes: class -> part -> images; sizes: smallest, median and
    largest (width, height); formats; marks: grey, rotated, 16-bit, transparent, frames -> images; broken: image ->
    why; doubles: lists of images with the same bytes, leaked: those of them that are in test and elsewhere,
    contradictions: those with several labels; problems: why it makes no task; notes.

    Raises FileNotFoundError or ValueError where there is nothing to describe.
    """
    if not is_own(path):
        path = f"{'table' if Path(path).suffix.lower() in ENDINGS else 'folder'}:{path}"
    listing = list_images(path, root)
    served = protocols(listing)
    try:
        divide(listing)
    except ValueError as e:
        listing.problems.append(e)
    seen = look_at(listing)
    return {
        "id": path,
        "place": str(listing.place),
        "layout": listing.layout,
        "images": len(listing),
        "texts": sum(map(len, listing.texts or ())),
        "protocols": [] if listing.problems else list(served),
        "parts": in_order(collections.Counter(listing.parts)),
        "classes": counts(listing),
        "sizes": sizes([s.size for s in seen if not s.why]),
        "formats": dict(collections.Counter(s.format for s in seen if s.format).most_common()),
        "marks": marked(listing.paths, seen),
        "broken": {path: s.why for path, s in zip(listing.paths, seen) if s.why},
        **same(listing, seen),
        "problems": [str(p) for p in listing.problems],
        "notes": listing.notes,
    }


def look_at(listing: Listing) -> list[Seen]:
    """Every image, read in threads: Pillow decodes outside of Python's lock."""
    from ... import progress

    if listing.pixels is not None:
        size = listing.pixels.shape[:0:-1]
        return [Seen(listing.content(path).hex(), "", "pixels", size, ("grey",)) for path in listing.paths]
    files = [listing.base / path for path in listing.paths]
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bar = progress.bar(
            pool.map(look_at_one, files), total=len(files), desc="images", unit="image", delay=1
        )
        return list(bar)


def look_at_one(file: Path) -> Seen:
    """One file: its bytes, its header, and whether its pixels can be read."""
    data = b""
    try:
        data = file.read_bytes()
        image_files.opened(io.BytesIO(data)).verify()  # the checksums of a PNG, which decoding leaves out
        with image_files.opened(io.BytesIO(data)) as image:
            size, marks = image.size, of_header(image)
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))  # a JPEG at an eighth
            if (turned := image_files.orientation(image)) > 1:
                marks.append("rotated")
            if image.mode in GREY or is_grey(image_files.rgb(image)):
                marks.append("grey")
            upright = size if turned < 5 else size[::-1]
            return Seen(hashlib.sha256(data).hexdigest(), "", image.format or "", upright, tuple(marks))
    except Exception as e:  # Pillow has no common class for what damaged files raise
        why = {FileNotFoundError: "it is not there", UnidentifiedImageError: "no picture of a known format"}
        said = why.get(type(e), f"{type(e).__name__}: {e}")
        return Seen(hashlib.sha256(data).hexdigest() if data else "", said)


def of_header(image: Image.Image) -> list[str]:
    """What a header says that a user may not expect."""
    found = []
    if image.mode.startswith(("I", "F")):
        found.append("16-bit")
    if image.has_transparency_data:
        found.append("transparent")
    if getattr(image, "n_frames", 1) > 1:
        found.append("frames")
    return found


def is_grey(image: Image.Image) -> bool:
    """Whether all pixels of an RGB picture are grey."""
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())


def counts(listing: Listing) -> dict[str, dict[str, int]]:
    """Class -> part -> images."""
    found = {name: collections.Counter() for name in listing.names}
    parts = listing.parts or [""] * len(listing)
    for label, part in zip(listing.labels or (), parts):
        found[listing.names[label]][part] += 1
    return {name: in_order(parts) for name, parts in found.items()}


def in_order(counts: dict[str, int]) -> dict[str, int]:
    """Train, val, test."""
    return {part: counts[part] for part in ("", *PARTS) if part in counts}


def sizes(found: Sequence[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Smallest, median and largest by the number of pixels."""
    if not found:
        return {}
    ordered = sorted(found, key=lambda size: (size[0] * size[1], size))
    return {"smallest": ordered[0], "median": ordered[len(ordered) // 2], "largest": ordered[-1]}


def marked(paths: Sequence[str], seen: Sequence[Seen]) -> dict[str, list[str]]:
    """Mark -> images."""
    found: dict[str, list[str]] = {}
    for path, s in zip(paths, seen):
        for mark in s.marks:
            found.setdefault(mark, []).append(path)
    return found


def same(listing: Listing, seen: Sequence[Seen]) -> dict[str, list[list[str]]]:
    """doubles, leaked and contradictions: groups of images with the same bytes."""
    groups: dict[str, list[int]] = {}
    for i, s in enumerate(seen):
        if s.digest:
            groups.setdefault(s.digest, []).append(i)
    twice = [rows for rows in groups.values() if len(rows) > 1]

    def where(differ) -> list[list[str]]:
        return [[listing.paths[i] for i in rows] for rows in twice if differ(rows)]

    parts, labels = listing.parts, listing.labels
    return {
        "doubles": where(lambda rows: True),
        "leaked": where(lambda rows: parts is not None and len({parts[i] == "test" for i in rows}) > 1),
        "contradictions": where(lambda rows: labels is not None and len({labels[i] for i in rows}) > 1),
    }


SAID = {
    "grey": "are grey",
    "rotated": "are turned by their EXIF orientation",
    "16-bit": "have more than 8 bits, or floats, and are scaled",
    "transparent": "are transparent, which is dropped",
    "frames": "have several frames or pages, of which the first is taken",
}


def text(found: dict) -> str:
    """A description for a terminal."""
    parts = ", ".join(f"{n:,} {part}" for part, n in found["parts"].items())
    lines = [f"{found['place']}: {found['layout']}"]
    lines += [
        f"  {found['images']:,} images ({parts}), {len(found['classes']):,} classes, {found['texts']:,} texts"
    ]
    if found["sizes"]:
        each = ", ".join(f"{name} {w} x {h}" for name, (w, h) in found["sizes"].items())
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in found["formats"].items())
        lines += [f"  pixels: {each}; {kinds}"]
    lines += [*table(found["classes"])]
    lines += [f"  {len(images):,} {SAID[mark]}: {few(images)}" for mark, images in found["marks"].items()]
    for name, what in (
        ("doubles", "images are there more than once"),
        ("leaked", "images are in test and elsewhere, which makes the test too easy"),
        ("contradictions", "images have several labels"),
    ):
        if found[name]:
            lines += [
                f"  {len(found[name]):,} {what}: {few(' = '.join(group[:SHOWN]) for group in found[name])}"
            ]
    if found["broken"]:
        each = few(f"{path} ({why})" for path, why in found["broken"].items())
        lines += [f"  {len(found['broken']):,} cannot be read: {each}"]
    lines += [f"  problem: {problem}" for problem in found["problems"]]
    lines += [f"  note: {note}" for note in found["notes"]]
    if found["protocols"]:
        lines += [f"  serves: {', '.join(found['protocols'])}", f"  as a task: {found['id']}"]
    return "\n".join(lines)


def table(classes: dict[str, dict[str, int]]) -> Iterable[str]:
    """A line per class, the first of many."""
    width = max([len(name) for name in classes] or [0])
    for name, parts in list(classes.items())[:CLASSES]:
        yield f"  {name:<{width}}  " + ", ".join(f"{n:,} {part}" for part, n in parts.items())
    if len(classes) > CLASSES:
        yield f"  and {len(classes) - CLASSES:,} more classes (--json lists all)"
