"""The sections of study.toml: their fields, legal values and defaults (manifest.py shows a whole file)."""

import dataclasses
import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..schema import (
    NAME_RULE,
    Amount,
    Count,
    Counts,
    Name,
    Section,
    Seeds,
    Strings,
    Table,
    Text,
    Texts,
    Whole,
    Workers,
    Wrong,
    describe,
    described,
    short,
)

Precision = Literal["fp32", "amp_bf16", "amp_fp16"]
Protocol = Literal[
    "zero_shot",
    "few_shot",
    "base_to_new",
    "cross_dataset",
    "domain_shift",
    "retrieval",
    "vqa",
    "label_distribution",
]
ByMethod = described(dict[str, Table], "tables of parameters by method")
Rules = described(Texts | dict[str, Texts], "a list of strings, or a table of such lists by method")
ByVariant = described(
    dict[Annotated[str, Meta(pattern=NAME_RULE)], Table],
    "tables of parameters by the variant's name, letters, digits, - and _",
)


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one job needs. memory_gb limits each process of the job (Linux only); hours is wall time."""

    cores: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    hours: float = 24


class Needs(Section):
    """Resources as they are written: what is left out is None."""

    cores: Count | None = None
    gpus: Whole | None = None
    memory_gb: Amount | None = None
    hours: Amount | None = None

    @property
    def given(self) -> dict:
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


class Model(Section):
    """A model as `vlmlab.load` takes it."""

    name: Text
    pretrained: Text | None = None
    device: Text | None = None
    precision: Precision | None = None


NeedsTable = described(
    Needs,
    "a table of cores (whole number from 1), gpus (whole number from 0), memory_gb and hours "
    "(numbers above 0), each of which may be left out",
)
Models = described(
    dict[Annotated[str, Meta(pattern=NAME_RULE)], Text | Model],
    "a table of models by role, each a name or a table of name, pretrained, device and precision",
)
Notebook = described(
    str,
    "the name of an .ipynb file in the study's folder (or below it); nothing outside is executed",
    pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))[^\0\\]{1,200}\.ipynb\Z",
)
OWN = ("method", "models", "task", "out", "study", "variant")  # what the driver itself gives to `vlmlab.fit`
MOST_RUNS = 10_000  # of one matrix
SHARED = (
    "tasks",
    "seeds",
    "shots",
    "protocol",
    "template",
    "rules",
    "presets",
)  # a profile says them for its matrices
After = described(
    dict[Annotated[str, Meta(pattern=NAME_RULE)], Text], "a table of matrices of this profile by role"
)


class Head(Section):
    """[study]"""

    id: Name
    title: str = ""


class Entry(Section):
    """[[artefact]]"""

    id: Name
    notebook: Notebook
    kind: Literal["figure", "table"]
    title: str = ""
    runs: Strings = ()
    params: Table = {}


class Matrix(Section):
    """[[profile.<name>.matrix]]: every method on every task with every number of shots and seed."""

    name: Name
    methods: Texts
    tasks: Texts
    seeds: Seeds
    shots: Counts | None = None
    protocol: Protocol = "base_to_new"
    template: Text | None = None
    models: Models | None = None
    after: After = {}
    config: Table = {}
    rules: Rules | None = None
    method: ByMethod = {}
    resources: NeedsTable = Needs()
    presets: bool = False
    variants: ByVariant = {}

    def __post_init__(self):
        sizes = {name: len(getattr(self, name) or (1,)) for name in ("methods", "tasks", "shots", "seeds")}
        sizes["variants"] = len(self.variants) or 1
        if (count := math.prod(sizes.values())) > MOST_RUNS:
            parts = " x ".join(f"{size} {name}" for name, size in sizes.items() if size > 1)
            largest = max(sizes, key=sizes.get)
            raise Wrong(largest, f"asks for {count} runs ({parts}); a matrix has at most {MOST_RUNS}")
        for key in ("method", "rules"):
            among(key, getattr(self, key), self.methods)
        need_settings(config=self.config, method=self.method, variants=self.variants)
        if both := sorted({*(self.models or ())} & {*self.after}):
            raise Wrong("after", f"{both[0]!r} is also among the models; a role is filled once")

    def rules_of(self, method: str) -> tuple[str, ...] | None:
        """What is reported; None leaves it to the method."""
        return self.rules.get(method) if isinstance(self.rules, dict) else self.rules

    def configs(self, method: str, below: dict) -> dict[str, dict]:
        """Variant ("" where there is none) -> keywords of `vlmlab.fit`; `below` is what the profile says."""
        config = below | self.config | self.method.get(method, {})
        return {variant: config | over for variant, over in (self.variants or {"": {}}).items()}


class ProfileSection(Section):
    """[profile.<name>], with its matrices still unread; the fields of SHARED stand under those of every matrix."""

    model: Text | None = None
    models: Models | None = None
    pretrained: Text | None = None
    device: Text | None = None
    precision: Precision | None = None
    params: Table = {}
    config: Table = {}
    resources: NeedsTable = Needs()
    method: ByMethod = {}
    tasks: Texts | None = None
    seeds: Seeds | None = None
    shots: Counts | None = None
    protocol: Protocol | None = None
    template: Text | None = None
    rules: Texts | None = None
    presets: bool | None = None
    matrix: described(tuple[object, ...], "[[profile.<name>.matrix]] sections") = ()

    def __post_init__(self):
        need_settings(config=self.config, method=self.method)
        if (self.model is None) == (self.models is None):
            message = "is missing; needed is model, or models by role ({} for what starts from nothing)"
            raise Wrong("model", message if self.model is None else "goes without models by role")
        if self.pretrained and self.model is None:
            raise Wrong("pretrained", "belongs to model; write it into the table of one of the models")

    def under(self, matrix: object) -> object:
        """A matrix as it is written, with what this section says for all of them."""
        shared = {name: value for name in SHARED if (value := getattr(self, name)) is not None}
        return shared | matrix if isinstance(matrix, dict) else matrix


def among(key: str, table: object, methods: tuple[str, ...]) -> None:
    """`Wrong` unless the keys of a table by method are methods there are; anything but a table is right."""
    unknown = [name for name in table if name not in methods] if isinstance(table, dict) else []
    if unknown:
        raise Wrong(key, f"{unknown[0]!r} is not among the methods {', '.join(methods)}")


def need_settings(config: dict, **tables: dict[str, dict]) -> None:
    """`Wrong` for a keyword of `vlmlab.fit` that is no setting of a method, where settings are written."""
    for field, settings in [
        ("config", config),
        *((f, t) for f, table in tables.items() for t in table.values()),
    ]:
        if own := [name for name in OWN if name in settings]:
            raise Wrong(field, f"must not set {own[0]}: it is no setting, the study itself says it")
        try:
            msgspec.convert(settings.get("workers", 0), Workers)
        except msgspec.ValidationError:
            message = f"workers (processes that load images) must be {describe(Workers)}"
            raise Wrong(field, f"{message}; it is {short(settings['workers'])}") from None


def only_by_case(names) -> tuple[str, str] | None:
    """Two names that differ in capital letters alone: their files would be one where a disk ignores case."""
    seen = {}
    for name in names:
        if seen.setdefault(name.lower(), name) != name:
            return seen[name.lower()], name
    return None
