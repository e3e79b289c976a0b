"""What files may hold, said once by type hints (msgspec structs), and errors that name file, line and field.

A file's section is a `Section`: its fields, their types and limits, their defaults; nothing else is legal. A
field's description (`msgspec.Meta`) is what its error says: "must be <description>; it is <value>". What depends on
several fields is checked in `__post_init__`, which raises `Wrong`.
"""

import datetime
import math
import re
import reprlib
import sys
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from .nearest import near

S = TypeVar("S")
NAME_RULE = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\Z"
LARGEST = 20_000_000  # bytes of a TOML file that somebody wrote
DEEPEST = 20  # levels of tables and lists in one
DATES = (datetime.date, datetime.time)


def described(kind: object, words: str, **limits) -> object:
    """A type with its limits and what its errors say."""
    return Annotated[kind, Meta(description=words, **limits)]


Name = described(str, "a name of at most 100 letters, digits, - and _", pattern=NAME_RULE)
Text = described(str, "a string, not empty", min_length=1)
Texts = described(tuple[Text, ...], "a list of strings, not empty", min_length=1)
Strings = described(tuple[Text, ...], "a list of strings")
Count = described(int, "a whole number above 0", ge=1)
Counts = described(tuple[Count, ...], "a list of whole numbers above 0, not empty", min_length=1)
Whole = described(int, "a whole number from 0", ge=0)
Seed = described(int, "a whole number from 0 to 4294967295", ge=0, le=2**32 - 1)
Workers = described(int, "a whole number from 0 to 512", ge=0, le=512)  # processes
Wholes = described(tuple[Whole, ...], "a list of whole numbers, not empty", min_length=1)
Seeds = described(tuple[Seed, ...], "a list of whole numbers from 0 to 4294967295, not empty", min_length=1)
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
            meant = f" (did you mean {found[0]}?)" if (found := near(name, legal)) else ""
            return Wrong(name, f"unknown field{meant}; legal are {', '.join(legal)}")
        if "missing" in text:
            needed = ", ".join(n for n, f in legal.items() if f.required)
            return Wrong(name, f"is missing; needed are {needed}")
        return Wrong("", f"must be a table with the fields {', '.join(legal)}; it is {short(raw)}")
    name, inner = re.search(r"\$\.(\w+)(.*?)`", path).groups()
    within = f" ({inner.strip('.')}: {text})" if inner else ""
    return Wrong(name, f"must be {describe(legal[name].type) or text}; it is {short(raw[name])}{within}")


def short(value: object) -> str:
    """A value as an error shows it: long ones by their beginning and end, and how many they hold."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 80
    many = isinstance(value, (list, tuple, dict, str)) and len(value) > 100
    return brief.repr(value) + (f" ({len(value)} in all)" if many else "")


def values_in(value: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """Everything in tables and lists with its path; `Wrong` for what lies too deep."""
    todo = [(path, value)]
    while todo:
        path, value = todo.pop()
        if len(path) > DEEPEST:
            raise Wrong(
                "", f"tables and lists more than {DEEPEST} deep, below {'.'.join(map(str, path[:3]))}"
            )
        yield path, value
        if isinstance(value, (dict, list)):
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [((*path, key), item) for key, item in inner]


def unfit(value: object) -> str:
    """What is wrong with a value that no setting can have, or ""."""
    if isinstance(value, DATES):
        return f"is the date or time {value}; write it as a string, in quotes"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number; it is {value}"
    return "must not hold a NUL character" if isinstance(value, str) and "\0" in value else ""


def text_of(path: Path) -> str:
    """A text file in UTF-8. ValueError names one that is larger than anybody writes, or in another encoding."""
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size} bytes; such a file has at most {LARGEST}")
    raw = path.read_bytes()
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} begins with a byte order mark; save it as UTF-8 without one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start})") from error


class TomlFile:
    """The text of one TOML file while it is checked; knows where a field stands."""

    def __init__(self, path: Path):
        self.path, self.text = path, text_of(path)
        try:
            self.raw = tomllib.loads(self.text)
        except RecursionError as error:
            raise ValueError(f"{path}: not valid TOML: tables and lists are nested too deep") from error
        except ValueError as error:  # tomllib's own, and Python's for a number of too many digits
            raise ValueError(f"{path}: not valid TOML: {error}") from error
        try:
            for where, value in values_in(self.raw):
                if why := unfit(value):
                    self.fail(*self.place(where), f"{'.'.join(map(str, where))} {why}")
        except Wrong as error:
            raise ValueError(f"{path}: {error}") from error

    def place(self, path: tuple) -> tuple[str, int, str]:
        """Section, its number and field of a value: the longest part of its path that has a header."""
        headers = set(re.findall(r"(?m)^\s*\[\[?\s*([^\[\]=]+?)\s*\]", self.text))
        for cut in range(len(path) - 1, 0, -1):
            name = ".".join(step for step in path[:cut] if isinstance(step, str))
            key = next((step for step in path[cut:] if isinstance(step, str)), "")
            if name in headers:
                return name, path[cut - 1] if isinstance(path[cut - 1], int) else 0, key
        return str(path[0]), 0, ""

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
