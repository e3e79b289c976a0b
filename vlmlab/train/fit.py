"""`fit`: train a learner on a task, in a run folder, resumable; it never knows which one it trains."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

import torch

from .. import processes, registry
from ..git import git_state
from ..learner import Learner
from ..models.load import check_device, check_precision
from ..schema import Seed, Workers
from ..tasks.own.tasks import folder_name
from ..tasks.task import Task
from . import imported as imports
from .key import job_of, key_of
from .loop import Loop, seed_all
from .opening import by_role, described, standing
from .records import damaged
from .run import Run, name_of
from .run_folder import RunFolder

NAME = r"\w[\w +=,.()-]{0,99}"


def fit(
    method: str | type[Learner],
    models,
    task: Task,
    *,
    out: str | Path = "runs",
    study: str = "adhoc",
    variant: str = "",
    seed: int | None = None,
    workers: int = 0,
    device: str | None = None,
    precision: str | None = None,
    imported: str | Path | None = None,
    **settings,
) -> Run:
    """Train `method` on `task`; returns the finished run.

    method: a name (`vlmlab methods`) or a class of your own. models: the frozen model it stands on, or
    models by role, {"student": small, "teacher": big}; a finished Run may stand for what it trained; {} for
    what starts from nothing, which then needs device and precision where they are not the CPU and fp32. What
    is given is never changed. settings: fields of the method's Options (epochs, lr, ...) and Config. seed:
    of initial values, order and augmentation; the task's by default. variant: a name for these settings in
    results. A finished run is returned at once, an interrupted one goes on after its last saved state and
    ends with the same numbers. Under torchrun the processes share each batch. imported: a checkpoint of the
    authors' own code (model.pth.tar-N of CoOp, MaPLe, PromptSRC, MMRL or MMRL++) that the run takes over instead
    of training.

    Raises ValueError for unknown or wrong settings, FloatingPointError for a loss that is not finite.

    >>> run = vlmlab.fit("aligned_norm", vlm, task, epochs=3, w_proj=0.1)  # `vlmlab methods aligned_norm`
    >>> run.model.logits(images)  # (batch, class), scaled cosines
    >>> vlmlab.fit("clip", {}, vlmlab.task("emoji/pretraining", protocol="retrieval"), out="runs")
    """
    cls = registry.find(method)
    config, options = registry.settings(cls, settings)
    models = by_role(cls, models)
    seed = registry.checked("seed", task.seed if seed is None else seed, Seed)
    workers = registry.checked("workers", workers, Workers)
    study, variant = named("study", study), named("variant", variant, empty=True)
    with processes.together():
        job = job_of(cls, config, options, seed, models, task)
        if imported is not None:
            job["imported"] = imports.digest(imported)
        labels = {"study": study, "method": job["method"], "variant": variant, "task": task.id}
        labels |= {"protocol": task.protocol, "shots": task.shots, "seed": seed}
        path = place(Path(out), study, job, task)
        done = processes.count() == 1 and is_finished(path)  # also in a folder that is only read
        with contextlib.nullcontext() if done else held(path):
            if not is_finished(path):
                about = {"job": job, "labels": labels, "config": registry.plain(config)}
                about |= {"models": described(models, path)}
                with resting(models):
                    learner = built(cls, models, task, config, seed, device, precision)
                    learner.workers = workers
                    if imported is not None:
                        imports.adopt(learner, imported)
                    Training(path, learner, task, options, about).run()
        processes.wait()
        return Run(path).attach(models, task, cls, config)


def classes_of(task: Task) -> list | None:
    """[names, template] of what a task tells apart, if it has classes."""
    return [list(task.classes.names), task.classes.template] if task.classes else None


def place(out: Path, study: str, job: dict, task: Task) -> Path:
    """The folder of a run: below `out`, whatever study, method and task are called."""
    names = [study, job["method"], folder_name(task.id)]
    return out.joinpath(
        *(re.sub(r"[^\w<>+-]+", ".", name).strip(".")[:100] or "_" for name in names), key_of(job)
    )


def named(field: str, value: object, empty: bool = False) -> str:
    """A name for folders and results. ValueError for what is none, such as a path."""
    if isinstance(value, str) and (re.fullmatch(NAME, value) or (empty and not value)):
        return value
    raise ValueError(
        f"{field} must be a name of at most 100 letters, digits, spaces and - + = , . _ ( ), not a path; it is {value!r}"
    )


def is_finished(path: Path) -> bool:
    """Whether a run is done. ValueError when its record is damaged or another run's."""
    if not os.path.lexists(path / "run.json"):
        return False
    run = Run(path)
    if run.key != path.name:
        raise damaged(path / "run.json", f"it is of the run {run.key}")
    return run.status == "finished"


@contextlib.contextmanager
def held(path: Path):
    """Others that want the same run wait until this one is done; processes of one training belong together."""
    if processes.rank():
        processes.wait()
        yield
        return
    with RunFolder(path).held():
        processes.wait()
        yield


@contextlib.contextmanager
def resting(models: dict):
    """What finished runs trained stands still meanwhile, like any other model that is given."""
    trained = [m.model for m in models.values() if isinstance(m, Run)]
    parameters = [p for learner in trained for p in learner.trainable().values()]
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def built(cls, models: dict, task: Task, config, seed: int, device, precision) -> Learner:
    """The learner before its first step, in training mode."""
    seed_all(seed)
    learner = cls.build({role: standing(m) for role, m in models.items()}, classes_of(task), config)
    if not models:
        learner.to(check_device(device))
        learner.precision = check_precision(precision or "fp32", learner.device)
    elif device or precision:
        raise ValueError("device and precision are those of the models; give them to vlmlab.load")
    learner.check_given()
    learner.train()
    for model in learner.loaded:
        model.eval()  # what a run trained; other models stay so by themselves
    return learner


class Training:
    """One run in progress: its folder, its record, its loop."""

    def __init__(self, path: Path, learner: Learner, task: Task, options: object, about: dict):
        self.folder, self.learner, self.task = RunFolder(path), learner, task
        job, labels = about["job"], about["labels"]
        self.stages = learner.stages(task, options, job["seed"])
        title = f"{name_of(labels)} {labels['task']} seed {labels['seed']}"
        self.loop = Loop(learner, self.stages, job["seed"], self.folder, title)
        self.record = {
            **about,
            "key": key_of(job),
            "task": task.arguments,
            "classes": classes_of(task),
            "differs": learner.differs,
            "stages": [[stage.name, stage.steps] for stage in self.stages],
            "prepared": {},
            "device": device_name(learner.device),
            "versions": versions(),
            "git": git_state(),
            "provenance": task.provenance,
            "started": now(),
            "status": "running",
        }

    def run(self) -> None:
        """From the last saved state to the end; run.json tells how it went."""
        if self.loop.resume():
            self.record["prepared"] = self.folder.info()["prepared"]
        else:
            self.folder.clear_log()
            self.record["prepared"] = self.learner.prepare(self.task)
        self.learner.prepared = self.record["prepared"]
        self.write(self.record)
        try:
            self.loop.run()
            if not processes.rank():
                own = {k: v.detach().cpu() for k, v in self.learner.own().items()}
                self.folder.write_own(own, {k: self.record[k] for k in ("key", "models", "config")})
        except BaseException as e:
            self.stopped(e)
            raise
        seconds, steps = self.loop.seconds, sum(stage.steps for stage in self.stages)
        self.write(
            self.record
            | {"status": "finished", "finished": now(), "steps": steps, "seconds": seconds}
            | {"log": self.folder.log.hexdigest()}
        )
        if not processes.rank():
            self.folder.state.unlink(missing_ok=True)

    def write(self, record: dict) -> None:
        if not processes.rank():
            self.folder.write_info(record)

    def stopped(self, e: BaseException) -> None:
        """Keep the log up to here to read; tell run.json or, after Ctrl-C, the user."""
        where = ""
        with contextlib.suppress(OSError, ValueError):  # a full disk must not hide what happened first
            where = self.loop.stopped()
        with contextlib.suppress(OSError):
            if isinstance(e, Exception):
                self.write(self.record | {"status": "failed", "error": f"{type(e).__name__}: {e}"})
        if isinstance(e, KeyboardInterrupt) and not processes.rank():
            said = f"stopped; {where} are kept in {self.folder.path}, the same call goes on from there"
            print(said, file=sys.stderr)


def device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def versions() -> dict[str, str]:
    """Of Python, vlmlab and what the numbers come from."""
    from .. import __version__

    names = {"torch": "torch", "open_clip": "open_clip_torch", "torchvision": "torchvision"}
    return {
        "python": platform.python_version(),
        "vlmlab": __version__,
        **{name: importlib.metadata.version(package) for name, package in names.items()},
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
