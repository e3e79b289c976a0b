"""Results that nobody can use: found when they are written, and again when they are looked for."""

import csv
import json
import math
import os
from pathlib import Path

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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = str(error) or type(error).__name__
        except OSError as error:
            wrong = error.strerror or str(error)
        if wrong:
            return f"{name}: {' '.join(wrong.split())}"
    return ""


def of_info(path: Path) -> str:
    info = json.loads(path.read_text(encoding="utf-8"))
    wrong = [key for key in ("key", "status") if not isinstance(info.get(key), str)]
    return f"no {' and '.join(wrong)} is recorded" if wrong else ""


def of_results(path: Path) -> str:
    """At least one row, each with a finite value."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if not math.isfinite(value := json.loads(line)["value"]):
            return f"line {number} measured {value}"
    return "" if lines else "no row is measured"


def of_tensors(path: Path) -> str:
    """The header of a safetensors file says how long the file is."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 100_000_000)))
    header.pop("__metadata__", None)
    expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    return "" if path.stat().st_size == expected else f"has {path.stat().st_size} of {expected} bytes"


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
