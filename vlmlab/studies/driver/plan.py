"""A study under one profile, checked, with all that is needed to tell fresh from stale."""

from pathlib import Path

from ...files import write_json
from ..jobs.receipts import TRAIN, Done, Index
from ..jobs.worker import Request, settings
from ..manifest import Artefact, Study
from ..pages.state import State
from ..places import Places, digest, known
from ..profiles import Job
from . import notebook
from .staleness import of_runs, parts

STANDARD = ("study", "artefact", "profile", "runs", "out")  # every artefact notebook declares these
COPY = "notebook.ipynb"  # an executed notebook in its attempt
NOT_HERE = "its notebook was not executed on these runs yet"


class Plan:
    """A study under one profile, checked, with all that is needed to tell fresh from stale."""

    def __init__(
        self, study: Study, profile: str, places: Places, train: str = TRAIN, only: list[str] | None = None
    ):
        self.study, self.profile, self.places = study, study.profile(profile), places
        self.artefacts = study.choose(only, profile)
        self.index = Index(study.id, places, train)
        self.state = State(places.figures / study.id)
        self.check()

    def check(self) -> None:
        """All parameters, before anything runs. ValueError names notebook, parameter and what is legal."""
        for artefact in self.artefacts:
            if taken := [n for n in STANDARD if n in {**self.profile.params, **artefact.params}]:
                raise ValueError(f"{self.study.path}: params must not set {taken[0]}; the driver does")
            notebook.check(artefact.notebook, self.values(artefact))
        declared = {n for a in self.study.artefacts.values() for n in notebook.parameters(a.notebook)}
        if unused := [n for n in self.profile.params if n not in declared]:
            raise ValueError(
                f"{self.study.path}, profile.{self.profile.name}.params: no notebook declares "
                f"{unused[0]!r} in its parameters cell"
            )

    def values(self, artefact: Artefact) -> dict:
        """The parameters of an artefact's notebook: the standard ones, its own, the profile's it declares."""
        standard = (
            self.study.id,
            artefact.id,
            self.profile.name,
            self.places.runs.as_posix(),
            self.state.folder.as_posix(),
        )
        declared = notebook.parameters(artefact.notebook)
        return {
            **{k: v for k, v in self.profile.params.items() if k in declared},
            **artefact.params,
            **dict(zip(STANDARD, standard)),
        }

    def jobs(self, artefact: Artefact) -> list[Job]:
        return self.study.jobs(self.profile.name, artefact.runs)

    def all_jobs(self) -> list[Job]:
        """The training jobs of the chosen artefacts, each once."""
        return list({job.id: job for a in self.artefacts for job in self.jobs(a)}.values())

    def runs(self, artefact: Artefact) -> tuple[list[tuple[Job, Done]], list[Job]]:
        """The jobs of an artefact with their finished runs, and the jobs without."""
        found = [(job, self.index.done(job)) for job in self.jobs(artefact)]
        return [(job, done) for job, done in found if done], [job for job, done in found if not done]

    def look(self, artefact: Artefact) -> tuple[str, dict[str, str], list[Job]]:
        """Why an artefact is stale ("" when fresh), what shapes it now, and the jobs it still lacks.

        Figures that came with a clone are fresh for the runs that were behind them; for runs trained here, even
        the same ones, they are so when the notebook was executed on them once.
        """
        runs, missing = self.runs(artefact)
        now = parts(
            artefact,
            self.study.id,
            self.values(artefact),
            self.profile.models,
            runs,
            self.places.data,
        )
        why = self.state.why_stale(artefact, now, self.index.sources)
        if not why and known(self.executed).get(self.mark(artefact)) != digest(now):
            why = NOT_HERE
        return why, now, missing

    @property
    def executed(self) -> Path:
        """Which notebooks were executed on these runs: a file beside them."""
        return self.index.folder / "executed.json"

    def mark(self, artefact: Artefact) -> str:
        return f"{self.profile.name}/{artefact.id}"

    def remember(self, artefact: Artefact, now: dict[str, str]) -> None:
        write_json(self.executed, known(self.executed) | {self.mark(artefact): digest(now)})

    def same_runs(self) -> tuple[int, int]:
        """Of the runs that are there, those behind the figures that are there; and how many there are."""
        before = self.state.runs()
        now = of_runs([run for a in self.artefacts for run in self.runs(a)[0]])
        return sum(before.get(name) == value for name, value in now.items()), len(now)

    def attempt(self, artefact: Artefact) -> Path:
        """Where a notebook writes until it has ended well."""
        return self.index.folder / "attempts" / artefact.id

    def request(self, artefact: Artefact, limit: float | None, several: bool) -> Request:
        """The execution of a notebook for a worker process; limit: seconds; several: among others."""
        needs = self.profile.section.resources
        hours = needs.hours or notebook.LIMIT / 3600
        limit, attempt = limit or hours * 3600, self.attempt(artefact)
        spare = 2 * notebook.START  # the notebook's own limit comes first: it knows the cell
        resources = self.profile.resources({"hours": (limit + spare) / 3600})
        arguments = {
            "source": str(artefact.notebook),
            "copy": str(attempt / COPY),
            "limit": limit,
            "project": str(self.places.project),
            "several": several,
            "values": self.values(artefact) | {"out": attempt.as_posix()},
        }
        log = self.index.folder / "logs" / f"{artefact.id}.log"
        call, about = f"{notebook.__name__}:perform", settings(self.places.notebooks)
        return Request(artefact.id, call, arguments, str(log), resources, settings=about, kind="notebook")
