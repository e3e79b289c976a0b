"""Where a study reads and writes, and small safe ways of doing so."""

import dataclasses
import functools
import hashlib
import json
import os
import tempfile
from pathlib import Path

from .. import own_files
from ..files import read_json
from ..paths import data_dir, shipped_notebooks

DATA_FILES = (".parquet", ".csv", ".safetensors", ".json", ".gz")  # not the text that describes them


@dataclasses.dataclass(frozen=True)
class Places:
    """The folders of one call: notebooks, runs and figures as the user named them; vlmlab's data."""

    notebooks: Path
    runs: Path
    figures: Path
    data: Path = dataclasses.field(default_factory=data_dir)

    @property
    def project(self) -> Path:
        """The folder that holds notebooks/: code below it is the user's own."""
        return self.notebooks.absolute().parent

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
        return cls(notebooks_folder(notebooks), Path(runs), Path(figures), **others)


def notebooks_folder(path: str | Path = "notebooks") -> Path:
    """The folder with the studies: `path`, or those that come with vlmlab where notebooks/ here has none."""
    path = Path(path)
    if path == Path("notebooks"):
        below = path.iterdir() if path.is_dir() else ()
        if not any(os.path.lexists(folder / "study.toml") for folder in below):
            return shipped_notebooks()
    return path


def folder(path: str | Path) -> Path:
    """A path relative to the project as one that is right from here.

    `vlmlab reproduce` executes notebooks from the folder where it was called, with $VLMLAB_NOTEBOOKS; Jupyter
    opens them in their own folder. Absolute paths, and relative ones outside a project, come back unchanged.
    """
    root = None if own_files.NOTEBOOKS in os.environ else own_files.project()
    return Path(path) if root in (None, Path.cwd()) else root / path


def own_notebooks() -> Path:
    """The folder with the studies, for who was told none: $VLMLAB_NOTEBOOKS, else that of the project."""
    return Path(os.environ.get(own_files.NOTEBOOKS) or folder("notebooks"))


def need_writable(path: Path, flag: str) -> None:
    """PermissionError that names the flag unless files can be made in a folder; makes the folder."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(4096))
    except OSError as error:
        message = f"cannot write in {path} ({error.strerror}); make room, or name another folder with {flag}"
        raise PermissionError(message) from error


def known(path: Path) -> dict:
    """What a JSON file holds; an empty dict where there is none or it is damaged: both mean 'not known'."""
    try:
        value = read_json(path)
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
    inside = [name for name in folders if name and not {"", ".", ".."} & {*name.split("/")}]
    below = (f for name in inside for f in (data / name).rglob("*"))
    files = {f for f in below if f.suffix in DATA_FILES and f.is_file()}
    return {f.relative_to(data).as_posix(): file_digest(f) for f in sorted(files)}
