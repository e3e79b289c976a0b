"""What determines a record on disk, in words, so that a later call can tell it from another."""

import hashlib
import inspect
import types
from collections.abc import Callable, Mapping

import numpy as np

from .reducers import Reducer


def run_key(data, source, sites: list[str], keep: dict[str, Callable | None], dtype: np.dtype) -> dict:
    """What determines a record, in named parts, so that an error can say which one differs.

    Weights of the model and of the method on it, sites, reducers, data, dtype, precision. Data are known by
    their own fingerprint (a Split), by all values (a tensor), by their text; else by ids and labels.
    """
    digest = hashlib.sha256()
    for name, values in source.coords.items():
        digest.update(f"{name}{values.tolist()}".encode())
    if hasattr(data, "fingerprint"):
        digest.update(data.fingerprint().encode())
    for name, x in data.items() if isinstance(data, Mapping) else [("", data)]:
        if hasattr(x, "detach"):
            digest.update(name.encode() + x.detach().float().cpu().contiguous().numpy().tobytes())
    return {
        **source.key(),
        "sites": " ".join(sites),
        "keep": "; ".join(f"{name}: {describe(f)}" for name, f in keep.items()),
        "data": digest.hexdigest(),
        "dtype": dtype.name,
    }


def describe(reducer: Callable | None) -> str:
    """A reducer in words that change when it does: its name, its own `description`, or a hash of its code.

    Global names that a function uses are not followed. ValueError for one that holds values of its own.
    """
    if reducer is None or isinstance(reducer, Reducer):
        return "all" if reducer is None else reducer.name
    if hasattr(reducer, "description"):
        return str(reducer.description)
    name = getattr(reducer, "__qualname__", type(reducer).__name__)
    if (
        not inspect.isfunction(reducer)
        or reducer.__closure__
        or reducer.__defaults__
        or reducer.__kwdefaults__
    ):
        raise ValueError(
            f"the reducer {name} holds values that out= cannot see, so a later call could not "
            f"tell its record from another; say what it does in {name}.description = '...'"
        )
    code = hashlib.sha256(code_text(reducer.__code__).encode()).hexdigest()
    return f"{name} {code} {getattr(reducer, 'dims', '')}"


def code_text(code: types.CodeType) -> str:
    """A function's bytecode, constants and names; functions inside it too."""
    consts = [code_text(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {consts} {code.co_names}"


def short(value: str | None) -> str:
    return "none" if not value else value if len(value) <= 80 else f"{value[:40]}…{value[-12:]}"
