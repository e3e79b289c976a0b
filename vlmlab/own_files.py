"""Methods and measures of your own: files in `methods/` and `measures/` beside the folder with the studies.

One rule: the project is the folder that holds `notebooks/`. That is the current folder or the nearest above it with
a `notebooks/*/study.toml`; $VLMLAB_NOTEBOOKS, which `vlmlab reproduce` sets for its workers and kernels, names
another `notebooks/`. A file `methods/mine.py` there is the method `mine`, as if it lay in the package (so
`from vlmlab.methods.mmrlpp import MMRLpp` and `from .helper import x` work in it); `measures/mine.py` gives
`measures.mine` where it defines a function of that name, and all it holds by `vlmlab.measures.mine`. Files
whose name begins with _ are what such files share.
"""

import functools
import importlib
import os
import pkgutil
import types
from pathlib import Path

NOTEBOOKS = "VLMLAB_NOTEBOOKS"


class Room(types.ModuleType):
    """A package in which a file and the function of its name are both found: the function is the attribute."""

    def __setattr__(self, name: str, value: object) -> None:
        function = getattr(value, name, None) if isinstance(value, types.ModuleType) else None
        super().__setattr__(name, function if callable(function) else value)


def project() -> Path | None:
    """The folder that holds notebooks/; None outside a project."""
    if given := os.environ.get(NOTEBOOKS):
        return Path(given).absolute().parent
    here = Path.cwd()
    return next((root for root in (here, *here.parents) if any(root.glob("notebooks/*/study.toml"))), None)


def join(package: types.ModuleType) -> None:
    """Let a package of vlmlab (methods, measures) find the project's files beside its own.

    ValueError names a file that has the name of one of vlmlab's own.
    """
    folder, own = files_of(package.__name__.rpartition(".")[2]), package.__path__[0]
    if list(package.__path__) != (wanted := [own, *folder]):
        package.__path__[:] = wanted
    for there in folder:
        if taken := sorted(names_in(there, stamp(there)) & names_in(own, stamp(own))):
            raise ValueError(
                f"{Path(there) / taken[0]}.py: {package.__name__} has a {taken[0]!r} of its own; name the file otherwise"
            )


def files_of(room: str) -> list[str]:
    """The project's folder of a room, if there is one; never the package's own."""
    root = project()
    folder = root and root / room
    own = folder and (folder / "__init__.py").is_file() and root.name == "vlmlab"
    return [str(folder)] if folder and folder.is_dir() and not own else []


def stamp(folder: str) -> int:
    return os.stat(folder).st_mtime_ns


@functools.cache
def names_in(folder: str, changed: int) -> frozenset[str]:
    """The modules in a folder as it was last changed."""
    return frozenset(m.name for m in pkgutil.iter_modules([folder]))


def load(name: str) -> types.ModuleType:
    """Import a module; ValueError names a file of your own that cannot be imported, and why."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        _, room, leaf = name.rsplit(".", 2)
        path = next((p for f in files_of(room) if (p := Path(f) / f"{leaf}.py").is_file()), None)
        if path is None:
            raise
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ValueError(f"{path}{line}: {type(error).__name__}: {error}") from error


def member(package: types.ModuleType, name: str) -> object:
    """The function `name` of the project's file `name`.py in a room; AttributeError where there is no such file."""
    join(package)
    own = [folder for folder in package.__path__[1:] if (Path(folder) / f"{name}.py").is_file()]
    if not own or name.startswith("_"):
        raise AttributeError(f"{package.__name__} has no {name!r}")
    found = getattr(load(f"{package.__name__}.{name}"), name, None)
    if not callable(found):
        raise AttributeError(f"{own[0]}/{name}.py defines no function {name!r}")
    return found
