"""What files may hold, said once by type hints (msgspec structs), and errors that name file, line and field.

A file's section is a `Section`: its fields, their types and limits, their defaults; nothing else is legal. A
field's description (`msgspec.Meta`) is what its error says: "must be <description>; it is <value>". What depends on
several fields is checked in `__post_init__`, which raises `Wrong`.
"""

import difflib
import re
import sys
import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Meta

S = TypeVar("S")
NAME_RULE = r"^[A-Za-z0-9][A-Za-z0-9_-]*\Z"


def described(kind: object, words: str, **limits) -> object:
    """A type with its limits and what its errors say."""
    return Annotated[kind, Meta(description=words, **limits)]


Name = described(str, "a name of letters, digits, - and _", pattern=NAME_RULE)
Text = described(str, "a string, not empty", min_length=1)
Texts = described(tuple[Text, ...], "a list of strings, not empty", min_length=1)
Strings = described(tuple[Text, ...], "a list of strings")
Count = described(int, "a whole number above 0", ge=1)
Counts = described(tuple[Count, ...], "a list of whole numbers above 0, not empty", min_length=1)
Whole = described(int, "a whole number from 0", ge=0)
Seed = described(int, "a whole number from 0 to 4294967295", ge=0, le=2**32 - 1)
Workers = described(int, "a whole number from 0 to 512", ge=0, le=512)  # processes
Wholes = described(tuple[Whole, ...], "a list of whole numbers, not empty", min_length=1)
Amount = described(float, "a number above 0", gt=0, le=sys.float_info.max)
Finite = described(float, "a finite number", ge=-sys.float_info.max, le=sys.float_info.max)
Table = described(dict[str, object], "a table")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One section of a file."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object that vlmlab wrote and of which only these fields are of interest."""


class Wrong(ValueError):
    """What is wrong with one field that its type alone does not say."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


def describe(kind: object) -> str:
    """A type in words, for "must be ..."; "" where they would say less than msgspec does."""
    if typing.get_origin(kind) is Annotated:
        return next((m.description for m in kind.__metadata__ if m.description), "") or describe(
            typing.get_args(kind)[0]
        )
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        words = [describe(k) for k in typing.get_args(kind) if k is not type(None)]
        return " or ".join(words) if all(words) else ""
    return {bool: "true or false", str: "a string", int: "a whole number", float: "a number"}.get(kind, "")


def convert(raw: object, kind: type[S]) -> S:
    """A value as a Section or Record; `Wrong` names the first field that does not fit, "" for the whole."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, Wrong):
            raise error.__cause__ from None
        raise explained(error, raw, kind) from None


def explained(error: msgspec.ValidationError, raw: object, kind: type) -> Wrong:
    """msgspec's error with the name of the field, what it must be and what it is."""
    text, _, path = str(error).partition(" - at ")
    legal = {field.name: field for field in msgspec.structs.fields(kind)}
    if not path:
        name = (re.search(r"field `(.*)`", text) or ("", ""))[1]
        if "unknown field" in text:
            near = difflib.get_close_matches(name, legal, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            return Wrong(name, f"unknown field{hint}; legal are {', '.join(legal)}")
        if "missing" in text:
            needed = ", ".join(n for n, f in legal.items() if f.required)
            return Wrong(name, f"is missing; needed are {needed}")
        return Wrong("", f"must be a table with the fields {', '.join(legal)}; it is {raw!r}")
    name, inner = re.search(r"\$\.(\w+)(.*?)`", path).groups()
    within = f" ({inner.strip('.')}: {text})" if inner else ""
    return Wrong(name, f"must be {describe(legal[name].type) or text}; it is {raw[name]!r}{within}")


class TomlFile:
    """The text of one TOML file while it is checked; knows where a field stands."""

    def __init__(self, path: Path):
        self.path, self.text = path, path.read_text(encoding="utf-8")
        try:
            self.raw = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not valid TOML: {error}") from error

    def section(self, kind: type[S], section: str, nth: int, raw: object) -> S:
        """The nth section of a name. ValueError names file, line and field, and what is legal."""
        try:
            return convert(raw, kind)
        except Wrong as error:
            self.fail(section, nth, error.field, str(error))

    def fail(self, section: str, nth: int, key: str, message: str) -> NoReturn:
        """ValueError: file, line, field, what is wrong."""
        where = f"{section}.{key}" if key else section
        raise ValueError(f"{self.path}, line {self.line(section, nth, key)}, {where}: {message}")

    def line(self, section: str, nth: int, key: str) -> int:
        """The line of a field, of its section's header when it is not written, or 1; tomllib tells none."""
        lines = self.text.splitlines()
        header = re.compile(r"\s*\[\[?\s*([^\[\]=]+?)\s*\]")
        headers = [(i, m[1]) for i, text in enumerate(lines) if (m := header.match(text))]
        starts = [i for i, name in headers if name == section]
        starts = starts or [i for i, name in headers if name.startswith(f"{section}.")]
        start = starts[nth] if nth < len(starts) else 0
        others = (i for i, name in headers if i > start and not name.startswith(f"{section}."))
        end = next(others, len(lines))
        if key:
            name = re.escape(key)
            written = re.compile(rf"\s*([\"']?{name}[\"']?\s*[=.]|\[\[?\s*{re.escape(section)}\.{name}\b)")
            start = next((i for i in range(start, end) if written.match(lines[i])), start)
        return start + 1
