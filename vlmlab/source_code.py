"""What code says, without its comments, docstrings and layout."""

import ast
import functools
import hashlib
import inspect
import json
import types
from pathlib import Path

PLAIN = (bool, int, float, str, tuple, type(None))


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


def of_class(cls: type) -> str:
    """Short hash of what a class compiles to and of its plain values, for one that stands in no file, such as a
    notebook's; not of functions beside it that it calls."""
    return hashlib.sha256(json.dumps(members(cls), sort_keys=True).encode()).hexdigest()[:16]


def members(cls: type) -> dict[str, object]:
    """Name -> what says whether it changed."""
    found = {}
    for name, value in vars(cls).items():
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)  # property, classmethod
        code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
        if code is not None:
            found[name] = compiled(code)
        elif isinstance(value, type):
            found[name] = members(value)
        elif not name.startswith("__") and isinstance(value, PLAIN):
            found[name] = repr(value)
    return found


def compiled(code: types.CodeType) -> list:
    """Instructions, constants and names, without lines and file names."""
    constants = [
        compiled(c)
        if isinstance(c, types.CodeType)
        else repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c)
        for c in code.co_consts
    ]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames)]
