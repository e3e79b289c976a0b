"""What the papers set per data set, protocol and number of shots, from presets.csv."""

import csv
import json
import typing
from pathlib import Path

from .. import registry


def presets(name: str, task: str, protocol: str = "base_to_new", shots: int | None = None) -> dict:
    """What the papers set to train on this data set, protocol and number of shots: keywords of `fit`.

    An empty cell holds for all; a row that names the protocol goes before one that names the data set, that
    before one that names the shots.
    """
    asked = {"protocol": protocol, "task": task, "shots": "" if shots is None else str(shots)}
    rows = [r for r in preset_rows(name) if all(r[k] in ("", v) for k, v in asked.items())]
    rows.sort(key=lambda r: [r[k] != "" for k in asked])
    return typed(name, rows)


def target_presets(name: str, target: str, protocol: str) -> dict:
    """Fields of the Config that a published code sets at test time because it knows the target data set."""
    rows = [r for r in preset_rows(name) if (r["task"], r["protocol"]) == (target, protocol)]
    return typed(name, rows)


def preset_rows(name: str) -> list[dict[str, str]]:
    """The rows of a method."""
    with (Path(__file__).parent / "presets.csv").open(newline="", encoding="utf-8") as file:
        return [r for r in csv.DictReader(file) if r["method"] == name]


def typed(name: str, rows: list[dict[str, str]]) -> dict:
    """field -> value; of a field of the Config its type, else a number or list as in JSON, or the text."""
    legal = typing.get_type_hints(registry.config(name))
    return {r["field"]: legal.get(r["field"], value_of)(r["value"]) for r in rows}


def value_of(text: str) -> object:
    """A number or list as it is written in JSON, or the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
