"""The local pool: jobs side by side on this machine, within its cores, GPUs and memory."""

import collections
import contextlib
import math
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from ... import progress
from ..sections import Resources
from .worker import Request, Worker

Answers = Iterator[tuple[int, dict | None]]
Runner = Callable[[list[Request]], Answers]


def follow(runner: Runner, requests: list[Request], what: str, unit: str) -> Iterator[tuple[int, dict]]:
    """(number, answer) of each request when it ends, with a progress bar that names what runs now."""
    if not requests:
        return
    now = {}
    with (
        contextlib.closing(runner(requests)) as answers,
        progress.bar(total=len(requests), desc=what, unit=unit) as bar,
    ):
        for number, answer in answers:
            if answer is None:
                now[number] = requests[number].label
            else:
                now.pop(number, None)
                bar.update()
                if "error" in answer:
                    bar.write(f"{requests[number].label}: {answer['error']}")
            bar.set_postfix_str(", ".join(now.values()))
            if answer is not None:
                yield number, answer


def retried(answer: dict) -> str:
    """How often attempts of a job that ended well were killed; "" for never."""
    killed = [] if "error" in answer else answer.get("killed", [])
    times = {1: "once", 2: "twice"}.get(len(killed), f"{len(killed)} times")
    return f"{killed[-1]}, {times}, then retried" if killed else ""


def answers(requests: list[Request], slots: int = 1) -> Answers:
    """Run jobs in worker processes that use `slots` cores together and end with the last job; see `Pool`."""
    with Pool(slots) as pool:
        yield from pool(requests)


class Pool:
    """Worker processes that use `slots` cores of this machine together and stay until it is closed.

    A call runs jobs in their order and yields (number, None) when one starts and (number, answer) when it ends;
    answers are those of `Worker.ask`. A job that this machine can never run is answered at once. One with more
    cores than `slots` runs alone. Closing the iterator early, as Ctrl-C does, ends the processes.
    """

    def __init__(self, slots: int = 1):
        self.room, self.slots, self.closed = Room(slots), slots, False
        self.todo, self.workers = collections.deque(), []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception) -> None:
        with self.room.changed:
            self.closed = True
            self.room.changed.notify_all()
        for worker in self.workers:
            worker.stop()

    def __call__(self, requests: list[Request]) -> Answers:
        events, left = SimpleQueue(), 0
        for number, request in enumerate(requests):
            if why := self.room.refusal(request.resources):
                yield number, {"error": why}
            else:
                left += 1
                with self.room.changed:
                    self.todo.append((number, request, events))
        self.start(left)
        try:
            while left:
                number, answer = events.get()
                left -= answer is not None
                yield number, answer
        finally:
            if left:
                self.__exit__()

    def start(self, jobs: int) -> None:
        """As many workers as there is work for, each with the thread that it ends with."""
        with self.room.changed:
            self.room.changed.notify_all()
        while len(self.workers) < min(self.slots, jobs):
            self.workers.append(Worker())
            threading.Thread(target=self.serve, args=(self.workers[-1],), daemon=True).start()

    def serve(self, worker: Worker) -> None:
        """One worker takes jobs from the front, each when there is room for it."""
        room, gpus = self.room, ()
        while True:
            with room.changed:
                room.changed.wait_for(
                    lambda: self.closed or (self.todo and room.fits(self.todo[0][1].resources))
                )
                if self.closed:
                    return
                number, request, events = self.todo.popleft()
                gpus = room.take(request.resources, gpus)
            events.put((number, None))
            try:
                answer = worker.ask(request, gpus)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            with room.changed:
                room.give_back(request.resources, gpus)
                room.changed.notify_all()
            events.put((number, answer))


class Room:
    """What is free of this machine. Use `fits`, `take` and `give_back` while holding `changed`."""

    def __init__(self, slots: int):
        self.slots, self.cores = slots, slots
        self.all_gpus = gpus_here()
        self.gpus = list(self.all_gpus)
        self.all_memory = self.memory = memory_here()
        self.changed = threading.Condition()

    def refusal(self, needs: Resources) -> str:
        """Why this machine can never run a job, or ""."""
        if needs.gpus > len(self.all_gpus):
            return f"needs {needs.gpus} GPUs, this machine has {len(self.all_gpus)}; {ELSEWHERE}"
        if (needs.memory_gb or 0) > self.all_memory:
            return (
                f"needs {needs.memory_gb:g} GB of memory, this machine has {self.all_memory:.0f}; {ELSEWHERE}"
            )
        return ""

    def amount(self, needs: Resources) -> int:
        return min(needs.cores, self.slots)

    def fits(self, needs: Resources) -> bool:
        return (
            self.amount(needs) <= self.cores
            and needs.gpus <= len(self.gpus)
            and (needs.memory_gb or 0) <= self.memory
        )

    def take(self, needs: Resources, before: tuple[str, ...]) -> tuple[str, ...]:
        """Its GPUs, the same as before where possible: then its process can stay."""
        self.cores -= self.amount(needs)
        self.memory -= needs.memory_gb or 0
        same = len(before) == needs.gpus and {*before} <= {*self.gpus}
        taken = before if same else tuple(self.gpus[: needs.gpus])
        self.gpus = [gpu for gpu in self.gpus if gpu not in taken]
        return taken

    def give_back(self, needs: Resources, gpus: tuple[str, ...]) -> None:
        self.cores += self.amount(needs)
        self.memory += needs.memory_gb or 0
        self.gpus += gpus


ELSEWHERE = "change `resources` in study.toml or use --scheduler"


def memory_here() -> float:
    """GB of memory of this machine; infinite where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def gpus_here() -> list[str]:
    """The numbers of the GPUs that jobs may use: CUDA_VISIBLE_DEVICES, else what nvidia-smi lists."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [g for g in given.split(",") if g.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    text = {"encoding": "utf-8", "errors": "replace"}
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False, **text).stdout
    return [str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU"))]
