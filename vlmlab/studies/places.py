"""Where a study reads and writes, and small safe ways of doing so."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..paths import PACKAGE, data_dir

DATA_FILES = (".parquet", ".csv", ".safetensors", ".json", ".gz")  # not the text that describes them


@dataclasses.dataclass(frozen=True)
class Places:
    """The folders of one call: notebooks, runs and figures as the user named them; vlmlab's data and code."""

    notebooks: Path
    runs: Path
    figures: Path
    data: Path = dataclasses.field(default_factory=data_dir)
    package: Path = PACKAGE

    @classmethod
    def of(
        cls,
        profile: str,
        runs: str | Path = "runs",
        figures: str | Path | None = None,
        notebooks: str | Path = "notebooks",
        **others,
    ) -> "Places":
        """`figures` is by default figures/ for demo, which git keeps, and a folder in `runs` for others."""
        figures = figures or (Path("figures") if profile == "demo" else Path(runs) / "figures" / profile)
        others = {name: Path(path) for name, path in others.items()}
        return cls(Path(notebooks), Path(runs), Path(figures), **others)


def folder(path: str | Path) -> Path:
    """A path relative to the project as one that is right from here.

    `vlmlab reproduce` executes notebooks from the folder that holds notebooks/; Jupyter opens them in
    their own folder. Absolute paths, and relative ones outside a project, come back unchanged.
    """
    here = Path.cwd()
    for root in (here, *here.parents):
        if next(root.glob("notebooks/*/study.toml"), None):
            return Path(path) if root == here else root / path
    return Path(path)


def need_writable(path: Path, flag: str) -> None:
    """PermissionError that names the flag unless files can be made in a folder; makes the folder."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        message = f"cannot write in {path} ({error.strerror}); name another folder with {flag}"
        raise PermissionError(message) from error


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other calls out of a folder meanwhile. BlockingIOError says which process is in it.

    The system itself ends the lock of a process that was killed. Where a file system has no locks, nobody
    is kept out.
    """
    import fcntl

    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise BlockingIOError(
                f"{folder} is in use by {owner}; wait until it is done, or name another folder with --runs"
            ) from error
        except OSError:
            pass
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
        file.flush()
        yield


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a temporary file, then put it in place; nothing half written is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fill(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write(path, lambda t: t.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """What a JSON file holds; an empty dict where there is none or it is damaged: both mean 'not known'."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def digest(value: object) -> str:
    """Short sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Short sha256 of a file; asked again about an unchanged file it answers from memory."""
    stat = path.stat()
    return _file_digest(path, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _file_digest(path: Path, mtime: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def data_digests(data: Path, folders: list[str]) -> dict[str, str]:
    """File (relative to `data`) -> digest for the data files below folders of it; missing ones have none."""
    below = (f for name in folders for f in (data / name).rglob("*"))
    files = {f for f in below if f.suffix in DATA_FILES and f.is_file()}
    return {f.relative_to(data).as_posix(): file_digest(f) for f in sorted(files)}
