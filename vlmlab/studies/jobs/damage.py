"""Results that nobody can use: found when they are written, and again when they are looked for."""

import csv
import json
import os
from pathlib import Path

from ..schema import Finite, Record, Wrong, convert

RUN_FILES = ("run.json", "results.jsonl", "trainables.safetensors")  # the last is not there for every method


def of_run(run: Path) -> str:
    """What is wrong with a finished run, in a few words that name the file; "" for nothing."""
    for name, look in (
        ("run.json", of_info),
        ("results.jsonl", of_results),
        ("trainables.safetensors", of_tensors),
    ):
        path = run / name
        try:
            wrong = look(path)
        except Wrong as error:
            wrong = f"{error.field or 'it'} {error}"
        except (ValueError, AttributeError) as error:
            wrong = str(error)
        except OSError as error:
            wrong = error.strerror or str(error)
        if wrong:
            return f"{name}: {' '.join(wrong.split())}"
    return ""


class Info(Record):
    """Of run.json."""

    key: str
    status: str


class Measured(Record):
    """Of a line of results.jsonl."""

    value: Finite


class Tensor(Record):
    """Of the header of a safetensors file."""

    data_offsets: tuple[int, int]


def of_info(path: Path) -> None:
    convert(json.loads(path.read_text(encoding="utf-8")), Info)


def of_results(path: Path) -> str | None:
    """At least one row, each with a finite value."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            convert(json.loads(line), Measured)
        except Wrong as error:
            return f"line {number}, {error.field or 'row'} {error}"
    return None if lines else "no row is measured"


def of_tensors(path: Path) -> str | None:
    """The header of a safetensors file says how long the file is."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 100_000_000)))
    header.pop("__metadata__", None)
    expected = 8 + length + max((convert(t, Tensor).data_offsets[1] for t in header.values()), default=0)
    return None if path.stat().st_size == expected else f"has {path.stat().st_size} of {expected} bytes"


def of_table(path: Path) -> str:
    """What is wrong with an artefact's CSV; "" for nothing. A missing value is an empty cell."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        return f"{path.name} cannot be read: {' '.join(str(error).split())}"
    if len(rows) < 2:
        return f"{path.name} has no row"
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            return f"{path.name}, row {number}: {len(row)} cells under {len(rows[0])} names"
        for name, cell in zip(rows[0], row):
            if cell.strip().lower() in ("nan", "inf", "-inf"):
                where = f"{path.name}, row {number}"
                return f"{where}: {name} is {cell.strip()}; a missing value is an empty cell"
    return ""


def set_aside(run: Path) -> None:
    """Keep the files of a damaged run under other names, so that the run is trained again."""
    for name in RUN_FILES:
        if (path := run / name).exists():
            os.replace(path, path.with_name(f"{name}.damaged"))
