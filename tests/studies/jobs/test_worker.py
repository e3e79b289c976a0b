"""A job runs in a process of its own, with limits; a signal costs an attempt, an error its job."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from forked import wait_for

from vlmlab.paths import PACKAGE
from vlmlab.studies.jobs.worker import Request, Worker, environment
from vlmlab.studies.sections import Resources

USUAL = Resources()
JOBS = """
import os, pathlib, signal, subprocess, sys, time

def twice(counter, times):
    with open(counter, "a") as file:
        file.write("x")
    if len(pathlib.Path(counter).read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"

def process():
    print("printed by the job")
    return os.getpid()

def error():
    raise ValueError("this cannot be\\nsecond line")

def leave():
    os._exit(3)

def sleep(started):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pathlib.Path(started).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)

def allocate(gigabytes):
    return len(bytearray(int(gigabytes * 1e9)))

def letters():
    print("α ± −")
    return pathlib.Path("text").write_text("α") and __import__("vlmlab").__file__

def settings():
    return [os.getcwd(), os.environ["OMP_NUM_THREADS"], os.environ.get("VLMLAB_X"),
            os.environ.get("CUDA_VISIBLE_DEVICES"), sys.stdin.read()]
"""


@pytest.fixture(scope="module", autouse=True)
def find_jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "some_jobs.py").write_text(JOBS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        yield


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.stop()


@pytest.fixture
def request_for(tmp_path):
    def request_for(call, resources=USUAL, **arguments):
        log = str(tmp_path / "logs/job.log")
        return Request("a job", f"some_jobs:{call}", arguments, log, resources, str(tmp_path))

    return request_for


def test_one_process_for_many_jobs_and_another_for_other_resources(worker, request_for, tmp_path):
    first, second = (worker.ask(request_for("process"))["result"] for _ in range(2))
    assert first == second != os.getpid()
    assert worker.ask(request_for("process", Resources(cores=2)))["result"] != first
    assert (tmp_path / "logs/job.log").read_text() == "printed by the job\n" * 3


def test_an_error_is_one_line_and_is_not_tried_again(worker, request_for, tmp_path):
    answer = worker.ask(request_for("error"))
    assert answer["error"] == "ValueError: this cannot be" and "killed" not in answer
    assert (tmp_path / "logs/job.log").read_text().count("Traceback") == 1
    assert worker.ask(request_for("nope"))["error"].startswith("AttributeError")
    assert worker.ask(request_for("leave"))["error"].startswith("the process ended with exit status 3; see ")
    assert worker.ask(request_for("process"))["result"]


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_killed_job_is_tried_three_times(worker, request_for, tmp_path, times):
    answer = worker.ask(request_for("twice", counter=str(tmp_path / "counter"), times=times))
    assert len(answer.get("killed", [])) == times
    if times < 3:
        assert answer["result"] == "done"
    else:
        assert answer["error"].startswith("killed by SIGKILL, perhaps out of memory, 3 times; see ")
    assert len((tmp_path / "counter").read_text()) == min(times + 1, 3)


def test_limit_of_time(worker, request_for, tmp_path):
    started = tmp_path / "started"
    answer = worker.ask(request_for("sleep", Resources(hours=4 / 3600), started=str(started)))
    assert answer["error"].startswith("over the limit of 0.00111111 hours") and "killed" not in answer
    job, child = map(int, started.read_text().split())
    wait_for(lambda: not (alive(job) or alive(child)))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce it")
def test_limit_of_memory(worker, request_for):
    small = Resources(memory_gb=0.5)
    assert worker.ask(request_for("allocate", small, gigabytes=0.1))["result"] == 100_000_000
    assert worker.ask(request_for("allocate", small, gigabytes=1))["error"].startswith("MemoryError")
    assert worker.ask(request_for("allocate", gigabytes=1))["result"] == 1_000_000_000


def test_where_and_with_what_a_job_runs(worker, request_for, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_X", "asked for")
    request = request_for("settings", Resources(cores=3))
    monkeypatch.setenv("VLMLAB_X", "later")
    assert worker.ask(request, gpus=("1", "4"))["result"] == [str(tmp_path), "3", "asked for", "1,4", ""]


def test_letters_in_any_locale_and_the_same_vlmlab(worker, request_for, tmp_path, monkeypatch):
    (tmp_path / "vlmlab").mkdir()
    (tmp_path / "vlmlab/__init__.py").write_text("raise RuntimeError('another vlmlab')")
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    assert worker.ask(request_for("letters")).get("result") == str(PACKAGE / "__init__.py")
    assert (tmp_path / "logs/job.log").read_text(encoding="utf-8") == "α ± −\n"
    assert (tmp_path / "text").read_text(encoding="utf-8") == "α"


@pytest.mark.parametrize(("cores", "given", "threads"), [(1, None, "1"), (1, "2", "2"), (4, "2", "4")])
def test_threads(monkeypatch, cores, given, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert environment(cores)["OMP_NUM_THREADS"] == threads


def test_a_job_that_nobody_wants_any_more_is_ended(worker, request_for, tmp_path):
    started = tmp_path / "started"
    answer = worker.ask(request_for("sleep", started=str(started)), unwanted=started.exists)
    assert answer["error"] == "stopped"
    assert not alive(int(started.read_text().split()[0]))


def test_a_job_dies_with_the_process_that_waits_for_it(tmp_path):
    started = tmp_path / "started"
    code = f"""
        from vlmlab.studies.jobs.worker import Request, Worker
        Worker().ask(Request("a", "some_jobs:sleep", {{"started": {str(started)!r}}}, "job.log"))
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, env=environment())
    wait_for(started.exists)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    job = int(started.read_text().split()[0])
    wait_for(lambda: not alive(job))


def alive(process: int) -> bool:
    """Running, not just waiting for a parent to collect it."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_log_on_a_full_disk_costs_one_job(tmp_path):
    """It is said what to do, and the process goes on with the next."""
    worker = Worker()
    try:
        first = worker.ask(Request("a job", "builtins:print", {"sep": "x"}, "/dev/full"))
        process = worker.process
        second = worker.ask(Request("a job", "builtins:print", {"sep": "x"}, str(tmp_path / "log")))
    finally:
        worker.stop()
    assert first["error"].endswith("make room where /dev lies, or name another folder with --runs")
    assert second["result"] is None and process is not None and worker.process is process


def test_a_full_disk_says_what_to_do(tmp_path):
    (tmp_path / "full_disk.py").write_text(
        "import errno\ndef fill(**_):\n    raise OSError(errno.ENOSPC, 'No space left on device')\n"
    )
    worker = Worker()
    try:
        request = Request("a job", "full_disk:fill", {}, str(tmp_path / "logs/job.log"), cwd=str(tmp_path))
        error = worker.ask(request)["error"]
    finally:
        worker.stop()
    assert error.endswith(f"make room where {tmp_path}/logs lies, or name another folder with --runs")
