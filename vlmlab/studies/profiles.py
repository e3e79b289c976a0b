"""Profiles of a study and the training jobs that their matrices stand for (manifest.py shows the file)."""

import dataclasses
import functools
import hashlib
import itertools
import json

import msgspec

from ..schema import Wrong
from .sections import Matrix, Model, ProfileSection, Resources


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run and its evaluation, as plain values."""

    study: str
    models: dict[str, dict]  # role -> name, pretrained, device, precision as `vlmlab.load` takes them
    method: str
    task: str
    protocol: str
    shots: int | None
    seed: int
    rules: tuple[str, ...] | None  # None: those that the method says it reports
    config: dict  # keywords of `vlmlab.fit`
    presets: bool = False  # whether those of the papers (methods/presets.csv) stand under them
    variant: str = ""
    template: str | None = None  # None: the data's own
    follows: dict[str, "Job"] = dataclasses.field(default_factory=dict)  # role -> the job it builds on
    resources: Resources = dataclasses.field(default=Resources(), compare=False)

    @property
    def after(self) -> dict[str, str]:
        """Role -> id of the job whose run fills it."""
        return {role: job.id for role, job in self.follows.items()}

    @property
    def spec(self) -> dict:
        """What is to be trained: all of the above but the resources, as plain values."""
        left = ("resources", "follows", *(["template"] if self.template is None else []))
        own = (f.name for f in dataclasses.fields(self) if f.name not in left)
        return {name: getattr(self, name) for name in own} | {"after": self.after}

    @functools.cached_property
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


def with_followed(jobs: list[Job]) -> list[Job]:
    """Jobs and all that they build on, each once and behind what it follows."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        if job.id not in found:
            for other in job.follows.values():
                add(other)
            found[job.id] = job

    for job in jobs:
        add(job)
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class Profile:
    """How much of the study is done: models, notebook parameters, fit parameters, run matrices."""

    name: str
    section: ProfileSection
    matrices: dict[str, Matrix]
    known: dict[tuple, list[Job]] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def params(self) -> dict:
        return self.section.params

    @property
    def models(self) -> dict[str, dict]:
        """Role -> keywords of `vlmlab.load`."""
        s = self.section
        if s.models is not None:
            return self.by_role(s.models)
        return self.by_role({"vlm": Model(name=s.model, pretrained=s.pretrained)})

    def by_role(self, models: dict[str, str | Model]) -> dict[str, dict]:
        """Models as they are written -> keywords of `vlmlab.load`, with the profile's device and precision."""
        usual = {"device": self.section.device, "precision": self.section.precision}
        found = {}
        for role, model in models.items():
            own = {"name": model} if isinstance(model, str) else msgspec.structs.asdict(model)
            merged = {k: own.get(k) or usual.get(k) for k in ("name", "pretrained", *usual)}
            found[role] = {k: v for k, v in merged.items() if v}
        return found

    def resources(self, over: dict) -> Resources:
        return Resources(**self.section.resources.given | over)

    def jobs(self, study: str, name: str) -> list[Job]:
        """The runs of one matrix, each with those it follows. ValueError where these cannot be told."""
        if (study, name) not in self.known:
            self.known[study, name] = self.make_jobs(study, name)
        return self.known[study, name]

    def make_jobs(self, study: str, name: str) -> list[Job]:
        matrix = self.matrices[name]
        models = self.models if matrix.models is None else self.by_role(matrix.models)
        models = {role: model for role, model in models.items() if role not in matrix.after}
        before = {role: self.jobs(study, other) for role, other in matrix.after.items()}
        jobs = []
        for task, method in itertools.product(matrix.tasks, matrix.methods):
            below = self.section.config | self.section.method.get(method, {})
            settings = matrix.configs(method, below).items()
            for shots, seed, (variant, config) in itertools.product(
                matrix.shots or (None,), matrix.seeds, settings
            ):
                job = Job(
                    study=study,
                    models=models,
                    method=method,
                    task=task,
                    protocol=matrix.protocol,
                    shots=shots,
                    seed=seed,
                    rules=matrix.rules_of(method),
                    config=config,
                    presets=matrix.presets,
                    variant=variant,
                    template=matrix.template,
                    resources=self.resources(matrix.resources.given),
                )
                follows = {role: followed(job, others, role, matrix) for role, others in before.items()}
                jobs.append(dataclasses.replace(job, follows=follows))
        return jobs


def followed(job: Job, others: list[Job], role: str, matrix: Matrix) -> Job:
    """The one of other jobs that a job builds on: same seed, and same task, shots and variant where they have it; a
    variant may also be what the other run is called."""
    found = [other for other in others if other.seed == job.seed]
    found = [other for other in found if other.name == job.variant] or found
    for field in ("task", "shots", "variant"):
        same = [other for other in found if getattr(other, field) == getattr(job, field)]
        found = same or found
    if len(found) != 1:
        what = f"{len(found)} runs, such as {found[0].label}" if found else f"no run of seed {job.seed}"
        message = (
            f"{job.label} needs one run of the matrix {matrix.after[role]!r} as {role}, which has {what}"
        )
        raise Wrong("after", message)
    return found[0]


def reached(name: str, matrices: dict[str, Matrix]) -> set[str]:
    """The matrices that one comes after, at any distance."""
    found, todo = set(), [*matrices[name].after.values()]
    while todo:
        if (other := todo.pop()) not in found:
            found.add(other)
            todo += matrices[other].after.values()
    return found
