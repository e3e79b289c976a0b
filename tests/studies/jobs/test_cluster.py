"""A real dask scheduler with worker processes on this machine: what is lost is done again elsewhere."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vlmlab import cli
from vlmlab.studies.jobs import cluster, cluster_check
from vlmlab.studies.jobs.worker import Request, environment
from vlmlab.studies.sections import Resources

pytest.importorskip("distributed")
JOBS = '''
import os, pathlib, time

def where():
    return os.getppid()

def steps(folder, gate):
    """Five steps, each remembered in a checkpoint; waits before the third until the gate is there."""
    path = pathlib.Path(folder)
    done = len(list(path.glob("step*")))
    for step in range(done, 5):
        while step == 2 and not os.path.exists(gate):
            (path / "waiting").write_text(f"{os.getppid()} {os.getpid()}")
            time.sleep(0.05)
        with open(path / "log", "a") as log:
            log.write(f"{step}\\n")
        (path / f"step{step}").touch()
    return "done"
'''


class Cluster:
    """A scheduler and its workers, each a process."""

    def __init__(self, folder: Path):
        self.folder, self.file, self.processes = folder, folder / "scheduler.json", []
        (folder / "cluster_jobs.py").write_text(JOBS)
        self.start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(self.file),
        )
        wait_for(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def start(self, *arguments: str) -> subprocess.Popen:
        paths = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            stderr=subprocess.DEVNULL,
            env=environment() | {"PYTHONPATH": paths},
            cwd=self.folder,
        )
        self.processes.append(process)
        return process

    def worker(self, name: str, *arguments: str) -> subprocess.Popen:
        """A worker without the nanny that would start it again."""
        return self.start(
            "worker",
            self.address,
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--name",
            name,
            "--local-directory",
            str(self.folder / name),
            *arguments,
        )

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two workers; the second offers a GPU and memory."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.worker("plain")
    made.worker("big", "--resources", "GPU=1 MEMORY=4e9")
    yield made
    made.stop()


@pytest.fixture
def request_for(tmp_path):
    def request_for(call, resources=None, **arguments):
        log = str(tmp_path / "logs/job.log")
        return Request("a job", f"cluster_jobs:{call}", arguments, log, resources or Resources())

    return request_for


def test_jobs_run_in_subprocesses_of_both_workers(two, request_for, tmp_path):
    with cluster.connect(str(two.file)) as client:
        client.wait_for_workers(2, timeout=60)
    found = dict(cluster.answers([request_for("where") for _ in range(12)], two.address, tmp_path))
    assert sorted(found) == list(range(12))
    assert {answer["result"] for answer in found.values()} == {p.pid for p in two.processes[1:]}


def test_a_job_goes_where_its_resources_are_or_is_refused_at_once(two, request_for, tmp_path):
    needs = [Resources(gpus=1, memory_gb=4), Resources(gpus=2), Resources(memory_gb=5), Resources(cores=2)]
    asked = [request_for("where", resources) for resources in needs]
    found = dict(cluster.answers(asked, str(two.file), tmp_path))
    assert found[0]["result"] == two.processes[2].pid
    assert found[1]["error"].startswith(
        "needs GPU=2, which no worker offers (they offer GPU=1 MEMORY=4e+09; "
        'nothing); start one with --resources "GPU=2"'
    )
    assert "MEMORY=5e+09" in found[2]["error"] and "CORES=2" in found[3]["error"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_job_ends_when_its_driver_does(two, tmp_path, how):
    arguments = {"folder": str(tmp_path), "gate": "never"}
    request = f"Request('a job', 'cluster_jobs:steps', {arguments}, 'log')"
    # a test run in the background ignores Ctrl-C, and its children would too
    code = (
        "import pathlib, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from vlmlab.studies.jobs.cluster import answers; from vlmlab.studies.jobs.worker import Request; "
        f"list(answers([{request}], '{two.address}', pathlib.Path('.')))"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL, env=environment()
    )
    wait_for((tmp_path / "waiting").exists)
    worker, job = map(int, (tmp_path / "waiting").read_text().split())
    driver.send_signal(how)
    assert driver.wait(30) != 0
    wait_for(lambda: not running(job))
    assert running(worker)


def test_a_study_on_the_workers(two, project):
    project.study(project.artefact("good"), project.artefact("broken", "1 / 0"))
    summary = project.reproduce(scheduler=two.address)
    assert {row.artefact: row.state for row in summary.rows} == {"good": "made", "broken": "failed"}
    assert summary.rows[1].detail == "ZeroDivisionError in cell 3 (In [3]): division by zero"
    assert len(project.calls()) == 2
    assert {row.state for row in project.reproduce(scheduler=two.address, only=["good"]).rows} == {"fresh"}


def test_a_killed_worker_loses_nothing(tmp_path, request_for):
    made = Cluster(tmp_path)
    try:
        workers = [made.worker("one"), made.worker("two")]
        folders = [tmp_path / f"run{i}" for i in range(3)]
        for folder in folders:
            folder.mkdir()
        asked = [request_for("steps", folder=str(f), gate=str(tmp_path / "gate")) for f in folders]
        found = {}
        thread = threading.Thread(
            target=lambda: found.update(cluster.answers(asked, made.address, tmp_path)), daemon=True
        )
        thread.start()
        wait_for(lambda: any((f / "waiting").exists() for f in folders))
        first = next(f for f in folders if (f / "waiting").exists())
        worker, job = map(int, (first / "waiting").read_text().split())
        (victim,) = [w for w in workers if w.pid == worker]
        victim.send_signal(signal.SIGKILL)
        wait_for(lambda: not running(job))  # its job dies with it
        (tmp_path / "gate").touch()
        thread.join(60)
        assert {answer["result"] for answer in found.values()} == {"done"} and len(found) == 3
        for folder in folders:  # went on from the checkpoint: no step twice, none left out
            assert (folder / "log").read_text().split() == list("01234")
    finally:
        made.stop()


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (
            "tcp://127.0.0.1:1",
            "no dask scheduler answers at tcp://127.0.0.1:1; start one with `dask scheduler`",
        ),
        ("nope.json", "there is no file nope.json"),
    ],
)
def test_a_scheduler_that_is_not_there(project, scheduler, words, monkeypatch, capsys):
    project.study(project.artefact("good"))
    monkeypatch.chdir(project.root)
    assert cli.main(["reproduce", "fake", "--scheduler", scheduler]) == 2
    err = capsys.readouterr().err
    (error,) = [line for line in err.splitlines() if line.startswith("vlmlab:")]  # beside the progress bar
    assert words in error


def test_workers_that_cannot_do_the_work(two, request_for, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "__version__", "9.9")
    with pytest.raises(ValueError, match=r"worker tcp://\S+ has vlmlab \S+, here it is 9.9"):
        next(cluster.answers([request_for("where")], two.address, tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr(Path, "touch", lambda path: None)
    monkeypatch.setattr(Path, "unlink", lambda path: None)
    with pytest.raises(ValueError, match=rf"does not see {tmp_path}; runs and project must lie on"):
        next(cluster.answers([request_for("where")], two.address, tmp_path))


def test_a_scheduler_without_workers(tmp_path, request_for, monkeypatch):
    made = Cluster(tmp_path)
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    try:
        with pytest.raises(ValueError, match="has no workers; start some with `dask worker tcp://"):
            next(cluster.answers([request_for("where")], made.address, tmp_path))
    finally:
        made.stop()


CHECKED = "jobqueue:\n  local:\n    cores: 1\n    memory: 1GB\n"


def test_check_of_a_cluster_file_runs_a_job(tmp_path, monkeypatch, capsys):
    """dask-jobqueue's `local` runs job scripts here: all but a batch system itself."""
    pytest.importorskip("dask_jobqueue")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CHECKED)
    assert cli.main(["cluster", "check", "c.yaml"]) == 0
    out = capsys.readouterr().out
    assert "-m distributed.cli.dask_worker tcp://" in out and "right: a job of one second ran on " in out
    assert "note: workers offer no resources" in out
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not valid YAML"),
        ("slurm: {}", "needs `jobqueue:` with one of slurm, pbs"),
        ("jobqueue: {slurm: {cores: 1, memroy: 1GB}}", "slurm has no option 'memroy'; it has name, cores"),
        (
            "jobqueue: {slurm: {cores: 1}}",
            "slurm.memory is missing; needed are cores, memory, per job of the batch system",
        ),
    ],
)
def test_check_of_a_wrong_file(tmp_path, text, words):
    pytest.importorskip("dask_jobqueue")
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        cluster_check.check(path, 1)


def test_check_without_a_batch_system(tmp_path, monkeypatch, capsys):
    pytest.importorskip("dask_jobqueue")
    path = tmp_path / "c.yaml"
    path.write_text(
        "jobqueue: {slurm: {cores: 8, processes: 1, memory: 64GB, job_extra_directives: [--gres=gpu:1]}}"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not cluster_check.check(path, 1)
    out = capsys.readouterr().out
    assert "#SBATCH --gres=gpu:1" in out and "a worker has 8 threads" in out and "--lifetime" in out
    assert "wrong: there is no sbatch here" in out
