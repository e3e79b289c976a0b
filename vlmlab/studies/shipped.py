"""The notebooks and studies that come with vlmlab, copied to a folder of one's own."""

import filecmp
import shutil
from pathlib import Path

from ..files import write
from ..paths import shipped_notebooks


def copy(folder: str | Path, study: str | None = None) -> list[Path]:
    """Copy one study, or all of them and the tour, to `<folder>/notebooks`; the files that are there then.

    Run `vlmlab reproduce` in `folder` afterwards. Raises FileExistsError before anything is copied where a file is
    there and says something else, FileNotFoundError when there is no such study.
    """
    source, target = shipped_notebooks(), Path(folder).expanduser() / "notebooks"
    found = [f for f in sorted(source.rglob("*")) if f.is_file() and is_ours(f.relative_to(source))]
    chosen = {
        f: target / f.relative_to(source) for f in found if study in (None, f.relative_to(source).parts[0])
    }
    if not chosen:
        there = ", ".join(sorted(f.parent.name for f in found if f.name == "study.toml")) or "none"
        raise FileNotFoundError(f"no study {study!r} comes with vlmlab; there are {there}")
    for old, new in chosen.items():
        if new.exists() and not (new.is_file() and filecmp.cmp(old, new, shallow=False)):
            raise FileExistsError(
                f"{new} is there and says something else; name another folder, or move it away"
            )
    for old, new in chosen.items():
        if not new.exists():
            write(new, lambda temporary, old=old: shutil.copyfile(old, temporary))
    return [*chosen.values()]


def is_ours(path: Path) -> bool:
    """Not what Python, Jupyter or an editor leaves beside a notebook."""
    return not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
