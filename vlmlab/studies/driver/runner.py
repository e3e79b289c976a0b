"""`reproduce`: train what is missing, execute the notebooks whose inputs changed, say what came of it."""

import contextlib
import csv
import dataclasses
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ...files import hold, write, write_json
from .. import manifest
from ..jobs import cluster, pool
from ..jobs.batch_system import Workers
from ..jobs.receipts import TRAIN, Outcome, lacking, train_missing
from ..manifest import Artefact, Study
from ..pages import gallery
from ..pages.state import FILES
from ..pages.table_damage import of_table
from ..places import Places, need_writable
from . import notebook
from .forecast import forecast
from .plan import COPY, NOT_HERE, Plan
from .verify import CLOSE, DIFFERENT, SAME, compare

BAD = ("failed", "missing runs")


@dataclasses.dataclass(frozen=True)
class Row:
    """One artefact in a summary. state: fresh, made, agrees, failed, missing runs; `states` also says stale.

    numbers: how those that were just made compare with those that were there, as `verify` says it; "" where
    nothing was made or nothing was there. An artefact that agrees is left as it was.
    """

    artefact: str
    state: str
    seconds: float = 0.0
    detail: str = ""
    numbers: str = ""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call of `reproduce` did; prints as a table. same_runs: of how many runs, when it began to draw."""

    rows: list[Row]
    figures: Path
    same_runs: tuple[int, int] = (0, 0)

    @property
    def ok(self) -> bool:
        return not any(row.state in BAD for row in self.rows)

    def plain(self) -> dict:
        """As plain values, for JSON."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {
            "ok": self.ok,
            "figures": self.figures.as_posix(),
            "artefacts": rows,
            "same_runs": self.same_runs,
        }

    @property
    def agreement(self) -> str:
        """Whether runs and numbers are those that were there before; "" where nothing was compared."""
        found = [row.numbers for row in self.rows if row.numbers]
        if not found:
            return ""
        counts = [f"{n} {state}" for state in (SAME, CLOSE, DIFFERENT) if (n := found.count(state))]
        same, there = self.same_runs
        runs = (
            f"{same} of {there} runs are identical to those behind the figures that were there; "
            if there
            else ""
        )
        return f"{runs}numbers of {len(found)} artefacts: {', '.join(counts)}\n"

    def __str__(self) -> str:
        return f"{table(self.rows)}\n\n{self.agreement}figures are in {self.figures}"

    __repr__ = __str__


def table(rows: list[Row]) -> str:
    """Rows as aligned text."""
    cells = [("artefact", "state", "seconds", "detail")]
    cells += [(r.artefact, r.state, f"{r.seconds:.1f}" if r.seconds else "-", r.detail) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = (f"{a:<{widths[0]}}  {s:<{widths[1]}}  {t:>{widths[2]}}  {d}" for a, s, t, d in cells)
    return "\n".join(line.rstrip() for line in lines)


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
    batch: Path | None = None,
    train: str = TRAIN,
    limit: float | None = None,
    **others,
) -> Summary:
    """Make every artefact of a study, or those in `only`, that is not fresh; train first what it needs.

    figures: by default figures/ for demo and <runs>/figures/<profile> for other profiles. jobs: cores of
    this machine that trainings and notebooks may use together. scheduler: address or scheduler file of a dask
    scheduler whose workers do them instead; batch: or a dask-jobqueue file, which starts `jobs` workers. train: "module:function" that does one training job. limit:
    seconds per notebook, instead of those in study.toml. others: `data`, a folder used instead of vlmlab's own.

    A job or notebook that fails is named in the summary and does not stop the others. After a new artefact
    the study's claims are judged again, for the gallery. Raises ValueError, FileNotFoundError or another
    OSError before anything runs when the study, a folder or the scheduler is not usable, or another call
    works with the same runs.
    """
    found = manifest.load(study, notebooks)
    if lacking := found.untrained(profile):
        raise ValueError(lacking)
    places = Places.of(profile, runs, figures, found.notebooks, **others)
    if not (scheduler or batch):
        for why in too_much(found, profile, jobs):
            print(f"note: {why}", file=sys.stderr)
    plan = Plan(found, profile, places, train, only)
    need_writable(places.runs / found.id, "--runs")
    need_writable(places.figures / found.id, "--figures")
    with runner_of(jobs, scheduler, batch, places.runs) as runner, hold(places.runs):
        if (ahead := forecast(plan, jobs)).stale:
            print(ahead, file=sys.stderr, flush=True)
        trained = train_missing(plan.all_jobs(), plan.index, runner)
        same = plan.same_runs()
        rows = make(plan, trained, runner, limit)
    try:
        made = any(row.state == "made" for row in rows.values())
        if made and plan.study.path.with_name("claims.toml").is_file():
            from ..claims import judge as claims

            claims.judge(study, profile, runs, figures, notebooks, train=train, **others)
        gallery.build(places.figures, places.notebooks)
    except (ValueError, OSError) as error:  # such as a study.toml of another study: this one is done
        print(f"no gallery: {error}", file=sys.stderr)
    return Summary([rows[a.id] for a in plan.artefacts], plan.state.folder, same)


def too_much(study: Study, profile: str, jobs: int) -> list[str]:
    """What `resources` of the profile this machine can never offer, before anything waits for it."""
    chosen, path = study.profile(profile), study.path
    needs = {"notebooks": chosen.resources({})}
    needs |= {f"runs of {name}": chosen.resources(m.resources.given) for name, m in chosen.matrices.items()}
    if not any(n.gpus or n.memory_gb for n in needs.values()):
        return []
    room = pool.Room(jobs)
    found = {name: room.refusal(n) for name, n in needs.items()}
    return [f"{path}, resources of profile {profile}, {name}: {why}" for name, why in found.items() if why]


@contextlib.contextmanager
def runner_of(jobs: int, scheduler: str | None, batch: Path | None, folder: Path) -> Iterator[pool.Runner]:
    """Who does the work: this machine, a scheduler that runs, or workers of a batch system."""
    if scheduler and batch:
        raise ValueError("a scheduler that runs and a file to start workers with are two ways; give one")
    if batch:
        with Workers(batch, jobs, folder) as workers:
            yield workers
    elif scheduler:
        yield functools.partial(cluster.answers, scheduler=scheduler, folder=folder)
    else:
        with pool.Pool(jobs) as local:
            yield local


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
    requests = [plan.request(artefact, limit, len(stale) > 1) for artefact, _, _ in stale]
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
    numbers, differ = compared(artefact, state.folder, attempt)
    detail = "; ".join(filter(None, [why, differ, pool.retried(answer)]))
    plan.remember(artefact, now)
    if why.startswith(NOT_HERE) and numbers != DIFFERENT:
        return Row(artefact.id, "agrees", answer["seconds"], detail, numbers)
    write_json(state.executed(artefact), notebook.tidy(notebook.read(copy), attempt, state.folder))
    for path in attempt.rglob("*"):
        if path.is_file() and path != copy:
            put(path, state.folder / path.relative_to(attempt))
    failed.unlink(missing_ok=True)
    state.record(artefact, now, answer["result"])
    return Row(artefact.id, "made", answer["seconds"], detail, numbers)


def compared(artefact: Artefact, there: Path, now: Path) -> tuple[str, str]:
    """How the numbers that were there compare with those of now: state and detail, "" where there are none."""
    before, after = (folder / f"{artefact.id}.csv" for folder in (there, now))
    if not (before.is_file() and after.is_file()):
        return "", ""
    try:
        state, detail = compare(before, after)
    except (OSError, ValueError, csv.Error) as error:
        return DIFFERENT, f"{before} cannot be read: {error}"
    return state, f"numbers {state}{': ' if detail else ''}{detail}"


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
    with plan.index.at_rest():
        rows = [state_of(plan, artefact) for artefact in plan.artefacts]
    there = {a.id for a in plan.artefacts}
    return rows + [
        Row(id, "left out", detail=f"profile {profile} lacks a matrix that it reads")
        for id in plan.study.artefacts
        if id not in there
    ]


def state_of(plan: Plan, artefact: Artefact) -> Row:
    """What one artefact is now."""
    why, _, missing = plan.look(artefact)
    copy = plan.state.failed(artefact)
    if missing:
        errors = {job.id: error for job in missing if (error := plan.index.error(job))}
        count = f"{len(missing)} of {len(plan.jobs(artefact))}"
        detail = f"{count}; {lacking(missing, errors)}" if errors else count
        return Row(artefact.id, "failed" if errors else "missing runs", detail=detail)
    if why and copy.exists():
        return Row(artefact.id, "failed", detail=f"see {copy}")
    if why:
        return Row(artefact.id, "stale" if artefact.id in plan.state.made else "missing", detail=why)
    return Row(artefact.id, "fresh")
