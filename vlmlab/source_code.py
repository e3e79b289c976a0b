"""What code says, without its comments, docstrings and layout."""

import ast
import functools
import hashlib
from pathlib import Path


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
