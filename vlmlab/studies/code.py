"""Which code a job or notebook really loaded, and whether it still says the same.

A record maps each loaded module of vlmlab, and each below the folder that holds notebooks/, to a digest of its
code: {'vlmlab/measures/norms.py': '9f86...'}. Comments, docstrings and layout play no part; data files beside a
module that it names do. In a package's `__init__.py`, entries of tables that lead to modules nobody loaded are
left out, so that a new measure or plot changes nothing for who does not use it.

The driver decides when something is made, not what, so its code is no part of a record: that is all of
`vlmlab/studies/` but the wing `CONTENT`.
"""

import ast
import functools
import gc
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from ..files import write_json
from ..paths import PACKAGE
from ..source_code import is_installed, without_words
from .places import file_digest

CONTENT = "pages"  # the wing of studies whose code shapes what an artefact holds


def is_driver(name: str) -> bool:
    """Whether a module only decides when something is made."""
    parts = name.split("/")
    return parts[:2] == ["vlmlab", "studies"] and parts[2] != CONTENT


def loaded_files() -> list[str]:
    """The files of all modules that this process has loaded."""
    return [path for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None))]


class Sources:
    """The code of vlmlab and of one project. project: the folder that holds notebooks/."""

    def __init__(self, project: Path):
        self.project = project.resolve()

    def name(self, path: str) -> str | None:
        """'vlmlab/measures/norms.py', or relative to the project; None for the file of another module."""
        if is_installed(path):
            return None
        full = Path(path).resolve()
        for root, folder in ((PACKAGE.parent, PACKAGE), (self.project, self.project)):
            if full.is_relative_to(folder):
                return full.relative_to(root).as_posix()
        return None

    def path(self, name: str) -> Path:
        return (PACKAGE.parent if name.startswith("vlmlab/") else self.project) / name

    def record(self, files: Iterable[str]) -> dict[str, str]:
        """Of the files that belong to it: name -> digest."""
        names = {name for path in files if (name := self.name(path)) and not is_driver(name)}
        return self.digests(sorted(names))

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """The present digests of modules, "" of one that is gone."""
        paths = {name: self.path(name) for name in names}
        loaded = frozenset(paths.values())
        return {name: digest(path, loaded) if path.is_file() else "" for name, path in paths.items()}

    def ages(self) -> dict[str, int]:
        """Of the files of all loaded modules that belong to it: name -> when it was last written."""
        names = {name: path for path in loaded_files() if (name := self.name(path))}
        return {name: os.stat(path).st_mtime_ns for name, path in names.items()}

    def forget(self, kept: set[str]) -> None:
        """Drop the loaded modules but those in `kept`, so that the next job loads what it needs itself.

        A process that has done other jobs would else record their modules too.
        """
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if name in kept or not path or not self.name(path):
                continue
            del sys.modules[name]
            package, _, leaf = name.rpartition(".")
            if getattr(sys.modules.get(package), leaf, None) is module:
                delattr(sys.modules[package], leaf)  # `from package import leaf` looks there first
        gc.collect()  # models that only the old modules held

    def changed(self, record: dict[str, str]) -> list[str]:
        """The modules of a record that say something else now."""
        now = self.digests(record)
        return [name for name in record if now[name] != record[name]]


def save(path: str, project: str, files: list[str]) -> None:
    """Write the record of files, in the kernel of a notebook."""
    write_json(Path(path), Sources(Path(project)).record(files))


def digest(path: Path, loaded: frozenset[Path]) -> str:
    """Of a module's code and the data files beside it that it names; `loaded` are the modules of the record.

    What is no Python at the moment goes by its bytes: it says something else, and who imports it says why.
    """
    stat = path.stat()
    package = path.name == "__init__.py"
    try:
        code, texts = read_code(path, stat.st_mtime_ns, stat.st_size, loaded if package else None)
    except (SyntaxError, ValueError, RecursionError):
        return file_digest(path)
    beside = [file_digest(file) for text in texts if (file := path.with_name(text)).is_file()]
    return hashlib.sha256("".join([code, *beside]).encode()).hexdigest()[:16]


@functools.cache
def read_code(path: Path, mtime: int, size: int, loaded: frozenset[Path] | None) -> tuple[str, list[str]]:
    """The code of a file without comments, docstrings and layout, and the texts in it that could name files."""
    tree = without_words(path.read_text(encoding="utf-8"))
    if loaded is not None:
        leave_out_unused(tree, path.parent, loaded)
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), sorted(
        s for s in strings if re.fullmatch(r"[\w-]+\.[\w.]+", s)
    )


def leave_out_unused(tree: ast.Module, package: Path, loaded: frozenset[Path]) -> None:
    """Drop `__all__`, and the entries of tables at the top of a package that name modules not loaded."""

    def is_used(*nodes: ast.expr) -> bool:
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        return not any(modules and not loaded & modules for modules in (named(t, package) for t in texts))

    tree.body = [n for n in tree.body if not (isinstance(n, ast.Assign) and is_all(n.targets[0]))]
    for node in tree.body:
        table = getattr(node, "value", None)
        if isinstance(table, ast.Dict):
            kept = [(k, v) for k, v in zip(table.keys, table.values) if is_used(k, v)]
            table.keys, table.values = [k for k, _ in kept], [v for _, v in kept]
        elif isinstance(table, (ast.Tuple, ast.List, ast.Set)):
            table.elts = [e for e in table.elts if is_used(e)]


def is_all(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "__all__"


def named(text: str, package: Path) -> set[Path]:
    """The files of the module that a text in a package names: 'vlmlab.train.fit', '.fit' or 'fit'."""
    whole = text.startswith("vlmlab.")
    start = PACKAGE.parent if whole else package
    module = start.joinpath(*text.removeprefix(".").split("."))
    return {p for p in (module.with_suffix(".py"), module / "__init__.py") if text and p.is_file()}
