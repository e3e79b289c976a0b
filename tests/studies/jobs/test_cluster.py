"""A real dask scheduler with worker processes on this machine: what is lost is done again elsewhere."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from forked import running, wait_for

from vlmlab import cli
from vlmlab.studies.jobs import batch_system, cluster, cluster_check
from vlmlab.studies.jobs.worker import Request, environment
from vlmlab.studies.sections import Resources

distributed = pytest.importorskip("distributed")
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
        wait_for(lambda: self.file.exists() and self.file.read_text())
        self.address = json.loads(self.file.read_text())["address"]
        with distributed.Client(self.address, timeout=60, set_as_default=False):
            pass  # a busy machine may take longer for the first answer than a user is made to wait

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
    assert "the scheduler listens on tcp://127.0.0.1:" in out and "use it: vlmlab reproduce STUDY" in out
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not valid YAML"),
        ("slurm: {}", "needs `jobqueue:` with one of slurm, pbs"),
        (
            "jobqueue: {slurm: {cores: 1, memroy: 1GB}}",
            r"slurm has no option 'memroy'; did you mean memory\?; it has name, cores",
        ),
        (
            "jobqueue: {slurm: {cores: 1, memory: 1GB, worker-extra-args: 5}}",
            "slurm.worker-extra-args must be",
        ),
        (
            "jobqueue: {slurm: {cores: 1, memory: 1GB, scheduler-options: [1]}}",
            "slurm.scheduler-options must be",
        ),
        (
            "jobqueue: {slurm: {cores: 1, memory: 1GB, walltime: 12:00:00}}",
            "slurm.walltime must be a string in quotes, such as .12:00:00.; it is 43200",
        ),
        ("a: &a [1]\njobqueue: {slurm: {cores: *a}}", "has aliases"),
        ("jobqueue: 5", "needs `jobqueue:` with one of"),
        ("[" * 5000, "is not valid YAML"),
        ("\ufeffa: 1", "byte order mark"),
        (
            "jobqueue: {slurm: {cores: 1}}",
            "slurm.memory is missing; needed are cores, memory, per job of the batch system",
        ),
    ],
)
def test_check_of_a_wrong_file(tmp_path, text, words):
    pytest.importorskip("dask_jobqueue")
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
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
    with pytest.raises(ValueError, match="there is no sbatch here; run this where you submit jobs"):
        batch_system.Workers(path, 1, tmp_path)
    out = capsys.readouterr().out
    assert "#SBATCH --gres=gpu:1" in out and "a worker has 8 threads" in out and "--lifetime" in out
    assert "wrong: there is no sbatch here" in out


def listening() -> set[str]:
    """Addresses, with ports, on which processes below this one listen."""
    found = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(path).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in sockets_below(os.getpid()):
                found.add(local)
    return found


def sockets_below(root: int) -> set[str]:
    """The sockets of a process and of those it started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family = {root}
    while more := {p for p, parent in parents.items() if parent in family} - family:
        family |= more
    links = set()
    for process in family:
        with contextlib.suppress(OSError):
            links |= {os.readlink(fd) for fd in Path(f"/proc/{process}/fd").iterdir()}
    return {link[8:-1] for link in links if link.startswith("socket:[")}


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}


def test_a_study_on_workers_that_a_file_starts(project, tmp_path, monkeypatch):
    """They are started once for runs and notebooks, listen on this machine alone, and are gone afterwards."""
    pytest.importorskip("dask_jobqueue")
    (tmp_path / "c.yaml").write_text(CHECKED)
    seen, answers = [], batch_system.answers

    def spy(*arguments):
        seen.append(listening())
        return answers(*arguments)

    monkeypatch.setattr(batch_system, "answers", spy)
    project.study(project.artefact("good"))
    before = listening()
    summary = project.reproduce(batch=tmp_path / "c.yaml", jobs=1)
    assert summary.ok, str(summary)
    new = [{address.partition(":")[0] for address in found - before} for found in seen]
    assert len(new) == 2 and all(addresses and addresses <= LOOPBACK for addresses in new), seen
    parents = {int(process) for process, *_ in project.calls()}
    assert parents and os.getpid() not in parents
    assert project.reproduce(batch=tmp_path / "c.yaml").rows[0].state == "fresh" and len(seen) == 2
    with pytest.raises(ValueError, match="give one"):
        project.reproduce(batch=tmp_path / "c.yaml", scheduler="tcp://127.0.0.1:1")


def test_a_refused_job_is_said_without_a_traceback(tmp_path, monkeypatch, capfd, project):
    pytest.importorskip("dask_jobqueue")
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: Invalid account specified' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("jobqueue: {slurm: {cores: 1, memory: 1GB}}")
    assert cli.main(["cluster", "check", "c.yaml", "--wait", "30"]) == 1
    out, err = capfd.readouterr()
    assert "wrong: the batch system took no job: sbatch: error: Invalid account specified" in out
    assert "for the workers on the nodes; who reaches this port" in out and "Traceback" not in out + err
    project.study(project.artefact("good"))
    with pytest.raises(ValueError, match=r"c\.yaml: the batch system took no job: .*Invalid account"):
        project.reproduce(batch=tmp_path / "c.yaml")
    assert "Traceback" not in capfd.readouterr().err


def test_the_example_file_is_one(monkeypatch):
    pytest.importorskip("dask_jobqueue")
    system, options = batch_system.read(Path(__file__).parents[3] / "notebooks/slurm.yaml")
    assert system == "slurm" and options["cores"] == 1
    assert not any(
        "lifetime" in note or "resources" in note for note in cluster_check.advice(system, options, "")
    )


@pytest.mark.parametrize("option", ["scheduler", "cluster"])
def test_without_dask_it_is_one_line(option, project, tmp_path):
    project.study(project.artefact("good"))
    code = "import sys; sys.modules['distributed'] = sys.modules['dask'] = None\nfrom vlmlab.cli import main\nsys.exit(main())"
    (tmp_path / "c.yaml").write_text(CHECKED)
    value = {"scheduler": "tcp://127.0.0.1:9", "cluster": str(tmp_path / "c.yaml")}[option]
    call = [sys.executable, "-c", code, "reproduce", "fake", f"--{option}", value]
    done = subprocess.run(
        call, cwd=project.root, capture_output=True, text=True, env=environment(), check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("vlmlab: error: "), done.stderr
    assert (
        last.endswith("needs dask: pip install distributed dask-jobqueue") and "Traceback" not in done.stderr
    )
