"""Learners by name: one file each in the rooms below, whose name is the learner's; and their settings."""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import pkgutil
import sys
import typing
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import msgspec

from . import own_files, source_code
from .learner import Learner

ROOMS = ("methods", "distill", "decode", "mini")


def exists(room: str) -> bool:
    return importlib.util.find_spec(f"vlmlab.{room}") is not None


def shared_by(room: str) -> tuple[str, ...]:
    """The modules of a room that are no learners but what they share."""
    return getattr(importlib.import_module(f"vlmlab.{room}"), "SHARED", ()) if exists(room) else ()


def modules(rooms: Iterable[str] = ROOMS) -> dict[str, str]:
    """Learner -> the module of vlmlab that holds it. A room lists in `SHARED` what its learners share."""
    found = {}
    for room in rooms:
        if not exists(room):
            continue
        package = importlib.import_module(f"vlmlab.{room}")
        own_files.join(package)
        names = (m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
        found |= {name: f"vlmlab.{room}.{name}" for name in names if name not in shared_by(room)}
    return found


def names(*rooms: str) -> list[str]:
    """The learners there are, in some rooms or in all."""
    return sorted(modules(rooms or ROOMS))


def find(name: str | type[Learner]) -> type[Learner]:
    """A learner's class, by its name, by "module:Class" for one of your own, or itself.

    ValueError lists the names there are.
    """
    if isinstance(name, type) and issubclass(name, Learner):
        return name
    if isinstance(name, str) and ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return find(getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError) as e:
            raise ValueError(f"unknown method {name!r}: {e}") from e
    there = modules()
    if name not in there:
        near = get_close_matches(str(name).lower().replace("-", "_"), there, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown method {name!r}{hint}; there are {', '.join(sorted(there))}")
    module = own_files.load(there[name])
    classes = (c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__)
    if (found := next((c for c in classes if issubclass(c, Learner)), None)) is None:
        raise ValueError(
            f"{module.__file__} defines no method: no class that extends Method or another learner"
        )
    return found


def name_of(learner: type[Learner] | Learner) -> str:
    """What `find` finds it by."""
    cls = learner if isinstance(learner, type) else type(learner)
    room, _, name = cls.__module__.rpartition(".")
    return name if room in {f"vlmlab.{r}" for r in ROOMS} else f"{cls.__module__}:{cls.__qualname__}"


def config(name: str | type[Learner]) -> type:
    """The dataclass of a learner's parameters, with the paper's names and defaults."""
    return find(name).Config


def configure(name: str | type[Learner], values: dict, kind: str = "Config") -> object:
    """A checked Config (or Options). ValueError names the unknown field or the wrong value and what is
    legal."""
    cls = getattr(find(name), kind)
    legal, found = typing.get_type_hints(cls, include_extras=True), {}
    for key, value in values.items():
        if key not in legal:
            raise ValueError(
                f"{name_of(find(name))} has no parameter {key!r}; it has {', '.join(legal) or 'none'}"
            )
        found[key] = checked(key, value, legal[key])
    return cls(**found)


def checked(key: str, value: object, kind: type) -> object:
    """The value as the declared type: an int is a legal float, a bool is neither."""
    value = getattr(value, "item", lambda: value)()  # NumPy's numbers
    if typing.get_origin(kind) is typing.Literal and value not in (legal := typing.get_args(kind)):
        raise ValueError(f"{key} is {value!r}: expected one of {', '.join(map(str, legal))}")
    try:
        return msgspec.convert(value, kind, dec_hook=lambda t, v: t(v))
    except (msgspec.ValidationError, TypeError) as e:
        raise ValueError(f"{key} is {value!r}: {str(e)[:1].lower()}{str(e)[1:]}") from e


def settings(name: str | type[Learner], values: dict) -> tuple[object, object]:
    """The Config and the Options in the settings of `fit`.

    A name that both have (a method may need to know `epochs`) is one value: the one given, else the
    Config's default. ValueError for names that neither has and for wrong values.
    """
    cls = find(name)
    training = [f.name for f in dataclasses.fields(cls.Options)]
    its = {f.name: f.default for f in dataclasses.fields(cls.Config)}
    values = {k: v for k, v in its.items() if k in training} | values
    try:
        found = configure(cls, {k: v for k, v in values.items() if k in its or k not in training})
    except ValueError as e:
        raise ValueError(f"{e}; its training takes {', '.join(sorted(training)) or 'nothing'}") from e
    return found, configure(cls, {k: v for k, v in values.items() if k in training}, "Options")


def code(learner: type[Learner]) -> dict[str, str]:
    """Module -> digest of its code, of a learner and of those that it extends; not of what all learners share,
    nor of classes that stand in no file."""
    shared = {f"vlmlab.{room}.{name}" for room in ROOMS for name in shared_by(room)} | {Learner.__module__}
    modules = {c.__module__ for c in learner.__mro__ if issubclass(c, Learner)} - shared
    paths = {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(modules)}
    return {name: source_code.digest(Path(path)) for name, path in paths.items() if path}


def plain(values: object) -> dict:
    """A Config or Options as it is written to JSON and read back."""
    return json.loads(json.dumps(dataclasses.asdict(values), default=str))


def files(values: object) -> dict[str, str]:
    """Field -> sha256 of the file that it names (fields of type Path); FileNotFoundError when it is missing."""
    paths = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    found = {}
    for name, path in paths.items():
        if isinstance(path, Path):
            if not path.is_file():
                raise FileNotFoundError(f"{name} names {path}, and there is no such file")
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def build(
    name: str | type[Learner], models, classnames=None, template: str = "a photo of a {}.", **values
) -> Learner:
    """A learner in evaluation mode. models: one model, or models by role; `values` are fields of its Config."""
    cls = find(name)
    models = models if isinstance(models, dict) else {cls.models_needed[0]: models}
    classes = None if classnames is None else (tuple(classnames), template)
    return cls.build(models, classes, configure(cls, values)).eval()


def describe(name: str | type[Learner]) -> str:
    """First line of a learner's docstring and its parameters with defaults."""
    cls = find(name)
    fields = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(cls.Config))
    return f"{cls.__doc__.splitlines()[0]} [{fields}]"
