"""The fields of study.toml, and a reader whose errors name file, line and field (see manifest.py)."""

import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn


class Kind(NamedTuple):
    """What a field must be: in words for the message, and as a test."""

    text: str
    test: Callable[[object], bool]


def one_of(*legal: str) -> Kind:
    return Kind(f"one of {', '.join(legal)}", lambda v: v in legal)


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


def is_counts(value: object, low: int) -> bool:
    return isinstance(value, list) and bool(value) and all(type(v) is int and v >= low for v in value)


def is_tables(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())


def is_variants(value: object) -> bool:
    return is_tables(value) and all(map(NAME.test, value))


def is_resources(value: object) -> bool:
    return isinstance(value, dict) and all(k in RESOURCES and RESOURCES[k](v) for k, v in value.items())


def is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def is_rules(value: object) -> bool:
    return is_texts(value) or (isinstance(value, dict) and all(map(is_texts, value.values())))


NAME = Kind(
    "a name of letters, digits, - and _",
    lambda v: isinstance(v, str) and re.fullmatch(r"[A-Za-z0-9][\w-]*", v, re.ASCII) is not None,
)
TEXT = Kind("a string, not empty", is_text)
TEXTS = Kind("a list of strings, not empty", is_texts)
ANY_TEXTS = Kind("a list of strings", lambda v: v == [] or is_texts(v))
SEEDS = Kind("a list of whole numbers, not empty", lambda v: is_counts(v, 0))
COUNTS = Kind("a list of whole numbers above 0, not empty", lambda v: is_counts(v, 1))
FLAG = Kind("true or false", lambda v: isinstance(v, bool))
TABLE = Kind("a table", lambda v: isinstance(v, dict))
PROTOCOL = one_of(
    "zero_shot",
    "few_shot",
    "base_to_new",
    "cross_dataset",
    "domain_shift",
    "retrieval",
    "vqa",
    "label_distribution",
)
RESOURCES = {
    "cores": lambda v: is_counts([v], 1),
    "gpus": lambda v: is_counts([v], 0),
    "memory_gb": is_amount,
    "hours": is_amount,
}
NEEDS = Kind(
    "a table of cores (whole number from 1), gpus (whole number from 0), memory_gb and hours "
    "(numbers above 0), each of which may be left out",
    is_resources,
)
REQUIRED = object()
# section -> field -> (what it must be, default)
FIELDS = {
    "study": {"id": (NAME, REQUIRED), "title": (TEXT, "")},
    "artefact": {
        "id": (NAME, REQUIRED),
        "title": (TEXT, ""),
        "notebook": (TEXT, REQUIRED),
        "kind": (one_of("figure", "table"), REQUIRED),
        "runs": (ANY_TEXTS, []),
        "params": (TABLE, {}),
    },
    "profile": {
        "model": (TEXT, REQUIRED),
        "pretrained": (TEXT, None),
        "device": (TEXT, None),
        "precision": (one_of("fp32", "amp_bf16", "amp_fp16"), None),
        "params": (TABLE, {}),
        "config": (TABLE, {}),
        "resources": (NEEDS, {}),
        "method": (Kind("tables of parameters by method", is_tables), {}),
        "matrix": (Kind("[[profile.<name>.matrix]] sections", lambda v: isinstance(v, list)), []),
    },
    "matrix": {
        "name": (NAME, REQUIRED),
        "methods": (TEXTS, REQUIRED),
        "tasks": (TEXTS, REQUIRED),
        "seeds": (SEEDS, REQUIRED),
        "shots": (COUNTS, [None]),
        "protocol": (PROTOCOL, "base_to_new"),
        "config": (TABLE, {}),
        "rules": (Kind("a list of strings, or a table of such lists by method", is_rules), None),
        "method": (Kind("tables of parameters by method", is_tables), {}),
        "resources": (NEEDS, {}),
        "presets": (FLAG, False),
        "variants": (
            Kind("tables of parameters by the variant's name, letters, digits, - and _", is_variants),
            {},
        ),
    },
}


class Reader:
    """The text of one study.toml while it is checked; knows where a field stands."""

    def __init__(self, path: Path):
        self.path, self.text = path, path.read_text(encoding="utf-8")
        try:
            self.raw = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: not valid TOML: {error}") from error

    def fields(self, kind: str, section: str, nth: int, raw: object) -> dict:
        """The checked fields of one section with the defaults filled in."""
        legal = FIELDS[kind]
        if not isinstance(raw, dict):
            self.fail(section, nth, None, f"must be a table with the fields {', '.join(legal)}")
        for key, value in raw.items():
            if key not in legal:
                self.fail(section, nth, key, f"unknown field; legal are {', '.join(legal)}")
            want = legal[key][0]
            if not want.test(value):
                self.fail(section, nth, key, f"must be {want.text}; it is {value!r}")
        for key, (_, default) in legal.items():
            if default is REQUIRED and key not in raw:
                self.fail(
                    section,
                    nth,
                    key,
                    f"is missing; needed are {', '.join(k for k, (_, d) in legal.items() if d is REQUIRED)}",
                )
        return {key: raw.get(key, default) for key, (_, default) in legal.items()}

    def fail(self, section: str, nth: int, key: str | None, message: str) -> NoReturn:
        """ValueError: file, line, field, what is wrong."""
        where = f"{section}.{key}" if key else section
        raise ValueError(f"{self.path}, line {self.line(section, nth, key)}, {where}: {message}")

    def line(self, section: str, nth: int, key: str | None) -> int:
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
            written = re.compile(rf"\s*([\"']?{key}[\"']?\s*[=.]|\[\[?\s*{re.escape(section)}\.{key}\b)")
            start = next((i for i in range(start, end) if written.match(lines[i])), start)
        return start + 1
