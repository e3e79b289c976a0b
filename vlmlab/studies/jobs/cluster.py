"""Jobs on the workers of a dask scheduler that the user started.

Workers need the same vlmlab and must see the folders of the project and of the runs under the same paths (a
shared file system): only requests and the names of receipts travel. Each job runs in a subprocess of its
worker, as in the local pool. When a worker is lost, dask gives its jobs to another one, where a training goes
on from its last checkpoint; when nobody waits for a job any more, its subprocess is ended.

A job that needs more than one core, GPUs or memory asks for the abstract resources CORES, GPU and MEMORY
(bytes), so a worker has to offer them: one thread per worker, and for example

    dask worker tcp://host:8786 --nthreads 1 --resources "GPU=1 MEMORY=64e9"
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from ... import __version__, progress
from ..sections import Resources
from .pool import Answers
from .worker import RETRIES, Request, Worker

NEEDED = "needs dask: pip install distributed dask-jobqueue"
PATIENCE = 30  # seconds for the first worker to connect
SILENCE = 60  # seconds without any news after which the workers are looked at


def answers(requests: list[Request], scheduler: str, folder: Path) -> Answers:
    """Run jobs on the workers of a scheduler (an address or a scheduler file); see `pool.answers`.

    folder: the runs, which workers have to see. Raises ValueError or OSError when the scheduler cannot be
    reached, has no workers, or these cannot do the work.
    """
    with connect(scheduler) as client:
        from distributed import wait

        check_workers(client, folder)
        offers = resources_of(client)
        futures = {}
        try:
            for number, request in enumerate(requests):
                if why := refusal(request.resources, offers):
                    yield number, {"error": why}
                    continue
                key = f"{request.label.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
                future = client.submit(
                    perform,
                    request,
                    key=key,
                    retries=RETRIES,
                    pure=False,
                    resources=asked_of_dask(request.resources) or None,
                )
                futures[future] = number
            while futures:
                try:
                    ended = wait(list(futures), SILENCE, "FIRST_COMPLETED").done
                except TimeoutError:
                    if not resources_of(client):
                        progress.write("no worker is connected any more; waiting for one (Ctrl-C stops)")
                    continue
                for future in ended:
                    yield futures.pop(future), answer_of(future)
        finally:
            client.cancel(list(futures), force=True)


def perform(request: Request) -> dict:
    """On a dask worker: one job in a subprocess, which is ended when the task is cancelled."""
    from distributed import get_worker

    here, worker = get_worker(), Worker()
    key = here.get_current_task()

    def unwanted() -> bool:
        task = here.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    try:
        return worker.ask(request, unwanted=unwanted)
    finally:
        worker.stop()


def answer_of(future) -> dict:
    """The answer of a task that ended; an error when dask itself gave it up."""
    if future.status == "finished":
        return future.result()
    if future.status == "cancelled":
        return {"error": "cancelled on the scheduler", "seconds": 0.0}
    error = future.exception()
    first = next(iter(str(error).splitlines()), "")
    return {"error": f"{type(error).__name__}: {first}", "seconds": 0.0}


@contextlib.contextmanager
def connect(scheduler: str) -> Iterator:
    """A client; ConnectionError when nobody answers at the address."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError(f"--scheduler {NEEDED}") from error
    is_file = Path(scheduler).is_file()
    if not is_file and ":" not in scheduler:
        raise FileNotFoundError(
            f"--scheduler takes an address such as tcp://host:8786 or a scheduler file; "
            f"there is no file {scheduler}"
        )
    given = {"scheduler_file": scheduler} if is_file else {"address": scheduler}
    try:
        client = Client(**given, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no dask scheduler answers at {scheduler}; start one with `dask scheduler`, "
            f"workers with `dask worker` ({type(error).__name__}: {error})"
        ) from error
    with client, client.as_current():
        yield client


def check_workers(client, folder: Path) -> None:
    """ValueError unless there are workers, with this vlmlab, that see the folder."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise ValueError(
            f"the scheduler {client.scheduler.address} has no workers; start some with "
            f"`dask worker {client.scheduler.address} --nthreads 1`"
        ) from error
    token = folder.absolute() / f".seen-{uuid.uuid4().hex}.tmp"
    token.touch()
    try:
        found = client.run(look, str(token), os.getcwd(), on_error="return")
    finally:
        token.unlink()
    for address, answer in found.items():
        if isinstance(answer, BaseException):
            raise ValueError(f"worker {address} cannot run vlmlab: {type(answer).__name__}: {answer}")
        if answer["version"] != __version__:
            raise ValueError(f"worker {address} has vlmlab {answer['version']}, here it is {__version__}")
        if lacks := [path for path, there in answer["sees"].items() if not there]:
            place = folder.absolute() if lacks[0] == str(token) else lacks[0]
            raise ValueError(
                f"worker {address} does not see {place}; runs and project must lie on a file "
                "system that workers share with this machine, under the same path"
            )


def look(*paths: str) -> dict:
    """On a dask worker: its vlmlab, and which paths it sees."""
    return {"version": __version__, "sees": {path: os.path.exists(path) for path in paths}}


def resources_of(client) -> list[dict]:
    """What each worker offers."""
    return [worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]


def asked_of_dask(needs: Resources) -> dict[str, float]:
    """The abstract resources of a task: those beyond one core."""
    wanted = {
        "CORES": needs.cores if needs.cores > 1 else 0,
        "GPU": needs.gpus,
        "MEMORY": (needs.memory_gb or 0) * 1e9,
    }
    return {name: value for name, value in wanted.items() if value}


def refusal(needs: Resources, offers: list[dict]) -> str:
    """Why no worker can run a job, or ""; without this it would wait for ever."""
    wanted = asked_of_dask(needs)
    if any(all(offer.get(name, 0) >= value for name, value in wanted.items()) for offer in offers):
        return ""
    text = " ".join(f"{name}={value:g}" for name, value in wanted.items())
    have = "; ".join(sorted({" ".join(f"{k}={v:g}" for k, v in o.items()) or "nothing" for o in offers}))
    return f'needs {text}, which no worker offers (they offer {have}); start one with --resources "{text}"'
