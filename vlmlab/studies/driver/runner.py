"""`reproduce`: train what is missing, execute the notebooks whose inputs changed, say what came of it."""

import dataclasses
import functools
import os
import shutil
import sys
from pathlib import Path

from ...files import hold, write, write_json
from .. import manifest
from ..jobs import cluster, pool
from ..jobs.receipts import TRAIN, Done, Index, Outcome, lacking, train_missing
from ..jobs.worker import Request, settings
from ..manifest import Artefact, Study
from ..pages import gallery
from ..pages.state import FILES, State
from ..pages.table_damage import of_table
from ..places import Places, need_writable
from ..profiles import Job
from . import notebook
from .staleness import parts

STANDARD = ("study", "artefact", "profile", "runs", "out")  # every artefact notebook declares these
BAD = ("failed", "missing runs")
COPY = "notebook.ipynb"  # an executed notebook in its attempt


@dataclasses.dataclass(frozen=True)
class Row:
    """One artefact in a summary. state: fresh, made, failed, missing runs; `states` also says stale."""

    artefact: str
    state: str
    seconds: float = 0.0
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call of `reproduce` did; prints as a table."""

    rows: list[Row]
    figures: Path

    @property
    def ok(self) -> bool:
        return not any(row.state in BAD for row in self.rows)

    def __str__(self) -> str:
        return f"{table(self.rows)}\n\nfigures are in {self.figures}"

    __repr__ = __str__


def table(rows: list[Row]) -> str:
    """Rows as aligned text."""
    cells = [("artefact", "state", "seconds", "detail")]
    cells += [(r.artefact, r.state, f"{r.seconds:.1f}" if r.seconds else "-", r.detail) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = (f"{a:<{widths[0]}}  {s:<{widths[1]}}  {t:>{widths[2]}}  {d}" for a, s, t, d in cells)
    return "\n".join(line.rstrip() for line in lines)


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
        """Why an artefact is stale ("" when fresh), what shapes it now, and the jobs it still lacks."""
        runs, missing = self.runs(artefact)
        now = parts(
            artefact,
            self.study.id,
            self.values(artefact),
            self.profile.models,
            runs,
            self.places.data,
        )
        return self.state.why_stale(artefact, now, self.index.sources), now, missing

    def attempt(self, artefact: Artefact) -> Path:
        """Where a notebook writes until it has ended well."""
        return self.index.folder / "attempts" / artefact.id

    def request(self, artefact: Artefact, limit: float | None) -> Request:
        """The execution of a notebook for a worker process; limit: seconds."""
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
            "values": self.values(artefact) | {"out": attempt.as_posix()},
        }
        log = self.index.folder / "logs" / f"{artefact.id}.log"
        call, about = f"{notebook.__name__}:perform", settings(self.places.notebooks)
        return Request(artefact.id, call, arguments, str(log), resources, settings=about)


def reproduce(
    study: str,
    profile: str = "demo",
    only: list[str] | None = None,
    runs: str | Path = "runs",
    figures: str | Path | None = None,
    notebooks: str | Path = "notebooks",
    jobs: int = 1,
    *,
    scheduler: str | None = None,
    train: str = TRAIN,
    limit: float | None = None,
    **others,
) -> Summary:
    """Make every artefact of a study, or those in `only`, that is not fresh; train first what it needs.

    figures: by default figures/ for demo and <runs>/figures/<profile> for other profiles. jobs: cores of
    this machine that trainings and notebooks may use together. scheduler: address or scheduler file of a dask
    scheduler whose workers do them instead. train: "module:function" that does one training job. limit:
    seconds per notebook, instead of those in study.toml. others: `data`, a folder used instead of vlmlab's own.

    A job or notebook that fails is named in the summary and does not stop the others. After a new artefact
    the study's claims are judged again, for the gallery. Raises ValueError, FileNotFoundError or another
    OSError before anything runs when the study, a folder or the scheduler is not usable, or another call
    works with the same runs.
    """
    found = manifest.load(study, notebooks)
    places = Places.of(profile, runs, figures, found.notebooks, **others)
    plan = Plan(found, profile, places, train, only)
    need_writable(places.runs / found.id, "--runs")
    need_writable(places.figures / found.id, "--figures")
    with hold(places.runs):
        if scheduler:
            runner = functools.partial(cluster.answers, scheduler=scheduler, folder=places.runs)
        else:
            runner = functools.partial(pool.answers, slots=jobs)
        trained = train_missing(plan.all_jobs(), plan.index, runner)
        rows = make(plan, trained, runner, limit)
    try:
        made = any(row.state == "made" for row in rows.values())
        if made and plan.study.path.with_name("claims.toml").is_file():
            from ..claims import judge as claims

            claims.judge(study, profile, runs, figures, notebooks, train=train, **others)
        gallery.build(places.figures, places.notebooks)
    except (ValueError, OSError) as error:  # such as a study.toml of another study: this one is done
        print(f"no gallery: {error}", file=sys.stderr)
    return Summary([rows[a.id] for a in plan.artefacts], plan.state.folder)


def make(plan: Plan, trained: Outcome, runner: pool.Runner, limit: float | None) -> dict[str, Row]:
    """Execute the notebooks of stale artefacts whose runs are there; artefact -> what came of it."""
    rows, stale = {}, []
    for artefact in plan.artefacts:
        why, now, missing = plan.look(artefact)
        note = "; ".join(trained.retried[j.id] for j in plan.jobs(artefact) if j.id in trained.retried)
        if missing:
            rows[artefact.id] = Row(artefact.id, "missing runs", detail=lacking(missing, trained.failed))
        elif why:
            stale.append((artefact, "; ".join(filter(None, [why, note])), now))
        else:
            rows[artefact.id] = Row(artefact.id, "fresh", detail=note)
    requests = [plan.request(artefact, limit) for artefact, _, _ in stale]
    try:
        for number, answer in pool.follow(runner, requests, "notebooks", "notebook"):
            row = settle(plan, *stale[number], answer)
            rows[row.artefact] = row
    finally:
        shutil.rmtree(plan.index.folder / "attempts", ignore_errors=True)
    return rows


def settle(plan: Plan, artefact: Artefact, why: str, now: dict[str, str], answer: dict) -> Row:
    """Put what an executed notebook wrote into place, or keep its partly executed copy."""
    state, attempt = plan.state, plan.attempt(artefact)
    problem = answer.get("error") or unusable(artefact, attempt)
    copy, failed = attempt / COPY, state.failed(artefact)
    if problem:
        if copy.exists():
            put(copy, failed)
        return Row(artefact.id, "failed", answer.get("seconds", 0.0), problem)
    write_json(state.executed(artefact), notebook.tidy(notebook.read(copy), attempt, state.folder))
    for path in attempt.rglob("*"):
        if path.is_file() and path != copy:
            put(path, state.folder / path.relative_to(attempt))
    failed.unlink(missing_ok=True)
    state.record(artefact, now, answer["result"])
    return Row(artefact.id, "made", answer["seconds"], "; ".join(filter(None, [why, pool.retried(answer)])))


def put(path: Path, target: Path) -> None:
    """Move a file in one step, also to another disk."""
    write(target, lambda temporary: shutil.copyfile(path, temporary))
    os.unlink(path)


def unusable(artefact: Artefact, attempt: Path) -> str:
    """What is wrong with what an executed notebook wrote, or ""."""
    wanted = [f"{artefact.id}.{suffix}" for suffix in FILES[artefact.kind]]
    if lacks := [name for name in wanted if not (attempt / name).is_file()]:
        return f"the notebook wrote no {' or '.join(lacks)}; its last cell needs save_{artefact.kind}"
    table = attempt / f"{artefact.id}.csv"
    return of_table(table) if table.exists() else ""


def states(
    study: str,
    profile: str = "demo",
    runs: str | Path = "runs",
    figures: str | Path | None = None,
    notebooks: str | Path = "notebooks",
    *,
    train: str = TRAIN,
    **others,
) -> list[Row]:
    """What `reproduce` would find, without doing anything: fresh, stale, missing, failed, missing runs."""
    found = manifest.load(study, notebooks)
    plan = Plan(found, profile, Places.of(profile, runs, figures, found.notebooks, **others), train)
    rows = []
    for artefact in plan.artefacts:
        why, _, missing = plan.look(artefact)
        copy = plan.state.failed(artefact)
        if missing:
            errors = {job.id: error for job in missing if (error := plan.index.error(job))}
            count = f"{len(missing)} of {len(plan.jobs(artefact))}"
            detail = f"{count}; {lacking(missing, errors)}" if errors else count
            rows.append(Row(artefact.id, "failed" if errors else "missing runs", detail=detail))
        elif why and copy.exists():
            rows.append(Row(artefact.id, "failed", detail=f"see {copy}"))
        elif why:
            known = artefact.id in plan.state.made
            rows.append(Row(artefact.id, "stale" if known else "missing", detail=why))
        else:
            rows.append(Row(artefact.id, "fresh"))
    there = {a.id for a in plan.artefacts}
    return rows + [
        Row(id, "left out", detail=f"profile {profile} lacks a matrix that it reads")
        for id in plan.study.artefacts
        if id not in there
    ]
