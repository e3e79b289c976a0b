"""What the text files of a run must hold: fields by type, numbers finite, checksums that fit.

All reading of run.json, metrics.jsonl and results.jsonl goes through here, so that damage in any field is one
error with the path. A checksum is missing in what earlier versions wrote and in what other programs write; there
the types alone are checked.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ..files import write, write_json
from ..schema import Finite, Record, Text, Whole, Wrong, convert

CHECK = "check"  # the field that holds the checksum of the others
UNCHECKED = (CHECK, "started", "finished", "seconds", "git", "device")  # differ where the same job ran twice


class Labels(Record):
    """What rows of results are called by."""

    study: str = ""
    method: str = ""
    variant: str = ""
    task: str = ""
    protocol: str = ""
    shots: int | None = None
    seed: int | None = None


class Job(Record):
    """What shaped the weights."""

    method: str = ""
    config: dict[str, object] = {}
    options: dict[str, object] = {}
    files: dict[str, str] = {}
    code: dict[str, str] = {}
    data: str = ""


class Info(Record):
    """What every run.json holds."""

    key: Text
    status: Text
    job: Job
    labels: Labels
    config: dict[str, object] = {}
    models: dict[str, dict[str, object]] = {}
    task: dict[str, object] | None = None
    classes: tuple[list[str], str] | None = None
    stages: list[tuple[str, Whole]] = []
    prepared: dict[str, object] = {}
    log: str = ""  # sha256 of metrics.jsonl, once it is finished


class Named(Record):
    """How run.json names a model."""

    name: str
    weights: str
    package: str = ""
    source: dict[str, object] | None = None
    run: str | None = None


class Finished(Info):
    """What the run.json of a finished run holds, from which its learner is built again."""

    config: dict[str, object]
    models: dict[str, Named]
    task: dict[str, object] | None
    classes: tuple[list[str], str] | None
    stages: list[tuple[str, Whole]]
    prepared: dict[str, object]


class Measured(Record):
    """A line of results.jsonl."""

    value: Finite
    metric: str | None = None
    split: str | None = None
    rule: str | None = None
    task: str | None = None
    protocol: str | None = None
    test: str | None = None
    n: int | None = None


class Logged(Record):
    """A line of metrics.jsonl; the terms of the loss are checked as numbers."""

    step: Whole
    stage: str
    lr: Finite
    loss: Finite


def damaged(path: Path, why: object) -> ValueError:
    """The error for a file of a run that nobody can read any more."""
    why = " ".join(str(why).split())[:300]
    return ValueError(f"{path} is damaged ({why}); move the folder {path.parent} away and run again")


def checksum(fields: dict) -> str:
    """Of a JSON object, whatever the order of its fields."""
    rest = {k: v for k, v in fields.items() if k not in UNCHECKED}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def parsed(text: str, kind: type[Record]) -> dict:
    """A JSON object of a kind, without its checksum. ValueError says what is wrong with it, and where."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    try:
        convert(found, kind)
    except Wrong as e:
        raise ValueError(f"{e.field or 'it'} {e}") from e
    if CHECK in found and found[CHECK] != checksum(found):
        raise ValueError("its checksum does not fit: it is not what was written")
    found.pop(CHECK, None)
    return found


def text_of(path: Path) -> str:
    """ValueError where it is no text or no file, such as a pipe that would never end."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    return path.read_bytes().decode("utf-8")


def read_info(path: Path, kind: type[Info] = Info) -> dict:
    """run.json as a dict; ValueError with the path when it is damaged or no run's."""
    try:
        return parsed(text_of(path), kind)
    except OSError as e:
        raise damaged(path, e.strerror or e) from e
    except ValueError as e:
        raise damaged(path, e) from e


def write_info(path: Path, info: dict) -> None:
    write_json(path, info | {CHECK: checksum(json.loads(json.dumps(info)))})


def read_lines(path: Path, kind: type[Record] = Measured) -> list[dict]:
    """The complete lines of a .jsonl file as dicts; a last line cut by a kill is left out. ValueError with the
    path and the line when one is damaged."""
    if not path.exists():
        return []
    found, lines = [], None
    try:
        lines = text_of(path).split("\n")[:-1]
        for line in lines:
            found.append(parsed(line, kind))
    except OSError as e:
        raise damaged(path, e.strerror or e) from e
    except ValueError as e:
        raise damaged(path, e if lines is None else f"line {len(found) + 1}, {e}") from e
    return found


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    """One JSON object a line, each with its checksum."""
    rows = [json.loads(json.dumps(row)) for row in rows]
    text = "".join(json.dumps(row | {CHECK: checksum(row)}) + "\n" for row in rows)
    write(path, lambda p: p.write_text(text, encoding="utf-8"))
