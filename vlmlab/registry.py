"""Learners by name: one file each in the rooms below, whose name is the learner's; and their settings."""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import pkgutil
import re
import sys
import traceback
import typing
from collections.abc import Iterable
from pathlib import Path

import msgspec

from . import descriptions, own_files, schema, source_code
from .known_names import ROOMS
from .learner import Learner
from .nearest import hint


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
    if isinstance(name, type):
        if not issubclass(name, Learner):
            raise ValueError(f"{called(name)} is no learner; extend vlmlab.methods.Method, or Learner")
        return name
    if isinstance(name, str) and ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return find(getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError, TypeError) as e:
            raise ValueError(f"unknown method {name!r}: {e}") from e
        except ValueError:
            raise
        except Exception as e:  # whatever a file of one's own does when it is run
            last = traceback.extract_tb(e.__traceback__)[-1]
            file, line = (
                getattr(e, "filename", None) or last.filename,
                getattr(e, "lineno", None) or last.lineno,
            )
            raise ValueError(f"{file}, line {line}: {type(e).__name__}: {e}") from e
    there = modules()
    if name not in there:
        raise ValueError(f"unknown method {name!r}{hint(name, there)}; there are {', '.join(sorted(there))}")
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
    cls, found = getattr(find(name), kind), {}
    legal = fields_of(find(name), kind)
    for key, value in values.items():
        if key not in legal:
            raise ValueError(
                f"{name_of(find(name))} has no parameter {key!r}; it has {', '.join(legal) or 'none'}"
            )
        found[key] = checked(key, value, legal[key])
    return cls(**found)


def fields_of(learner: type[Learner], kind: str) -> dict[str, object]:
    """Field -> type of its Config or Options. ValueError with its file where that is no dataclass, or a type is not
    known."""
    cls = getattr(learner, kind)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(
            f"{called(learner)}: {kind} must be a class under @dataclasses.dataclass(frozen=True)"
        )
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError) as e:
        raise ValueError(f"{called(learner)}: a type in {kind} is not known: {e}") from e
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if bare := [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]:
        raise ValueError(f"{called(learner)}: {kind}.{bare[0]} needs a default value")
    return {n: hints[n] for n in fields}


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
    fields_of(cls, "Config"), fields_of(cls, "Options")
    training = [f.name for f in dataclasses.fields(cls.Options)]
    its = {f.name: f.default for f in dataclasses.fields(cls.Config)}
    values = {k: v for k, v in its.items() if k in training} | values
    try:
        found = configure(cls, {k: v for k, v in values.items() if k in its or k not in training})
    except ValueError as e:
        raise ValueError(f"{e}; its training takes {', '.join(sorted(training)) or 'nothing'}") from e
    return found, configure(cls, {k: v for k, v in values.items() if k in training}, "Options")


def code(learner: type[Learner]) -> dict[str, str]:
    """Module -> digest of its code, of a learner, of those that it extends and of modules of one's own that these
    import, and of a class that stands in no file "module:Class" -> digest of itself; not of what all learners share."""
    shared = {f"vlmlab.{room}.{name}" for room in ROOMS for name in shared_by(room)} | {Learner.__module__}
    found = {}
    for cls in (c for c in learner.__mro__ if issubclass(c, Learner) and c.__module__ not in shared):
        if path := file_of(cls):
            own = {cls.__module__: path} | source_code.imported(sys.modules[cls.__module__])
            found |= {name: source_code.digest(file) for name, file in own.items()}
        else:
            found[f"{cls.__module__}:{cls.__qualname__}"] = source_code.of_class(cls)
    return dict(sorted(found.items()))


def file_of(learner: type) -> Path | None:
    """The Python file that a class stands in; None for one of a notebook or an interactive session."""
    path = Path(getattr(sys.modules.get(learner.__module__), "__file__", None) or "")
    return path if path.suffix == ".py" and path.is_file() else None


def called(learner: type) -> str:
    """A class as errors name it, with its file."""
    path = file_of(learner)
    return f"{learner.__qualname__} ({path or 'of a notebook or session'})"


def plain(values: object) -> dict:
    """A Config or Options as it is written to JSON and read back."""
    return json.loads(json.dumps(dataclasses.asdict(values), default=str))


def files(values: object) -> dict[str, str]:
    """Field -> sha256 of the file that it names (fields of type Path; `descriptions` may also name some that come
    with vlmlab); FileNotFoundError when it is missing."""
    paths = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    found = {}
    for name, path in paths.items():
        if isinstance(path, Path):
            path = descriptions.find(path) if name == "descriptions" and not path.suffix else path
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


def about(name: str | type[Learner]) -> dict[str, object]:
    """A learner as plain values: what it is, the models it stands on, its rules, and its settings (name, default,
    type in words)."""
    cls, settings = find(name), []
    for kind in ("Config", "Options"):
        types, defaults = fields_of(cls, kind), plain(getattr(cls, kind)())
        settings += [{"name": k, "default": defaults[k], "type": in_words(t)} for k, t in types.items()]
    return {
        "name": name_of(cls),
        "about": (cls.__doc__ or "").strip().partition("\n")[0],
        "models": list(cls.models_needed),
        "rules": list(cls.rules),
        "differs": cls.differs,
        "settings": settings,
    }


def in_words(kind: object) -> str:
    return schema.describe(kind) or re.sub(r"Annotated\[(\w+), [^\]]*\]|typing\.", r"\1", str(kind))


def describe(name: str | type[Learner]) -> str:
    """First line of a learner's docstring and its parameters with defaults."""
    cls = find(name)
    fields = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(cls.Config))
    return f"{(cls.__doc__ or name_of(cls)).strip().splitlines()[0]} [{fields}]"
