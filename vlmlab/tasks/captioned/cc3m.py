"""CC3M as it is downloaded: tables with the columns title and filepath (open_clip's), or shards of img2dataset."""

import dataclasses
import functools
import json
import random
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ... import image_files
from ..coop.tasks import content as size_of
from ..coop.tasks import read_image as read_file
from ..own.listing import few
from ..own.tables import read_csv
from ..split_files import leads_out
from .files import found

WHERE = "https://github.com/rom1504/img2dataset (dataset_examples/cc3m.md)"
COLUMNS = ("filepath", "title")
SEED = 1  # of the test that is drawn where there is none
SHARE = 100  # one image in so many is in it
END = 1024  # zeros at the end of a whole tar file
Row = tuple[str, str, str]  # id, text, part


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Images and texts. provenance: "drawn" where no file is the test, else ""."""

    rows: list[Row]
    provenance: str


def pairs(root: Path) -> Pairs:
    """All pairs of cc3m. Raises FileNotFoundError, ValueError naming the file and what is wrong in it."""
    folder = root / "cc3m"
    tables = sorted([*folder.glob("*.csv"), *folder.glob("*.tsv")])
    shards = sorted(folder.glob("*.tar"))
    if not tables and not shards:
        raise FileNotFoundError(
            f"{folder} has neither tables (*.tsv, *.csv with the columns title and filepath) nor shards (00000.tar ...); "
            f"see {WHERE}"
        )
    rows = [
        (id, text, part_of(path))
        for path in shards or tables
        for id, text in (shard if shards else table)(path, root)
    ]
    if not rows:
        raise ValueError(f"{folder}: no image of {few(p.name for p in shards or tables)} has a text")
    if not shards:
        found(root, [[id] for id, _, _ in rows], "cc3m", WHERE)
    if any(part == "test" for _, _, part in rows):
        return Pairs(rows, "")
    drawn = set(random.Random(SEED).sample(range(len(rows)), max(1, len(rows) // SHARE)))
    return Pairs(
        [(id, text, "test" if i in drawn else "train") for i, (id, text, _) in enumerate(rows)], "drawn"
    )


def part_of(path: Path) -> str:
    """What a file is for, by its name: cc3m-validation-0000.tar, val.tsv."""
    return "test" if "val" in path.stem.lower() else "train"


def table(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """(path below the root, text) of each row; paths in the table are relative to its folder, or absolute below the root."""
    frame = read_csv(path)
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]}; it has {', '.join(frame.columns)}")
    for i, (image, text) in enumerate(
        zip(frame["filepath"].str.strip(), frame["title"], strict=True), start=1
    ):
        inside = Path(image).is_relative_to(root)
        below = Path(image).relative_to(root).as_posix() if inside else f"cc3m/{image}"
        if not image or leads_out(below) or (image.startswith("/") and not inside):
            raise ValueError(
                f"{path}: filepath in row {i} is {image!r}, which is no path below {root / 'cc3m'}"
            )
        if not text.strip():
            raise ValueError(f"{path}: title in row {i} ({image}) is empty; leave the row out")
        yield below, text


def shard(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """(shard/member, text) of each picture of a tar file that has a .txt, or a .json with a caption, of the same name."""
    members = index(path, path.stat().st_mtime_ns)
    for name in members:
        if not image_files.is_picture(name.rpartition("/")[2]):
            continue
        stem = name.rpartition(".")[0]
        texts = [f"{stem}.txt", f"{stem}.json"]
        if (at := next((t for t in texts if t in members), None)) is None:
            raise ValueError(f"{path}: {name} has no text; expected {' or '.join(texts)}")
        text = said(path, at, members[at])
        if text.strip():  # downloads keep a few without
            yield f"cc3m/{path.name}/{name}", text


@functools.lru_cache(maxsize=1024)
def index(path: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Member -> where its bytes lie in the shard, and how many."""
    try:
        with tarfile.TarFile(path) as file:
            found = {m.name: (m.offset_data, m.size) for m in file if m.isreg()}
    except tarfile.TarError as e:
        raise ValueError(f"{path} is no whole tar file ({e}); get it again") from None
    size = path.stat().st_size
    if any(piece(path, (max(0, size - END), END))):
        raise ValueError(f"{path} is no whole tar file (its end is missing); get it again")
    return found


def piece(path: Path, at: tuple[int, int]) -> bytes:
    with path.open("rb") as file:
        file.seek(at[0])
        return file.read(at[1])


def said(path: Path, name: str, at: tuple[int, int]) -> str:
    """The text of a member: a .txt is it, a .json has it as `caption`."""
    try:
        text = piece(path, at).decode("utf-8")
        return text if name.endswith(".txt") else str(json.loads(text)["caption"] or "")
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(
            f"{path}: {name} has no text in UTF-8, or no field caption ({type(e).__name__}: {e})"
        ) from None


def in_shard(root: Path, id: str) -> tuple[Path, str] | None:
    """The shard and the member of an id; None for a file."""
    shard, tar, member = id.partition(".tar/")
    return (root / f"{shard}.tar", member) if tar else None


def read_image(root: Path, id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The image of an id as RGB, from its file or its shard; `image_files.Unreadable` names a damaged one."""
    if (inside := in_shard(root, id)) is None:
        return read_file(root, id)
    path, member = inside
    data = piece(path, index(path, path.stat().st_mtime_ns)[member])
    try:
        with image_files.opened(BytesIO(data)) as image:
            return image_files.rgb(image)
    except Exception as e:  # Pillow has no common class for what damaged files raise
        raise image_files.Unreadable(f"{path}: {member} is not a readable image ({e}); leave it out") from e


def content(root: Path, id: str) -> bytes:
    """The size of an image: what stands for its bytes in fingerprints, as of all real data sets."""
    if (inside := in_shard(root, id)) is None:
        return size_of(root, id)
    path, member = inside
    return str(index(path, path.stat().st_mtime_ns)[member][1]).encode()
