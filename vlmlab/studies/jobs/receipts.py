"""Training jobs of a study: which are done, and doing the rest.

Each job leaves a receipt, `runs/<study>/jobs/<id>.json`: the run folder that it ended in, with digests of
what went in (model and data files, the code that trains) and of what came out. While nothing changed, no
torch is needed to find that everything is there. Any doubt only means that the job is handed to `vlmlab.fit`
again, whose own key decides whether there is something to train; receipts can be deleted at any time. The
process that trains writes the receipt itself, so a driver that was killed meanwhile loses nothing.
"""

import dataclasses
import importlib
import importlib.util
from pathlib import Path

from ...files import write_json
from ..driver.modules import Modules
from ..manifest import Job
from ..places import Places, data_digests, digest, known
from . import damage
from .pool import Runner, follow, retried
from .worker import Failed, Request

TRAIN = "vlmlab.studies.jobs.train:train"
RESULT = ("run", "key", "status", "digest")


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished job: its run folder (relative to runs/), its key, a digest of its numbers and weights."""

    run: str
    key: str
    digest: str


def finished(receipt: dict, inputs: str, runs: Path) -> Done | None:
    """The run of a receipt; None when it is of other inputs, missing, unfinished or damaged."""
    if receipt.get("inputs") != inputs or not {*RESULT, "files"} <= receipt.keys():
        return None
    path = runs / receipt["run"]
    info = known(path / "run.json")
    if any(info.get(k) != receipt[k] for k in ("key", "status")) or damage.of_run(path):
        return None
    if not all((path / name).exists() for name in receipt["files"]):
        return None
    return Done(receipt["run"], receipt["key"], receipt["digest"])


class Index:
    """The jobs of a study that are done."""

    def __init__(self, study: str, places: Places, train: str = TRAIN):
        self.places, self.train = places, train
        self.folder = places.runs / study
        self.codes = {}

    def receipt(self, job: Job) -> Path:
        return self.folder / "jobs" / f"{job.id}.json"

    def done(self, job: Job) -> Done | None:
        """The finished run of a job; None when it is missing, damaged, or of other code or data."""
        receipt = known(self.receipt(job))
        return finished(receipt, self.inputs(job), self.places.runs) if receipt else None

    def error(self, job: Job) -> str:
        """How its last attempt failed, if it did."""
        return known(self.receipt(job)).get("error", "")

    def request(self, job: Job) -> Request:
        """A job for a worker process."""
        arguments = {
            "train": self.train,
            "job": job.spec,
            "runs": str(self.places.runs),
            "receipt": str(self.receipt(job)),
            "inputs": self.inputs(job),
        }
        log = self.folder / "logs" / f"{job.id}.log"
        return Request(job.label, f"{__name__}:perform", arguments, str(log), job.resources)

    def inputs(self, job: Job) -> str:
        """Digest of what a job reads: embedded model and data, code. Others go by their names."""
        data = self.places.data
        files = data_digests(data, ["models/" + job.model["name"], job.task.split("/")[0]])
        for name in (job.model["name"], job.model.get("pretrained", "")):
            if name and (path := Path(name)).is_file():
                files[name] = f"{path.stat().st_size} {path.stat().st_mtime_ns}"  # may be gigabytes
        return digest([files, self.code(job.method)])

    def code(self, method: str) -> dict[str, str]:
        """The modules that train and evaluate a method."""
        if method not in self.codes:
            name = self.train.partition(":")[0]
            spec = importlib.util.find_spec(name)
            text = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
            modules = Modules(self.places.package, {"vlmlab.methods": [method]})
            self.codes[method] = modules.digests(text, name if name.startswith("vlmlab.") else "")
        return self.codes[method]


def perform(train: str, job: dict, runs: str, receipt: str, inputs: str) -> str:
    """One training job, in a process of its own; at once where its receipt says that it is done.

    Returns the name of the receipt. `Failed` when what it wrote cannot be used; that is set aside, and the
    next call trains it again.
    """
    path, root = Path(receipt), Path(runs)
    before = known(path)
    if finished(before, inputs, root):
        return path.stem
    if "run" in before and damage.of_run(root / before["run"]):
        damage.set_aside(root / before["run"])
    module, _, function = train.partition(":")
    result = getattr(importlib.import_module(module), function)(job, runs)
    run = root / result["run"]
    if wrong := damage.of_run(run):
        damage.set_aside(run)
        raise Failed(f"wrote a damaged result, kept as {run}/*.damaged; the next call repeats it ({wrong})")
    files = [name for name in damage.RUN_FILES if (run / name).exists()]
    write_json(path, {"inputs": inputs, "files": files, **{k: result[k] for k in RESULT}})
    return path.stem


@dataclasses.dataclass
class Outcome:
    """What training came to: job id -> what went wrong, and job id -> how it was killed and retried."""

    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    retried: dict[str, str] = dataclasses.field(default_factory=dict)


def train_missing(jobs: list[Job], index: Index, runner: Runner) -> Outcome:
    """Do the jobs that are not done, with `runner` (pool.answers or cluster.answers)."""
    todo = [job for job in jobs if index.done(job) is None]
    outcome = Outcome()
    for number, answer in follow(runner, [index.request(job) for job in todo], "training", "run"):
        job = todo[number]
        if "error" in answer:
            outcome.failed[job.id] = answer["error"]
            remembered = known(index.receipt(job)) | {"job": job.label, "error": answer["error"]}
            write_json(index.receipt(job), remembered)
        elif note := retried(answer):
            outcome.retried[job.id] = f"{job.label}: {note}"
    return outcome
