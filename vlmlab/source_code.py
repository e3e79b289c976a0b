"""What code says, without its comments, docstrings and layout."""

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from .paths import PACKAGE

PLAIN = (bool, int, float, complex, str, bytes, Path, type(None))
OWN = str(PACKAGE) + os.sep
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def without_words(text: str) -> ast.Module:
    """Parsed Python without docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def digest(path: Path) -> str:
    """Short hash of what the code of a file says."""
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _digest(path: Path, mtime: int, size: int) -> str:
    code = ast.unparse(without_words(path.read_text(encoding="utf-8")))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def is_installed(path: str) -> bool:
    """Whether a module belongs to Python or a package beside it; such a one may also name a file that is none.

    vlmlab itself does not, also where pip has put it.
    """
    if path.startswith(OWN):
        return False
    folders = Path(path).parts
    return (
        not os.path.isabs(path)
        or path.startswith(INSTALLED)
        or "site-packages" in folders
        or "dist-packages" in folders
    )


def imported(module: types.ModuleType) -> dict[str, Path]:
    """Module -> file of the modules of one's own that the file of a module imports, at any distance and wherever in
    it: neither vlmlab's nor installed ones."""
    found, todo = {}, [(Path(module.__file__), getattr(module, "__package__", None) or "")]
    while todo:
        path, package = todo.pop()
        for name in names_imported(ast.parse(path.read_text(encoding="utf-8")), package):
            if name not in found and (file := own_file(name)) and is_python(file):
                found[name] = file
                todo.append((file, name if file.name == "__init__.py" else name.rpartition(".")[0]))
    return found


def is_python(path: Path) -> bool:
    """Whether a file parses; importing one that does not says why."""
    try:
        ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, OSError):
        return False
    return True


def own_file(name: str) -> Path | None:
    """The file of a module of one's own; importing nothing, so that it is found before it is used as well as after."""
    where, parts, origin = None, name.split("."), None
    for n in range(1, len(parts) + 1):
        full = ".".join(parts[:n])
        try:
            spec = PathFinder.find_spec(full, where) if n > 1 else importlib.util.find_spec(full)
        except (ImportError, ValueError):  # a module made by hand
            return None
        origin = spec and spec.origin
        if spec is None or (origin and is_installed(origin)):
            return None
        where = getattr(sys.modules.get(full), "__path__", None) or spec.submodule_search_locations
        if n < len(parts) and where is None:
            return None
    return Path(origin) if origin and origin.endswith(".py") and not origin.startswith(OWN) else None


def names_imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Every module that import statements could mean: 'a' and 'a.b' of `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def of_class(cls: type) -> str:
    """Short hash of what a class compiles to and of its plain values, for one that stands in no file, such as a
    notebook's; not of functions beside it that it calls."""
    return hashlib.sha256(json.dumps(members(cls), sort_keys=True).encode()).hexdigest()[:16]


def members(cls: type) -> dict[str, object]:
    """Name -> what says whether it changed."""
    found = {}
    for name, value in vars(cls).items():
        has_code = callable(value) or hasattr(
            value, "__get__"
        )  # of Python's own names, these alone are its words
        if (has_code or not name.startswith("__")) and (said := says(value)) is not None:
            found[name] = said
    return found


def says(value: object) -> object:
    """What tells a member of a class from another, as plain values; None where nothing does."""
    for inside in ("fget", "__func__", "func"):  # property, classmethod, cached_property and partial
        if (inner := getattr(value, inside, None)) is not None:
            given = [getattr(value, "args", ()), getattr(value, "keywords", {})]
            return [says(inner), *map(says, given)]
    if isinstance(value, type):
        return members(value)
    value = inspect.unwrap(value) if callable(value) else value
    if (code := getattr(value, "__code__", None)) is not None:
        words = getattr(value, "__doc__", None) is not None
        return [compiled(code, words), says(value.__defaults__), says(value.__kwdefaults__)]
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, dict):
        return [[says(k), says(v)] for k, v in value.items()]
    if isinstance(value, (tuple, list, set, frozenset)):
        within = [says(v) for v in value]
        return sorted(within, key=repr) if isinstance(value, (set, frozenset)) else within
    return says(value.tolist()) if hasattr(value, "tolist") else None  # arrays and tensors


def compiled(code: types.CodeType, words: bool = False) -> list:
    """Instructions, constants and names, without lines and file names. words: the first constant is a docstring."""
    constants = [
        compiled(c)
        if isinstance(c, types.CodeType)
        else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)
        for c in ((None, *code.co_consts[1:]) if words else code.co_consts)
    ]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames)]
