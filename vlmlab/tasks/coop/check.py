"""What of CoOp's 15 data sets is there, what is missing, and where it is to be had (`vlmlab data check`)."""

import dataclasses
from pathlib import Path

from . import flat, lists
from .layouts import CLASSNAMES_PAGE, LAYOUTS, PARTS, Layout


@dataclasses.dataclass
class Report:
    """One data set. images: part -> (there, expected: as listed, or as published where folders are the list).

    split: "published", "changed", or "" while nothing could be read. problems: sentences; get: addresses.
    """

    dataset: str
    folder: str
    classes: int = 0
    images: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    split: str = ""
    problems: list[str] = dataclasses.field(default_factory=list)
    get: list[str] = dataclasses.field(default_factory=list)

    @property
    def ready(self) -> bool:
        return not self.problems

    def says(self, problem: str, *pages: str) -> None:
        self.problems.append(problem)
        self.get = [*dict.fromkeys([*self.get, *pages])]

    def record(self) -> dict:
        """For JSON."""
        images = {part: {"there": n, "expected": m} for part, (n, m) in self.images.items()}
        return {"dataset": self.dataset, "ready": self.ready, **dataclasses.asdict(self), "images": images}


def check(root: Path, ids: list[str]) -> list[Report]:
    """Look for the data sets `ids` below `root`; ValueError for an unknown id."""
    unknown = [id for id in ids if id not in LAYOUTS]
    if unknown:
        raise ValueError(f"unknown data set {unknown[0]!r}; there are {', '.join(LAYOUTS)}")
    return [report(LAYOUTS[id], root) for id in ids]


def report(layout: Layout, root: Path) -> Report:
    folder, layout = root / layout.folder, flat.laid_out(layout, root)
    found = Report(layout.id, str(folder))
    if not folder.is_dir():
        found.says("the folder is missing", *layout.pages, *list_files(layout, root).values())
        return found
    absent = [sub for sub in places(layout) if not (folder / sub).is_dir()]
    for sub in absent:
        found.says(f"the folder {sub} is missing", *layout.pages)
    unlisted = {
        file: page for file, page in list_files(layout, root).items() if not (folder / file).is_file()
    }
    for file, page in unlisted.items():
        found.says(f"the file {file} is missing", page)
    parts = tuple(part for part, sub in layout.parts if place(layout, sub) not in absent)
    if not unlisted and (layout.kind != "folders" or parts):
        try:
            count(layout, root, parts if layout.kind == "folders" else PARTS, found)
        except (ValueError, OSError) as e:
            found.says(str(e), *layout.pages)
    return found


def place(layout: Layout, sub: str) -> str:
    """A folder of images, relative to the data set's."""
    return "/".join(filter(None, (layout.images, sub)))


def places(layout: Layout) -> list[str]:
    """All folders of images, relative to the data set's."""
    return [place(layout, sub) for _, sub in layout.parts] or [layout.images]


def list_files(layout: Layout, root: Path) -> dict[str, str]:
    """Files that list images or classes, and where each is to be had."""
    if layout.kind == "split":
        return {layout.split: layout.split_page}
    if layout.kind == "variants":
        return {
            file: layout.pages[0]
            for file in ("variants.txt", *(f"images_variant_{part}.txt" for part in PARTS))
        }
    shared = (root / "imagenet/classnames.txt").is_file()
    return {} if shared or flat.usual_names(layout, root) else {"classnames.txt": CLASSNAMES_PAGE}


def count(layout: Layout, root: Path, parts: tuple[str, ...], found: Report) -> None:
    """Read the lists and look for their images."""
    read = lists.read(layout, root, parts)
    found.classes, found.split = len(read.names), read.provenance
    for part, published in zip(PARTS, layout.counts, strict=True):
        if part not in read.parts:
            continue
        paths = read.parts[part][0]
        gone = [] if layout.kind == "folders" else lists.missing(root, paths)
        expected = published if layout.kind == "folders" else len(paths)
        found.images[part] = len(paths) - len(gone), expected
        if gone:
            found.says(
                f"{len(gone):,} of {expected:,} {part} images are missing, the first is {gone[0]}",
                *layout.pages,
            )
        if len(paths) != expected:
            found.says(f"{len(paths):,} {part} images, published are {expected:,}", *layout.pages)
    if read.provenance == "changed" and layout.kind != "folders":
        what = layout.split or "the list of images"
        found.says(f"{what} is not the published one", *list_files(layout, root).values())


def table(reports: list[Report]) -> str:
    """As text, one paragraph per data set."""
    lines = []
    for r in reports:
        state = "ready" if r.ready else "problem" if r.images else "missing"
        there = ", ".join(f"{n:,} {part}" for part, (n, _) in r.images.items())
        first = f"{r.classes:,} classes; {there} images" if r.images else r.folder
        lines += [f"{r.dataset:<16} {state:<8} {first}"]
        lines += [f"{'':<25} {text}" for text in [*r.problems, *(f"get it: {page}" for page in r.get)]]
    ready = sum(r.ready for r in reports)
    return "\n".join([*lines, f"{ready} of {len(reports)} ready"])
