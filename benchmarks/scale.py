"""How much faster two workers are than one, on independent jobs of one thread each.

Each job goes the way of every run and notebook of `vlmlab reproduce`: a subprocess of a dask worker, or of
the local pool. A ratio is the time with one worker / the time with two, the median over rounds in which the
two take turns. Two kinds of job:

  wait      sleeps for a fixed time, as a job does that waits for a GPU or a disk. It takes no core, so the
            ratio is that of the job path alone, also on a machine that other people use
  compute   adds numbers until it has used a fixed amount of CPU time. Its ratio needs two free cores

`cost` is what the path adds to a job, in seconds: starting a process, sending, answering.
"""

import argparse
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlmlab.studies.jobs import cluster, pool
from vlmlab.studies.jobs.worker import Request, environment

KINDS = ("wait", "compute")


def wait(seconds: float) -> None:
    time.sleep(seconds)


def compute(seconds: float) -> None:
    total, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        total += sum(range(1000))


def seconds_of(runner, kind: str, jobs: int, seconds: float, folder: Path) -> float:
    """Wall time until all jobs are answered."""
    asked = [
        Request(f"{kind} {i}", f"scale:{kind}", {"seconds": seconds}, str(folder / "job.log"))
        for i in range(jobs)
    ]
    start = time.monotonic()
    for number, answer in runner(asked):
        if answer and "error" in answer:
            raise SystemExit(f"job {number} failed: {answer['error']}")
    return time.monotonic() - start


def start_dask(workers: int, folder: Path) -> tuple[str, list[subprocess.Popen]]:
    """A scheduler with this many workers of one thread, on the loopback; its address and all processes."""
    file = folder / f"scheduler{workers}.json"
    quiet = {"stderr": subprocess.DEVNULL, "env": environment(), "cwd": folder}
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dask",
                "scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--no-dashboard",
                "--scheduler-file",
                str(file),
            ],
            **quiet,
        )
    ]
    while not file.exists():
        time.sleep(0.1)
    started += [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dask",
                "worker",
                "--scheduler-file",
                str(file),
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
            ],
            **quiet,
        )
        for _ in range(workers)
    ]
    with cluster.connect(str(file)) as client:
        client.wait_for_workers(workers, timeout=120)
    return json.loads(file.read_text(encoding="utf-8"))["address"], started


def measure(name: str, one, two, args: argparse.Namespace, folder: Path) -> None:
    """Print one line per kind of job."""
    for kind in KINDS:
        times = [
            [seconds_of(runner, kind, args.jobs, args.seconds, folder) for runner in (one, two)]
            for _ in range(args.rounds)
        ]
        ratio = statistics.median(a / b for a, b in times)
        spread = f"{min(a / b for a, b in times):.2f} to {max(a / b for a, b in times):.2f}"
        cost = statistics.median(a / args.jobs - args.seconds for a, _ in times)
        print(f"{name:<12} {kind:<8} {ratio:>5.2f}   {spread:<14} {cost:>6.2f}", flush=True)


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    ap.add_argument("--jobs", type=int, default=8, metavar="N", help="per measurement (8)")
    ap.add_argument("--seconds", type=float, default=2, metavar="S", help="of each job (2)")
    ap.add_argument("--rounds", type=int, default=3, metavar="N", help="(3)")
    args = ap.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # where workers find the jobs
    os.environ["TQDM_DISABLE"] = "1"
    cores = len(os.sched_getaffinity(0))
    print(
        f"{args.jobs} jobs of {args.seconds:g} s, {args.rounds} rounds, {cores} cores, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    print(f"{'path':<12} {'job':<8} {'ratio':>5}   {'range':<14} {'cost':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder, started = Path(name), []
        measure("local pool", pool.answers, functools.partial(pool.answers, slots=2), args, folder)
        if not importlib.util.find_spec("distributed"):
            raise SystemExit("dask is not installed: pip install distributed")
        try:
            runners = []
            for workers in (1, 2):
                address, processes = start_dask(workers, folder)
                started += processes
                runners.append(functools.partial(cluster.answers, scheduler=address, folder=folder))
            measure("dask", *runners, args, folder)
        finally:
            for process in started:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
