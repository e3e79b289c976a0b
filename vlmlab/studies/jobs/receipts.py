"""Training jobs of a study: which are done, and doing the rest.

Each job leaves a receipt, `runs/<study>/jobs/<id>.json`: the run folder that it ended in, with digests of
what went in (model and data files, the runs it builds on, the code that it loaded) and of what came out. While
nothing changed, no torch is needed to find that everything is there. Any doubt only means that the job is handed
to `vlmlab.fit` again, whose own key decides whether there is something to train; receipts can be deleted at any
time. The process that trains writes the receipt itself, so a driver that was killed meanwhile loses nothing.
"""

import contextlib
import dataclasses
import functools
import importlib
import time
from collections.abc import Iterator
from pathlib import Path

from ...files import write_json
from ...schema import Record, Wrong, convert, described
from ...train.run_folder import KEPT, damage, set_aside
from ..code import Sources, loaded_files
from ..places import Places, data_digests, digest, known
from ..profiles import Job, with_followed
from . import pool
from .pool import Runner, follow, retried
from .worker import Failed, Request, settings

TRAIN = "vlmlab.studies.jobs.train:train"
RESULT = ("run", "key", "status", "digest")


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished job: its run folder (relative to runs/), its key, a digest of its numbers and weights."""

    run: str
    key: str
    digest: str


Inside = described(str, "a path below runs/", pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))[^\0]+\Z")


class Receipt(Record):
    """What a finished job leaves. files: those that its run folder holds; code: module -> digest."""

    run: Inside
    key: str
    status: str
    digest: str
    inputs: str
    files: list[Inside]
    code: dict[str, str]


def finished(found: dict, inputs: str, runs: Path, sources: Sources) -> Done | None:
    """The run of a receipt; None when it is of other inputs or code, missing, unfinished or damaged."""
    try:
        receipt = convert(found, Receipt)
    except Wrong:
        return None
    if receipt.inputs != inputs or sources.changed(receipt.code):
        return None
    path = runs / receipt.run
    info = known(path / "run.json")
    if any(info.get(k) != getattr(receipt, k) for k in ("key", "status")) or damage(path):
        return None
    if not all((path / name).exists() for name in receipt.files):
        return None
    return Done(receipt.run, receipt.key, receipt.digest)


class Index:
    """The jobs of a study that are done."""

    def __init__(self, study: str, places: Places, train: str = TRAIN):
        self.places, self.train = places, train
        self.folder = places.runs / study
        self.seen: dict[str, Done | None] | None = None
        self.sources = Sources(places.project)
        self.looks_of = functools.cache(looks_of)  # one look in a call of reproduce
        self.state_of = functools.cache(state_of)  # of thousands of images, for many jobs

    def receipt(self, job: Job) -> Path:
        return self.folder / "jobs" / f"{job.id}.json"

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Within this nothing is trained, so that each job is looked at once."""
        self.seen = {}
        try:
            yield
        finally:
            self.seen = None

    def done(self, job: Job) -> Done | None:
        """The finished run of a job; None when it, or one that it builds on, is missing, damaged or outdated."""
        if self.seen is None:
            return self.look(job)
        if job.id not in self.seen:
            self.seen[job.id] = self.look(job)
        return self.seen[job.id]

    def look(self, job: Job) -> Done | None:
        if not (receipt := known(self.receipt(job))):
            return None
        before = self.before(job)
        if before is None:
            return None
        return finished(receipt, self.inputs(job, before), self.places.runs, self.sources)

    def before(self, job: Job) -> dict[str, Done] | None:
        """Role -> the finished run that fills it; None when one is not done."""
        found = {role: self.done(other) for role, other in job.follows.items()}
        return found if all(found.values()) else None

    def error(self, job: Job) -> str:
        """How its last attempt failed, if it did."""
        return str(known(self.receipt(job)).get("error", ""))

    def request(self, job: Job) -> Request:
        """A job for a worker process; what it builds on is done."""
        before = self.before(job)
        arguments = {
            "train": self.train,
            "job": job.spec | {"after": {role: done.run for role, done in before.items()}},
            "runs": str(self.places.runs),
            "receipt": str(self.receipt(job)),
            "inputs": self.inputs(job, before),
            "project": str(self.places.project),
        }
        log = self.folder / "logs" / f"{job.id}.log"
        models = sorted(model["name"] for model in job.models.values())
        kind = f"{self.train} {job.method} {models} {job.task.partition('/')[0]} {job.protocol} {sorted(job.after)}"
        about = {"settings": settings(self.places.notebooks), "kind": kind}
        return Request(job.label, f"{__name__}:perform", arguments, str(log), job.resources, **about)

    def inputs(self, job: Job, before: dict[str, Done]) -> str:
        """Digest of what a job reads besides code: embedded models and data, and the runs it builds on.

        Real data sets go by their names, images of the user's own by names, sizes and times.
        """
        names = [model["name"] for model in job.models.values()]
        folders = [*(f"models/{name}" for name in names), job.task.split("/")[0]]
        files = data_digests(self.places.data, folders)
        weights = (model.get("pretrained", "") for model in job.models.values())
        for name in (*names, *weights):
            files |= self.looks_of(name, "*")
        if (state := self.state_of(job.task)) is not None:
            files[job.task] = state
        return digest([files, {role: done.digest for role, done in before.items()}])


def state_of(task: str) -> str | None:
    """What the images of one's own that a task names are now; None of the others, which need no pandas here."""
    if ":" not in task:
        return None
    from ...tasks.own import tasks as own

    return own.state(task) if own.is_own(task) else None


def looks_of(name: str, inside: str) -> dict[str, str]:
    """Size and time of a file that a name is the path of, or of those in such a folder that fit a pattern; they
    may be gigabytes."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        return {}
    files = sorted(path.glob(inside)) if path.is_dir() else [path]
    stats = {f"{name}/{f.relative_to(path).as_posix()}": f.stat() for f in files if f.is_file()}
    return {key: f"{stat.st_size} {stat.st_mtime_ns}" for key, stat in stats.items()}


def perform(train: str, job: dict, runs: str, receipt: str, inputs: str, project: str) -> str:
    """One training job, in a process of its own; at once where its receipt says that it is done.

    Returns the name of the receipt. `Failed` when what it wrote cannot be used; that is set aside, and the
    next call trains it again.
    """
    path, root, sources = Path(receipt), Path(runs), Sources(Path(project))
    before = known(path)
    if finished(before, inputs, root, sources):
        return path.stem
    with contextlib.suppress(Wrong):
        if damage(old := root / convert(before, Receipt).run):
            set_aside(old)
    module, _, function = train.partition(":")
    start = time.monotonic()
    result = getattr(importlib.import_module(module), function)(job, runs)
    run = root / result["run"]
    if wrong := damage(run):
        set_aside(run)
        raise Failed(f"wrote a damaged result, kept as {run}/*.damaged; the next call repeats it ({wrong})")
    files = [name for name in KEPT if (run / name).exists()]
    measured = {"seconds": time.monotonic() - start, "bytes": sum(f.stat().st_size for f in run.rglob("*"))}
    about = {"inputs": inputs, "files": files, "code": sources.record(loaded_files()), **measured}
    write_json(path, {**about, **{k: result[k] for k in RESULT}})
    return path.stem


@dataclasses.dataclass
class Outcome:
    """What training came to: job id -> what went wrong, and job id -> how it was killed and retried."""

    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    retried: dict[str, str] = dataclasses.field(default_factory=dict)


def train_missing(jobs: list[Job], index: Index, runner: Runner) -> Outcome:
    """Do the jobs that are not done, and first those that they build on, with `runner` (pool or cluster)."""
    outcome, left = Outcome(), with_followed(jobs)
    while left:
        waiting = {job.id for job in left}
        ready = [job for job in left if not waiting & {*job.after.values()}]
        left = [job for job in left if waiting & {*job.after.values()}]
        todo = []
        for job in ready:
            if why := next((w for j in job.follows.values() if (w := outcome.failed.get(j.id))), ""):
                other = next(j for j in job.follows.values() if j.id in outcome.failed)
                outcome.failed[job.id] = f"it builds on {other.label}, which failed: {why}"
            elif index.done(job) is None:
                todo.append(job)
        train_all(todo, index, runner, outcome)
    return outcome


def train_all(todo: list[Job], index: Index, runner: Runner, outcome: Outcome) -> None:
    """Do jobs of which none waits for another."""
    for number, answer in follow(runner, [index.request(job) for job in todo], "training", "run"):
        job = todo[number]
        if "error" in answer:
            outcome.failed[job.id] = answer["error"]
            remembered = known(index.receipt(job)) | {"job": job.label, "error": answer["error"]}
            write_json(index.receipt(job), remembered)
        elif note := retried(answer):
            outcome.retried[job.id] = f"{job.label}: {note}"


def lacking(missing: list[Job], failed: dict[str, str]) -> str:
    """The jobs that are missing, the first with its error."""
    first = next((job for job in missing if job.id in failed), missing[0])
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return f"{first.label}: {failed.get(first.id, 'not finished')}{more}"


def need_runs(
    jobs: list[Job], study: str, places: Places, slots: int = 1, train: str = TRAIN
) -> list[tuple[Job, Done]]:
    """Jobs with their finished runs; those that are missing are trained. RuntimeError names one that failed."""
    index = Index(study, places, train)
    failed = train_missing(jobs, index, functools.partial(pool.answers, slots=slots)).failed
    if lost := [job for job in jobs if job.id in failed]:
        raise RuntimeError(lacking(lost, failed))
    return [(job, index.done(job)) for job in jobs]
