"""Options and values that several commands share."""

import argparse
import ast
import types
import typing
from pathlib import Path


def split(text: str) -> tuple[str, str]:
    """'key=value' -> ('key', 'value')."""
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise ValueError(f"{text!r} is not of the form key=value")
    return key.strip(), value.strip()


def typed(key: str, text: str, kind: object) -> object:
    """The value of a text as a type: bool, int, float, str, tuple, list, or a union with None."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kinds = typing.get_args(kind)
        if type(None) in kinds and text.lower() == "none":
            return None
        kind = next(k for k in kinds if k is not type(None))
    kind = typing.get_origin(kind) or kind
    if kind in (str, typing.Literal):
        return text
    if kind is Path:
        return Path(text)
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
        if kind is float and type(value) is int:
            value = float(value)
        if kind in (tuple, list) and type(value) in (tuple, list):
            value = kind(value)
    except (ValueError, SyntaxError):
        value = text
    if type(value) is not kind:
        raise ValueError(f"{key} must be {getattr(kind, '__name__', kind)}, got {text!r}")
    return value


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def root(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the folder that holds the real data sets, as CoOp lays them out ($VLMLAB_DATASETS); of your own "
        "images, what relative paths start from",
    )
