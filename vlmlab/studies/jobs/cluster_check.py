"""`vlmlab cluster check FILE.yaml`: does a dask-jobqueue file work here, before days depend on it?"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .batch_system import SYSTEMS, cluster_of, listens, read, refusal
from .cluster import answers
from .worker import Request

QUEUES = {"slurm": ["squeue", "-h", "-o", "%T, %r", "-j"], "pbs": ["qstat"], "sge": ["qstat", "-j"]}


def check(path: Path, wait: float) -> bool:
    """Print the job script, start one worker, run one job of a second; say what is wrong.

    wait: seconds for the worker to connect. Raises FileNotFoundError or ValueError for a file that is none.
    """
    system, options = read(path)
    command = SYSTEMS[system][1]
    with cluster_of(path) as cluster:
        script = cluster.job_script()
        print(f"the job script of one worker:\n\n{script}")
        print(f"note: {listens(cluster)}")
        for text in advice(system, options, script):
            print(f"note: {text}")
        if not shutil.which(command):
            print(f"wrong: there is no {command} here; run this where you submit jobs, such as a login node")
            return False
        print(f"submitting one worker with {command}, waiting up to {wait:g} s")
        if problem := start(cluster, system, wait):
            print(f"wrong: {problem}")
            return False
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".vlmlab-check-") as folder:
            right = try_job(cluster.scheduler_address, Path(folder))
    if right:
        print(f"use it: vlmlab reproduce STUDY --cluster {path} --jobs N (workers at a time)")
    return right


def advice(system: str, options: dict, script: str) -> list[str]:
    """What is legal, but seldom meant."""
    arguments = [str(argument) for argument in options.get("worker-extra-args") or []]
    notes = []
    threads = re.search(r"--nthreads (\d+)", script)
    if threads and int(threads[1]) > 1:
        notes.append(
            f"a worker has {threads[1]} threads, so it runs {threads[1]} jobs at a time and they "
            "share its GPUs and memory; set `processes` to the number of cores"
        )
    if not any(a.startswith("--resources") for a in arguments):
        notes.append(
            "workers offer no resources; a job that needs gpus, memory_gb or more than one core is "
            'refused. worker-extra-args: ["--resources", "GPU=1 MEMORY=32e9"]'
        )
    if system != "local" and not any(a.startswith("--lifetime") for a in arguments):
        notes.append(
            "workers are killed at the wall time; --lifetime, a little shorter, in "
            "worker-extra-args lets them hand their jobs on before"
        )
    return notes


def start(cluster, system: str, wait: float) -> str:
    """Submit one worker and wait until it connects; "" or what is wrong."""
    from distributed import Client

    cluster.scale(jobs=1)
    end = time.monotonic() + wait
    with Client(cluster, set_as_default=False) as client:
        while time.monotonic() < end:
            if client.scheduler_info()["workers"]:
                return ""
            if why := refusal(cluster.problems):
                return why
            time.sleep(0.5)
    jobs = [str(job.job_id) for job in cluster.workers.values() if getattr(job, "job_id", None)]
    if not jobs:
        return "the batch system took no job and does not say why"
    state = ""
    if system in QUEUES and shutil.which(QUEUES[system][0]):
        text = {"encoding": "utf-8", "errors": "replace"}
        done = subprocess.run([*QUEUES[system], *jobs], capture_output=True, check=False, **text)
        state = f" The queue says: {(done.stdout or done.stderr).strip() or 'nothing, so it has ended'}."
    return (
        f"job {', '.join(jobs)} was taken, but no worker connected to {cluster.scheduler_address} within "
        f"{wait:g} s.{state} If it waits, use another queue or a longer --wait; if it has ended, look at "
        "its log (`log-directory`); if it runs, nodes do not reach this machine: set `interface`"
    )


def try_job(address: str, folder: Path) -> bool:
    """One job through the path that all jobs take."""
    request = Request("check", f"{__name__}:one_second", {}, str(folder / "job.log"))
    try:
        ((_, answer),) = answers([request], address, folder)
    except (ValueError, OSError) as error:
        answer = {"error": str(error)}
    if "error" in answer:
        print(f"wrong: {answer['error']}")
        return False
    print(f"right: a job of one second ran on {answer['result']} in {answer['seconds']:.1f} s")
    return True


def one_second() -> str:
    """The job: where it runs."""
    time.sleep(1)
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{socket.gethostname()} ({len(os.sched_getaffinity(0))} cores, Python {version})"
