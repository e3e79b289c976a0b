"""What is asked of dask and of batch systems, told by stand-ins for both: no scheduler runs here."""

import contextlib
import importlib
import logging
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vlmlab.paths import PACKAGE
from vlmlab.studies.jobs import batch_system, cluster, cluster_check
from vlmlab.studies.jobs.worker import Request
from vlmlab.studies.sections import Resources

distributed = pytest.importorskip("distributed")
LOCAL = {"worker-extra-args": ["--resources=GPU=1", "--lifetime=1h"]}


def request(label="a job", **resources):
    return Request(label, "somewhere:job", {}, "job.log", Resources(**resources))


# ------------------------------------------------------------------------------------------ a scheduler that runs


class Task:
    status = "finished"

    def __init__(self, key, answer):
        self.key, self.answer = key, answer

    def result(self):
        return self.answer


class Client:
    """Remembers what was asked of it; every task is done at once."""

    def __init__(self, offers=({},)):
        self.offers, self.submitted, self.cancelled = list(offers), [], []

    def scheduler_info(self, n_workers=5):
        """As dask's: five workers, unless all are asked for."""
        offers = self.offers if n_workers == -1 else self.offers[:n_workers]
        return {"workers": {i: {"resources": offer} for i, offer in enumerate(offers)}}

    def submit(self, function, asked, **options):
        self.submitted.append((function, asked, options))
        return Task(options["key"], {"result": asked.label})

    def cancel(self, futures, force=False):
        self.cancelled.append(([future.key for future in futures], force))


@pytest.fixture
def client(monkeypatch):
    made = Client([{}] * 5 + [{"GPU": 2.0, "CORES": 4.0, "MEMORY": 8e9}])
    monkeypatch.setattr(cluster, "connect", lambda scheduler: contextlib.nullcontext(made))
    monkeypatch.setattr(cluster, "check_workers", lambda client, folder: None)
    monkeypatch.setattr(distributed, "wait", lambda futures, *about: SimpleNamespace(done=futures[:1]))
    return made


def test_what_is_submitted_and_answered(client, tmp_path):
    asked = [request("one job"), request("big", cores=4, gpus=2, memory_gb=8), request("huge", gpus=3)]
    found = dict(cluster.answers(asked, "tcp://x:1", tmp_path))
    assert found[0] == {"result": "one job"} and found[1] == {"result": "big"}
    assert found[2]["error"] == (
        "needs GPU=3, which no worker offers (they offer GPU=2 CORES=4 MEMORY=8e+09; nothing); start one with "
        '--resources "GPU=3"'
    )
    (plain, big) = client.submitted
    assert plain[:2] == (cluster.perform, asked[0]) and re.fullmatch(r"one-job-[0-9a-f]{8}", plain[2]["key"])
    assert plain[2]["resources"] is None and plain[2]["retries"] == 2 and plain[2]["pure"] is False
    assert big[2]["resources"] == {"CORES": 4, "GPU": 2, "MEMORY": 8e9}
    assert client.cancelled == [([], True)]


def test_a_reader_that_stops_early_cancels_what_is_left(client, tmp_path):
    found = cluster.answers([request(f"job{i}") for i in range(3)], "tcp://x:1", tmp_path)
    assert next(found) == (0, {"result": "job0"})
    found.close()
    ((left, force),) = client.cancelled
    assert [key.partition("-")[0] for key in left] == ["job1", "job2"] and force


def test_silence_is_said_when_no_worker_is_left(client, tmp_path, monkeypatch):
    said, silent = [], iter([True, True, False])

    def wait(futures, timeout, when):
        assert (timeout, when) == (60, "FIRST_COMPLETED")
        if next(silent):
            raise TimeoutError
        return SimpleNamespace(done=futures)

    monkeypatch.setattr(distributed, "wait", wait)
    monkeypatch.setattr(cluster.progress, "write", said.append)
    info = client.scheduler_info
    gone = iter([False, False, True])  # at the start, at the first look, at the second
    monkeypatch.setattr(client, "scheduler_info", lambda **k: {"workers": {}} if next(gone) else info(**k))
    assert dict(cluster.answers([request()], "tcp://x:1", tmp_path)) == {0: {"result": "a job"}}
    assert said == ["no worker is connected any more; waiting for one (Ctrl-C stops)"]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("finished", {"result": 5, "seconds": 1.0}),
        ("cancelled", {"error": "cancelled on the scheduler", "seconds": 0.0}),
        ("error", {"error": "KeyError: 'first line'", "seconds": 0.0}),
    ],
)
def test_what_became_of_a_task(status, answer):
    result = {"result": 5, "seconds": 1.0}
    future = SimpleNamespace(status=status, result=lambda: result, exception=lambda: KeyError("first line"))
    assert cluster.answer_of(future) == answer
    future.exception = lambda: ValueError("one\ntwo")
    assert status != "error" or cluster.answer_of(future)["error"] == "ValueError: one"
    future.exception = lambda: ValueError()
    assert status != "error" or cluster.answer_of(future)["error"] == "ValueError: "


@pytest.mark.parametrize(
    ("needs", "asked"),
    [
        ({}, {}),
        ({"cores": 2}, {"CORES": 2}),
        ({"gpus": 1}, {"GPU": 1}),
        ({"memory_gb": 0.5}, {"MEMORY": 5e8}),
    ],
)
def test_resources_are_asked_of_dask_beyond_one_core(needs, asked):
    assert cluster.asked_of_dask(Resources(**needs)) == asked
    assert cluster.refusal(Resources(**needs), [asked]) == ""  # just as much as is there
    assert bool(cluster.refusal(Resources(**needs), [{}])) is bool(asked)
    less = {name: value * 0.9 for name, value in asked.items()}
    assert bool(cluster.refusal(Resources(**needs), [less, {}])) is bool(asked)


class Looking:
    """A client whose workers answer what they are told to."""

    scheduler = SimpleNamespace(address="tcp://x:1")

    def __init__(self, answer):
        self.answer, self.waited = answer, None

    def wait_for_workers(self, count, timeout):
        self.waited = (count, timeout)

    def run(self, function, *paths, on_error):
        assert function is cluster.look and on_error == "return" and all(os.path.exists(p) for p in paths)
        self.token = Path(paths[0])
        return {"tcp://w:1": self.answer(paths) if callable(self.answer) else self.answer}


def test_workers_are_asked_what_they_see(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right = Looking(lambda paths: cluster.look(*paths))
    assert cluster.check_workers(right, tmp_path) is None and right.waited == (1, 30)
    assert not right.token.exists() and right.token.parent == tmp_path
    blind = Looking(lambda paths: cluster.look(*paths) | {"sees": {paths[0]: True, paths[1]: False}})
    with pytest.raises(ValueError, match=rf"worker tcp://w:1 does not see {tmp_path}; runs and project"):
        cluster.check_workers(blind, tmp_path / ".")
    with pytest.raises(
        ValueError, match="worker tcp://w:1 cannot run vlmlab: ModuleNotFoundError: no vlmlab"
    ):
        cluster.check_workers(Looking(ModuleNotFoundError("no vlmlab")), tmp_path)
    assert cluster.look(str(tmp_path), "/nowhere")["sees"] == {str(tmp_path): True, "/nowhere": False}


# ------------------------------------------------------------------------------------------ a batch system's file


@pytest.mark.parametrize("system", ["slurm", "pbs", "lsf", "sge", "oar", "moab", "htcondor", "local"])
def test_systems_are_those_of_dask_jobqueue_with_their_commands(system, tmp_path, monkeypatch):
    jobqueue = pytest.importorskip("dask_jobqueue")
    name, command = batch_system.SYSTEMS[system]
    made = getattr(importlib.import_module(f"{jobqueue.__name__}.{system}"), name)
    assert (getattr(made.job_cls, "submit_command", None) or "bash") == command
    path = tmp_path / "c.yaml"
    path.write_text(f"jobqueue: {{{system}: {{cores: 2, memory: 1GB, worker_extra_args: [-x]}}}}")
    assert batch_system.read(path) == (
        system,
        {"cores": 2, "memory": "1GB", "worker-extra-args": ["-x"]},
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=f"there is no {command} here; run this where you submit jobs"):
        batch_system.Workers(path, 1, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobqueue: {slurm: , pbs: }", "needs `jobqueue:` with one of slurm, pbs, lsf"),
        ("jobqueue: {}", "needs `jobqueue:` with one of"),
        ("jobqueue: {slurm: }", "slurm.cores is missing; needed are cores, memory"),
        ("jobqueue: {slurm: {cores: 0, memory: 1GB}}", "slurm.cores must be a whole number above 0"),
        ("jobqueue: {slurm: {cores: 1, memory: ''}}", "slurm.memory must be a string, not empty"),
        ("a: " + "[" * 101 + "]" * 101 + "\nb: " + "{" * 100 + "}" * 100, "201 lists and tables, more than 200"),
        ("5", "the file must be a table with the fields jobqueue"),
    ],
)  # fmt: skip
def test_files_that_are_none(tmp_path, text, words):
    pytest.importorskip("dask_jobqueue")
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        batch_system.read(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_as_many_lists_as_are_legal_and_no_file(tmp_path):
    pytest.importorskip("dask_jobqueue")
    path = tmp_path / "c.yaml"
    lists = ", ".join(["[]"] * 197)
    path.write_text(f"other: [{lists}]\njobqueue: {{slurm: {{cores: 1, memory: 1GB}}}}")
    assert batch_system.read(path)[0] == "slurm"
    with pytest.raises(FileNotFoundError, match=r"there is no file \S+nope.yaml; notebooks/slurm.yaml shows"):
        batch_system.read(tmp_path / "nope.yaml")


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        ([], ""),
        (["a", "b"], "the batch system took no job: a"),
        (
            ["first", "Command exited\nstdout:\n\nstderr:\nsbatch: error:\n no account\n"],
            "the batch system took no job: sbatch: error: no account",
        ),
    ],
)
def test_what_a_batch_system_said(problems, said):
    assert batch_system.refusal(problems) == said


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:5", "listens on tcp://127.0.0.1:5, on this machine alone"),
        (
            "tcp://10.0.0.1:5",
            "listens at tcp://10.0.0.1:5 for the workers on the nodes; who reaches this port",
        ),
    ],
)
def test_where_the_scheduler_listens(address, words):
    assert words in batch_system.listens(SimpleNamespace(scheduler_address=address))


def test_what_dask_logs_is_kept_and_not_printed(capfd):
    log = logging.getLogger("distributed.deploy")
    before = (log.handlers, log.propagate)
    with batch_system.quiet() as problems:
        log.warning("only a warning")
        log.error("%s failed", "it")
        try:
            raise RuntimeError("behind it")
        except RuntimeError:
            log.exception("told with its error")
    assert problems == ["it failed", "behind it"]
    assert (log.handlers, log.propagate) == before and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("system", "own", "extra"),
    [("slurm", {}, []), ("local", {"host": "127.0.0.1"}, ["--host", "127.0.0.1"])],
)
def test_what_dask_jobqueue_is_given(tmp_path, monkeypatch, system, own, extra):
    """The options of the file over dask's own, no dashboard, and on this machine alone what it starts itself."""
    pytest.importorskip("dask_jobqueue")
    import dask

    seen = []

    class Made:
        def __init__(self):
            seen.append(dask.config.get(f"jobqueue.{system}"))
            loop = SimpleNamespace(set_exception_handler=lambda handler: setattr(self, "handler", handler))
            self.loop = SimpleNamespace(asyncio_loop=loop)

        def close(self):
            seen.append("closed")
            raise AssertionError("of dask, about a job that was not taken")

    home = importlib.import_module(f"dask_jobqueue.{system}")
    monkeypatch.setattr(home, batch_system.SYSTEMS[system][0], Made)
    path = tmp_path / "c.yaml"
    options = "cores: 2, memory: 1GB, worker_extra_args: [-x], scheduler-options: {port: 5}"
    path.write_text(f"jobqueue: {{{system}: {{{options}}}}}")
    before = dask.config.get(f"jobqueue.{system}")
    with batch_system.cluster_of(path) as made:
        made.handler(None, {"message": "lost", "exception": ValueError("why")})
        made.handler(None, {"message": "lost"})
        assert made.problems == ["why", "lost"] and made.system == system
    given, last = seen
    none = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    assert given["scheduler-options"] == none | own | {"port": 5} and last == "closed"
    arguments = ["-x", "--no-dashboard", "--dashboard-address", "127.0.0.1:0", *extra]
    assert given["worker-extra-args"] == arguments and (given["cores"], given["memory"]) == (2, "1GB")
    assert {*before} <= {*given} and dask.config.get(f"jobqueue.{system}") == before


def test_a_file_that_dask_jobqueue_does_not_take(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")

    def refuse():
        raise TypeError("no such thing")

    monkeypatch.setattr(importlib.import_module("dask_jobqueue.slurm"), "SLURMCluster", refuse)
    (tmp_path / "c.yaml").write_text("jobqueue: {slurm: {cores: 1, memory: 1GB}}")
    with pytest.raises(ValueError, match=r"c\.yaml: dask-jobqueue cannot start from it: no such thing"):
        with batch_system.cluster_of(tmp_path / "c.yaml"):
            pass


def test_workers_are_submitted_once_and_end_with_the_work(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    (tmp_path / "c.yaml").write_text("jobqueue: {local: {cores: 1, memory: 1GB}}")
    events, said = [], []
    made = SimpleNamespace(scheduler_address="tcp://127.0.0.1:5", scale=lambda jobs: events.append(jobs))

    @contextlib.contextmanager
    def cluster_of(path):
        events.append(path.name)
        yield made
        events.append("closed")

    monkeypatch.setattr(batch_system, "cluster_of", cluster_of)
    monkeypatch.setattr(batch_system.Workers, "wait_for_one", lambda self: events.append("waited"))
    monkeypatch.setattr(batch_system, "answers", lambda *asked: asked)
    monkeypatch.setattr(batch_system.progress, "write", said.append)
    with batch_system.Workers(tmp_path / "c.yaml", 7, tmp_path) as workers:
        for _ in range(2):
            assert workers(["a job"]) == (["a job"], "tcp://127.0.0.1:5", tmp_path)
        assert events == ["c.yaml", 7, "waited"]
    assert events[-1] == "closed" and len(said) == 1
    assert said[0].endswith("on this machine alone; submitting 7 workers to local")


class Workers(batch_system.Workers):
    """Without a file."""

    def __init__(self, cluster):
        self.path, self.cluster = Path("c.yaml"), cluster


class Queue:
    """A dask client in whose cluster a worker starts after a number of looks."""

    def __init__(self, cluster, set_as_default=True):
        assert not set_as_default
        self.cluster = cluster

    def __enter__(self):
        return self

    def __exit__(self, *what):
        pass

    def scheduler_info(self):
        self.cluster.looks -= 1
        return {"workers": {} if self.cluster.looks >= 0 else {"w": 1}}


@pytest.fixture
def queue(monkeypatch):
    """Time passes by half a minute from one look to the next."""
    now, said = [0.0], []
    monkeypatch.setattr(distributed, "Client", Queue)
    clock = SimpleNamespace(sleep=lambda s: now.append(now[-1] + 30.5), monotonic=lambda: now[-1])
    for module in (batch_system, cluster_check):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(batch_system.progress, "write", said.append)
    return said


@pytest.mark.parametrize(("looks", "times"), [(0, 0), (2, 0), (3, 1), (5, 2)])
def test_a_long_wait_is_said_once_a_minute(queue, looks, times):
    Workers(SimpleNamespace(problems=[], looks=looks)).wait_for_one()
    words = "no worker has started yet; the queue decides when (Ctrl-C stops)"
    assert queue == [words] * times


def test_a_refused_worker_is_waited_for_no_longer(queue):
    with pytest.raises(
        ValueError, match=r"c.yaml: the batch system took no job: no; `vlmlab cluster check c"
    ):
        Workers(SimpleNamespace(problems=["no"], looks=9)).wait_for_one()


# ---------------------------------------------------------------------------------------------- cluster check


@pytest.mark.parametrize(
    ("system", "command", "arguments"),
    [
        ("slurm", "squeue", "-h -o %T, %r -j 17 18"),
        ("pbs", "qstat", "17 18"),
        ("sge", "qstat", "-j 17 18"),
        ("lsf", "bjobs", None),
    ],
)
def test_a_worker_that_does_not_connect(queue, tmp_path, monkeypatch, system, command, arguments):
    """What the queue says of its jobs is told, where it can be asked."""
    (tmp_path / command).write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    scaled, jobs = [], {i: SimpleNamespace(job_id=id) for i, id in enumerate((17, 18, None))}
    made = SimpleNamespace(
        scale=lambda jobs: scaled.append(jobs), problems=[], looks=99, workers=jobs, scheduler_address="tcp://x:1"
    )  # fmt: skip
    said = cluster_check.start(made, system, 45)
    assert scaled == [1] and made.looks == 97
    assert said.startswith("job 17, 18 was taken, but no worker connected to tcp://x:1 within 45 s.")
    assert (f" The queue says: {arguments}. If it waits" in said) is (arguments is not None)
    assert ("queue says" in said) is (arguments is not None)


def test_a_worker_that_connects_is_refused_or_never_heard_of(queue):
    made = SimpleNamespace(scale=lambda jobs: None, problems=[], looks=1, workers={})
    assert cluster_check.start(made, "slurm", 60) == ""
    made.looks, made.problems = 9, ["no"]
    assert cluster_check.start(made, "slurm", 60) == "the batch system took no job: no"
    made.looks, made.problems = 9, []
    assert cluster_check.start(made, "slurm", 60) == "the batch system took no job and does not say why"


def test_an_empty_queue_means_that_the_job_has_ended(queue, tmp_path, monkeypatch):
    for text, words in (("", "nothing, so it has ended"), ("echo lost >&2", "lost")):
        (tmp_path / "squeue").write_text(f"#!/bin/sh\n{text}\nexit 1\n")
        (tmp_path / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        jobs = {0: SimpleNamespace(job_id=17)}
        made = SimpleNamespace(
            scale=lambda jobs: None, problems=[], looks=9, workers=jobs, scheduler_address="tcp://x:1"
        )
        assert f"within 1 s. The queue says: {words}. If" in cluster_check.start(made, "slurm", 1)


@pytest.mark.parametrize(
    ("system", "options", "script", "words"),
    [
        ("slurm", LOCAL, "--nthreads 1", []),
        ("local", {"worker-extra-args": ["--resources=GPU=1"]}, "", []),
        ("slurm", LOCAL, "dask worker --nthreads 2 --memory", ["a worker has 2 threads, so it runs 2 jobs"]),
        ("local", {}, "", ["workers offer no resources"]),
        ("slurm", {"worker-extra-args": ["--lifetime", 5]}, "", ["workers offer no resources"]),
        ("slurm", {"worker-extra-args": ["--resources"]}, "", ["workers are killed at the wall time"]),
        ("pbs", {"worker-extra-args": None}, "--nthreads 8", ["8 threads", "no resources", "wall time"]),
    ],
)
def test_what_is_legal_but_seldom_meant(system, options, script, words):
    notes = cluster_check.advice(system, options, script)
    assert len(notes) == len(words) and all(w in note for w, note in zip(words, notes))


@pytest.mark.parametrize(
    ("answer", "right", "said"),
    [
        ({"result": "node1 (2 cores)", "seconds": 1.04}, True, "right: a job of one second ran on node1 (2 cores) in 1.0 s"),
        ({"error": "lost", "seconds": 0.0}, False, "wrong: lost"),
        (OSError("no way there"), False, "wrong: no way there"),
        (ValueError("no worker"), False, "wrong: no worker"),
    ],
)  # fmt: skip
def test_one_job_is_tried(monkeypatch, capsys, tmp_path, answer, right, said):
    asked = []

    def answers(requests, address, folder):
        asked.append((requests[0].call, requests[0].log, address, folder))
        if isinstance(answer, Exception):
            raise answer
        yield 0, answer

    monkeypatch.setattr(cluster_check, "answers", answers)
    assert cluster_check.try_job("tcp://x:1", tmp_path) is right
    assert capsys.readouterr().out == f"{said}\n"
    call = "vlmlab.studies.jobs.cluster_check:one_second"
    assert asked == [(call, str(tmp_path / "job.log"), "tcp://x:1", tmp_path)]


def test_the_job_says_where_it_runs(monkeypatch):
    slept = []
    monkeypatch.setattr(cluster_check, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 5}, raising=False)
    version = ".".join(map(str, sys.version_info[:3]))
    assert cluster_check.one_second() == f"{cluster_check.socket.gethostname()} (3 cores, Python {version})"
    assert slept == [1]


def test_workers_load_this_vlmlab():
    """The folder above the package is first on their path, and what they print is UTF-8."""
    from vlmlab.studies.jobs.worker import environment

    found = environment()
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(PACKAGE.parent)
    assert (found["PYTHONUTF8"], found["TQDM_DISABLE"]) == ("1", "1")
