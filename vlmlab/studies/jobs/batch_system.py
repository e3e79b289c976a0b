"""Workers by a batch system: a dask-jobqueue file, what it may hold, and workers that last as long as the work.

The file is what dask itself reads from ~/.config/dask/jobqueue.yaml, with one batch system; notebooks/slurm.yaml
is one to start from. The scheduler runs in this process. Nodes have to reach it, so with a batch system it
listens on all addresses of this machine unless `interface` or `scheduler-options: {host: ...}` says which; what
`local` starts, and every dashboard, is on this machine alone.
"""

import contextlib
import importlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ... import progress
from ...nearest import hint
from ...schema import Count, Record, Text, Wrong, convert, described, text_of
from .cluster import NEEDED, answers
from .pool import Answers
from .worker import Request

SYSTEMS = {  # name in the file -> (class of dask-jobqueue, the command it submits with)
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
    "sge": ("SGECluster", "qsub"),
    "oar": ("OARCluster", "oarsub"),
    "moab": ("MoabCluster", "msub"),
    "htcondor": ("HTCondorCluster", "condor_submit"),
    "local": ("LocalCluster", "bash"),
}
HERE = "127.0.0.1"
MOST = 200  # lists and tables in a file: yaml takes minutes over thousands, one in the other
NO_DASHBOARD = ("--no-dashboard", "--dashboard-address", f"{HERE}:0")
LOGS = ("tornado.application", "distributed", "distributed.deploy", "distributed.core", "asyncio")


class JobQueue(Record):
    """What is read of a dask configuration: one batch system with its options."""

    jobqueue: described(
        dict[Literal[tuple(SYSTEMS)], dict[str, object] | None],
        f"a table of one of {', '.join(SYSTEMS)}",
        min_length=1,
        max_length=1,
    )


class PerJob(Record):
    """The options that every batch system needs, and those that are extended here."""

    cores: Count
    memory: Text
    walltime: described(str, 'a string in quotes, such as "12:00:00"') | None = None
    worker_extra_args: described(list[str], "a list of strings") | None = None
    scheduler_options: described(dict[str, object], "a table") | None = None


def read(path: Path) -> tuple[str, dict]:
    """The batch system of a file and its options. ValueError or FileNotFoundError names file and option."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; notebooks/slurm.yaml shows one")
    try:
        import dask
        import dask_jobqueue  # noqa: F401  (fills dask.config with the options that there are)
        import yaml
    except ImportError as error:
        raise ValueError(f"a batch system {NEEDED}") from error
    text = text_of(path)
    if (many := text.count("[") + text.count("{")) > MOST:
        raise ValueError(
            f"{path} is not valid YAML for a batch system: {many} lists and tables, more than {MOST}"
        )
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError(
                f"{path} has aliases (*name), which can stand for any amount; write the values out"
            )
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {error or 'it is nested too deep'}") from error
    try:
        ((system, options),) = convert(found, JobQueue).jobqueue.items()
    except Wrong as error:
        raise ValueError(
            f"{path} needs `jobqueue:` with one of {', '.join(SYSTEMS)} below it, as in "
            f"`jobqueue: {{slurm: {{cores: 1, memory: 8GB}}}}`; {error.field or 'the file'} {error}"
        ) from error
    legal = dask.config.get(f"jobqueue.{system}")
    options = {key.replace("_", "-"): value for key, value in (options or {}).items()}
    if unknown := [key for key in options if key not in legal]:
        meant = hint(unknown[0], legal)
        raise ValueError(f"{path}: {system} has no option {unknown[0]!r}{meant}; it has {', '.join(legal)}")
    try:
        convert({key.replace("-", "_"): value for key, value in options.items()}, PerJob)
    except Wrong as error:
        field = error.field.replace("_", "-")
        raise ValueError(f"{path}: {system}.{field} {error}, per job of the batch system") from error
    return system, options


@contextlib.contextmanager
def cluster_of(path: Path) -> Iterator:
    """The dask-jobqueue cluster of a file, with its scheduler and no worker yet; gone with what it submitted."""
    import dask

    system, options = read(path)
    name = SYSTEMS[system][0]
    own = {"dashboard": False, "dashboard_address": f"{HERE}:0"} | (options.get("scheduler-options") or {})
    extra = [*(options.get("worker-extra-args") or []), *NO_DASHBOARD]
    if system == "local":
        own, extra = {"host": HERE} | own, [*extra, "--host", HERE]
    usual = dask.config.get(f"jobqueue.{system}")
    settings = {
        f"jobqueue.{system}": usual | options | {"scheduler-options": own, "worker-extra-args": extra}
    }
    make = getattr(importlib.import_module(f"dask_jobqueue.{system}"), name)
    with quiet() as problems, dask.config.set(settings):
        try:
            cluster = make()
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            raise ValueError(f"{path}: dask-jobqueue cannot start from it: {error}") from error
        handler = lambda loop, context: problems.append(str(context.get("exception") or context["message"]))
        cluster.loop.asyncio_loop.set_exception_handler(handler)
        cluster.problems, cluster.system = problems, system
        try:
            yield cluster
        finally:
            with contextlib.suppress(
                AssertionError
            ):  # dask's, about a job that the batch system did not take
                cluster.close()


class Kept(logging.Handler):
    """Keeps what dask logs, with the errors behind it, instead of printing tracebacks."""

    def __init__(self, problems: list[str]):
        super().__init__(logging.ERROR)
        self.problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.problems.append(str(error or record.getMessage()))


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """What dask would print about a failed submission goes into a list."""
    problems: list[str] = []
    loggers, kept = [logging.getLogger(name) for name in LOGS], Kept(problems)
    before = [(log, log.handlers, log.propagate) for log in loggers]
    for log in loggers:
        log.handlers, log.propagate = [kept], False
    try:
        yield problems
    finally:
        for log, handlers, propagate in before:
            log.handlers, log.propagate = handlers, propagate


def refusal(problems: list[str]) -> str:
    """What a batch system said when it took no job, "" as long as it said nothing."""
    told = next((p for p in problems if "stderr:" in p), problems[0] if problems else "")
    said = told.rpartition("stderr:")[2]
    return f"the batch system took no job: {' '.join(said.split())}" if told else ""


def listens(cluster) -> str:
    """Where the scheduler is reached, for the user to know."""
    address = cluster.scheduler_address
    if HERE in address:
        return f"the scheduler listens on {address}, on this machine alone"
    return (
        f"the scheduler listens at {address} for the workers on the nodes; who reaches this port can run code as "
        "you, so narrow it with `interface` where others share the network"
    )


class Workers:
    """Runs jobs on the workers of a dask-jobqueue file; the first jobs submit them, `close` ends them."""

    def __init__(self, path: Path, count: int, folder: Path):
        self.path, self.count, self.folder = path, count, folder
        self.stack, self.cluster = contextlib.ExitStack(), None
        self.system = read(path)[0]
        command = SYSTEMS[self.system][1]
        if not shutil.which(command):
            raise ValueError(
                f"there is no {command} here; run this where you submit jobs, such as a login node"
            )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *what) -> None:
        self.stack.close()

    def __call__(self, requests: list[Request]) -> Answers:
        """See `pool.answers`."""
        if self.cluster is None:
            self.cluster = self.stack.enter_context(cluster_of(self.path))
            progress.write(f"{listens(self.cluster)}; submitting {self.count} workers to {self.system}")
            self.cluster.scale(jobs=self.count)
            self.wait_for_one()
        return answers(requests, self.cluster.scheduler_address, self.folder)

    def wait_for_one(self) -> None:
        """Until the queue lets a worker start, however long that takes. ValueError when it takes no job."""
        from distributed import Client

        said = time.monotonic()
        with Client(self.cluster, set_as_default=False) as client:
            while not client.scheduler_info()["workers"]:
                if why := refusal(self.cluster.problems):
                    raise ValueError(f"{self.path}: {why}; `vlmlab cluster check {self.path}` tries it alone")
                if time.monotonic() - said > 60:
                    said = time.monotonic()
                    progress.write("no worker has started yet; the queue decides when (Ctrl-C stops)")
                time.sleep(0.5)
