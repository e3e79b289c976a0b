"""study.toml: what a study draws, which runs that needs, and how they are trained per profile.

One file per study, `notebooks/<study>/study.toml`:

    [study]
    id = "alignednorm"                 # the folder's name
    title = "AlignedNorm"

    [[artefact]]                       # one figure or table of the paper
    id = "fig3a"                       # as in the paper; the name of its files
    title = "r(x) of base and new samples"
    notebook = "fig3a_norm_ratio.ipynb"
    kind = "figure"                    # figure | table
    runs = ["main"]                    # names of the matrices it reads; may be left out
    params = { task = "emoji/animals" }  # fixed notebook parameters; may be left out

    [profile.demo]
    model = "tiny"                     # as in vlmlab.load; also pretrained, device, precision
    resources = { cores = 1, gpus = 0, memory_gb = 8, hours = 24 }  # of each job; may be left out
    params = { epochs = 10 }           # passed to every notebook that declares them
    config = { epochs = 10 }           # passed to vlmlab.fit in every matrix

    [profile.demo.method.aligned_norm] # goes over that for one method; may be left out
    w_proj = 0.1

    [[profile.demo.matrix]]            # one run per method x task x shots x seed
    name = "main"
    methods = ["zero_shot", "mmrlpp"]
    tasks = ["emoji/animals", "emoji/food"]
    seeds = [1, 2, 3]
    shots = [16]                       # left out for zero_shot
    protocol = "base_to_new"           # the default
    rules = ["unified"]                # or { mmrlpp = ["unified", "decoupled"] }; may be left out
    config = { lr = 1e-3 }             # goes over what the profile says
    presets = true                     # start from the papers' values for the data set; false when left out
    resources = { gpus = 1 }           # goes over the profile's resources

    [profile.demo.matrix.method.mmrlpp]  # goes over all that for one method; belongs to the matrix above
    token_mix = 0.5

    [profile.demo.matrix.variants]     # all runs of the matrix once per line, with these values over the
    linear = { token_mix = 1.0 }       # rest; tables call them mmrlpp_linear; may be left out

A profile may leave out a matrix that another one has: the artefacts that read it are no part of it then.

Without `rules`, every method is evaluated with `unified`, and mmrlpp on base_to_new also with `decoupled`.

`resources` belong to one job, a training run or a notebook. `cores` are also its threads (1), `gpus` are its
own GPUs (0: it shares what there is), `memory_gb` limits the data that each process of the job may reserve
(no limit; on Linux; a process with torch and the tiny model starts at 2 GB), `hours` its wall time (24; a
notebook 0.5). They change where and when a job runs, not which run it is.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from .jobs.worker import Resources
from .schema import Reader

RULES = {"mmrlpp": ("unified", "decoupled")}  # where the paper itself reports more than `unified`


@dataclasses.dataclass(frozen=True)
class Artefact:
    """One figure or table: its notebook (a path), the matrices it reads, its fixed parameters."""

    id: str
    title: str
    notebook: Path
    kind: str
    runs: tuple[str, ...]
    params: dict


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run and its evaluation, as plain values."""

    study: str
    model: dict  # name, pretrained, device, precision as `vlmlab.load` takes them
    method: str
    task: str
    protocol: str
    shots: int | None
    seed: int
    rules: tuple[str, ...]
    config: dict  # keywords of `vlmlab.fit`
    presets: bool = False  # whether those of the papers (methods/presets.csv) stand under them
    resources: Resources = dataclasses.field(default=Resources(), compare=False)
    variant: str = dataclasses.field(default="", compare=False)

    @property
    def spec(self) -> dict:
        """What is to be trained: all of the above but the resources and the name of the variant."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in ("resources", "variant")}

    @property
    def id(self) -> str:
        """Hash of that."""
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """How messages call it: 'mmrlpp emoji/animals 16-shot seed 1'."""
        shots = f"{self.shots}-shot " if self.shots else ""
        return f"{self.name} {self.task} {shots}seed {self.seed}"

    @property
    def name(self) -> str:
        """The method, with the variant of its settings where a matrix names one."""
        return f"{self.method}_{self.variant}" if self.variant else self.method


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Runs to train: every method on every task with every number of shots and seed."""

    name: str
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    shots: tuple[int | None, ...]
    protocol: str
    rules: list | dict | None
    config: dict
    method: dict
    presets: bool
    resources: dict
    variants: dict

    def rules_of(self, method: str) -> tuple[str, ...]:
        given = self.rules.get(method) if isinstance(self.rules, dict) else self.rules
        usual = RULES.get(method, ("unified",)) if self.protocol == "base_to_new" else ("unified",)
        return tuple(given) if given else usual

    def configs(self, method: str, below: dict) -> dict[str, dict]:
        """Variant ("" where there is none) -> keywords of `vlmlab.fit`; `below` is what the profile says."""
        config = below | self.config | self.method.get(method, {})
        return {variant: config | over for variant, over in (self.variants or {"": {}}).items()}


@dataclasses.dataclass(frozen=True)
class Profile:
    """How much of the study is done: model, notebook parameters, fit parameters, run matrices."""

    name: str
    model: dict
    params: dict
    config: dict
    method: dict
    matrices: dict[str, Matrix]
    resources: dict


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as its file says it; `path` is study.toml."""

    id: str
    title: str
    path: Path
    artefacts: dict[str, Artefact]
    profiles: dict[str, Profile]

    def profile(self, name: str) -> Profile:
        if name not in self.profiles:
            raise ValueError(f"study {self.id} has no profile {name!r}; it has {', '.join(self.profiles)}")
        return self.profiles[name]

    def choose(self, only: list[str] | None, profile: str) -> list[Artefact]:
        """The artefacts with these ids, or all that the profile has.

        ValueError names an unknown id, or one that reads a matrix which the profile leaves out.
        """
        matrices = self.profile(profile).matrices
        lacks = {a.id: [m for m in a.runs if m not in matrices] for a in self.artefacts.values()}
        for id in only or ():
            if id not in lacks:
                raise ValueError(f"study {self.id} has no artefact {id!r}; it has {', '.join(lacks)}")
            if lacks[id]:
                there = ", ".join(matrices) or "none"
                raise ValueError(
                    f"{self.path}: {id} reads the matrix {lacks[id][0]!r}, which profile "
                    f"{profile} leaves out; it has {there}"
                )
        return [a for a in self.artefacts.values() if (a.id in only if only else not lacks[a.id])]

    def jobs(self, profile: str, matrices: tuple[str, ...]) -> list[Job]:
        """The runs of these matrices of a profile, each once, in the order of the file."""
        p = self.profile(profile)
        jobs = {}
        for matrix in (p.matrices[name] for name in matrices):
            resources = Resources(**{**p.resources, **matrix.resources})
            for task in matrix.tasks:
                for method in matrix.methods:
                    configs = matrix.configs(method, p.config | p.method.get(method, {})).items()
                    for shots, seed, (variant, config) in itertools.product(
                        matrix.shots, matrix.seeds, configs
                    ):
                        job = Job(
                            self.id,
                            p.model,
                            method,
                            task,
                            matrix.protocol,
                            shots,
                            seed,
                            matrix.rules_of(method),
                            config,
                            matrix.presets,
                            resources,
                            variant,
                        )
                        jobs.setdefault(job.id, job)
        return list(jobs.values())


def names(notebooks: str | Path = "notebooks") -> list[str]:
    """The studies below a folder: its subfolders with a study.toml."""
    return sorted(p.parent.name for p in Path(notebooks).glob("*/study.toml"))


def load(study: str, notebooks: str | Path = "notebooks") -> Study:
    """Read and check `<notebooks>/<study>/study.toml`.

    Raises FileNotFoundError with the studies there are, ValueError with file, line, field and legal values.
    """
    path = Path(notebooks) / study / "study.toml"
    if not path.is_file():
        there = ", ".join(names(notebooks)) or "none; run this in the folder that holds notebooks/"
        raise FileNotFoundError(f"there is no study {study!r}: no {path}. Studies there: {there}")
    return Builder(path).study()


class Builder(Reader):
    """Turns the checked sections into the classes above."""

    def study(self) -> Study:
        raw = self.raw
        for section in raw:
            if section not in ("study", "artefact", "profile"):
                self.fail(section, 0, None, "unknown; legal are [study], [[artefact]], [profile.<name>]")
        for section, kind, written in (
            ("study", dict, "[study]"),
            ("artefact", list, "[[artefact]]"),
            ("profile", dict, "[profile.<name>]"),
        ):
            if not isinstance(raw.get(section), kind) or not raw[section]:
                self.fail(section, 0, None, f"a study needs at least one {written}")
        head = self.fields("study", "study", 0, raw["study"])
        if head["id"] != self.path.parent.name:
            folder = self.path.parent.name
            self.fail("study", 0, "id", f"{head['id']!r} must be the name of the folder, {folder!r}")
        profiles = {name: self.profile(name, value) for name, value in raw["profile"].items()}
        artefacts = {}
        for nth, value in enumerate(raw["artefact"]):
            artefact = self.artefact(nth, value, profiles)
            if artefact.id in artefacts:
                self.fail("artefact", nth, "id", f"{artefact.id!r} is there twice")
            artefacts[artefact.id] = artefact
        return Study(head["id"], head["title"], self.path, artefacts, profiles)

    def artefact(self, nth: int, raw: dict, profiles: dict[str, Profile]) -> Artefact:
        f = self.fields("artefact", "artefact", nth, raw)
        notebook = self.path.parent / f["notebook"]
        if not notebook.is_file():
            self.fail("artefact", nth, "notebook", f"there is no file {notebook}")
        known = list(dict.fromkeys(name for profile in profiles.values() for name in profile.matrices))
        if unknown := [name for name in f["runs"] if name not in known]:
            there = ", ".join(known) or "none"
            self.fail("artefact", nth, "runs", f"no profile has a matrix {unknown[0]!r}; there are {there}")
        return Artefact(f["id"], f["title"], notebook, f["kind"], tuple(f["runs"]), f["params"])

    def profile(self, name: str, raw: object) -> Profile:
        section = f"profile.{name}"
        f = self.fields("profile", section, 0, raw)
        matrices = {}
        for nth, value in enumerate(f["matrix"]):
            matrix = self.matrix(f"{section}.matrix", nth, value)
            if matrix.name in matrices:
                self.fail(f"{section}.matrix", nth, "name", f"{matrix.name!r} is there twice")
            matrices[matrix.name] = matrix
        model = {"name": f["model"], **{k: f[k] for k in ("pretrained", "device", "precision") if f[k]}}
        used = dict.fromkeys(method for matrix in matrices.values() for method in matrix.methods)
        self.known_methods(section, 0, "method", f["method"], used)
        return Profile(name, model, f["params"], f["config"], f["method"], matrices, f["resources"])

    def known_methods(self, section: str, nth: int, key: str, table: dict, methods: Iterable[str]) -> None:
        """The keys of a table must be among the methods."""
        if unknown := [name for name in table if name not in methods]:
            self.fail(section, nth, key, f"{unknown[0]!r} is not among the methods {', '.join(methods)}")

    def matrix(self, section: str, nth: int, raw: object) -> Matrix:
        f = self.fields("matrix", section, nth, raw)
        for key in ("method", "rules"):
            self.known_methods(section, nth, key, f[key] if isinstance(f[key], dict) else {}, f["methods"])
        lists = {k: tuple(f[k]) for k in ("methods", "tasks", "seeds", "shots")}
        return Matrix(**{**f, **lists})
