"""Options and values that several commands share."""

import argparse
import ast
import re
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
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if type(value) is not kind:
        raise ValueError(f"{key} must be {getattr(kind, '__name__', kind)}, got {text!r}")
    return value


PRECISIONS = ("fp32", "amp_bf16", "amp_fp16")
PROTOCOLS = (
    "zero_shot",
    "few_shot",
    "base_to_new",
    "cross_dataset",
    "domain_shift",
    "label_distribution",
    "retrieval",
    "vqa",
)


def check_device(name: str | None) -> None:
    """ValueError for what is the name of no device anywhere; whether it is here, torch knows."""
    if name is not None and not re.fullmatch(r"cpu|cuda(:\d+)?|mps|meta", name):
        meant = "; did you mean cuda?" if name.lower().startswith(("gpu", "cuda", "nvidia")) else ""
        raise ValueError(f"there is no device {name!r}{meant}; there are cpu, cuda, cuda:0, cuda:1 ..., mps")


def whole(text: str, most: int) -> int:
    """A whole number from 0, for argparse."""
    if not text.isdecimal() or len(text) > 20 or int(text) > most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 0 to {most}")
    return int(text)


def seed(text: str) -> int:
    return whole(text, 2**32 - 1)


def workers(text: str) -> int:
    return whole(text, 512)


def json(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="as JSON")


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
