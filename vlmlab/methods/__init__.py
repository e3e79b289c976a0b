"""Methods trained on top of a frozen model. One file each; the file name is the method's name."""

import csv
import dataclasses
import importlib
import json
import pkgutil
import types
import typing
from pathlib import Path

from .method import Method

_NOT_METHODS = {"method", "prompts"}  # what methods share


def names() -> list[str]:
    """The methods there are (module names in this folder)."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_METHODS)


def find(name: str) -> type[Method]:
    """The class in `vlmlab/methods/<name>.py`; ValueError lists the names there are."""
    if name not in names():
        raise ValueError(f"unknown method {name!r}; there are {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    classes = (c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__)
    return next(c for c in classes if issubclass(c, Method))


def config(name: str) -> type:
    """The dataclass of a method's parameters, with the paper's names and defaults."""
    return find(name).Config


def configure(name: str, values: dict) -> object:
    """A checked Config. ValueError names the unknown field or the wrong type and what is legal."""
    cls = config(name)
    legal = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in legal:
            raise ValueError(f"{name} has no parameter {key!r}; it has {', '.join(legal) or 'none'}")
        if not fits(value, legal[key]):
            raise ValueError(
                f"{name}: {key} must be {getattr(legal[key], '__name__', legal[key])}, "
                f"got {value!r} ({type(value).__name__})"
            )
    return cls(**{k: float(v) if legal[k] is float else v for k, v in values.items()})


def fits(value: object, kind: type) -> bool:
    """Whether a value has the declared type; an int is a legal float, a bool is neither."""
    if isinstance(kind, types.UnionType):
        return any(fits(value, k) for k in typing.get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)


def build(name: str, vlm, classnames: list[str], template: str = "a photo of a {}.", **values) -> Method:
    """A method on a frozen model for these classes, in evaluation mode; `values` are fields of its Config."""
    return find(name)(vlm, classnames, template, configure(name, values)).eval()


def presets(name: str, task: str, protocol: str = "base_to_new", shots: int | None = None) -> dict:
    """What the papers set to train on this data set, protocol and number of shots: keywords of `fit`.

    From presets.csv: an empty cell holds for all; a row that names the protocol goes before one that names
    the data set, that before one that names the shots.
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
    """The rows of presets.csv of a method."""
    with (Path(__file__).parent / "presets.csv").open(newline="") as file:
        return [r for r in csv.DictReader(file) if r["method"] == name]


def typed(name: str, rows: list[dict[str, str]]) -> dict:
    """field -> value; of a field of the Config its type, else a number or list as in JSON, or the text."""
    legal = typing.get_type_hints(config(name))
    return {r["field"]: legal.get(r["field"], value_of)(r["value"]) for r in rows}


def value_of(text: str) -> object:
    """A number or list as it is written in JSON, or the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def describe(name: str) -> str:
    """First line of a method's docstring and its parameters with defaults."""
    cls = find(name)
    fields = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(cls.Config))
    return f"{cls.__doc__.splitlines()[0]} [{fields}]"
