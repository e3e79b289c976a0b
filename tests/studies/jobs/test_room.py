"""Jobs beside each other without any process: what is free of a machine, and what is said while they run."""

import inspect
import math
import os
import threading

import pytest
from forked import wait_for

from vlmlab.studies.driver import forecast, notebook, one_by_one, runner, verify
from vlmlab.studies.jobs import pool, receipts
from vlmlab.studies.jobs.worker import Request, Worker
from vlmlab.studies.sections import Resources


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(pool, "memory_here", lambda: 16.0)


def request(label="a job", **resources):
    return Request(label, "somewhere:job", {}, "job.log", Resources(**resources))


@pytest.mark.parametrize(
    ("needs", "why"),
    [
        ({"gpus": 1, "memory_gb": 16, "cores": 99}, ""),
        (
            {"gpus": 2},
            "needs 2 GPUs, this machine has 1; change `resources` in study.toml or use --scheduler",
        ),
        (
            {"memory_gb": 16.5},
            "needs 16.5 GB of memory, this machine has 16; change `resources` in study.toml",
        ),
    ],
)
def test_what_a_machine_can_never_offer(one_gpu, needs, why):
    said = pool.Room(2).refusal(Resources(**needs))
    assert said.startswith(why) and bool(said) is bool(why)


@pytest.mark.parametrize(
    ("taken", "needs", "fits"),
    [
        ({}, {"cores": 3}, True),
        ({}, {"cores": 4}, False),  # a job takes one
        ({"cores": 3}, {"cores": 1}, True),
        ({"cores": 3}, {"cores": 2}, False),
        ({"gpus": 1}, {"gpus": 1}, False),
        ({"gpus": 1}, {}, True),
        ({"memory_gb": 10}, {"memory_gb": 6}, True),
        ({"memory_gb": 10}, {"memory_gb": 6.5}, False),
        ({"memory_gb": 10}, {}, True),
        ({"cores": 99}, {}, False),  # more than there are: it is alone
    ],
)
def test_what_fits_beside_another_job(one_gpu, taken, needs, fits):
    room = pool.Room(4)
    gpus = room.take(Resources(**taken), ())
    assert room.fits(Resources(**needs)) is fits
    room.give_back(Resources(**taken), gpus)
    assert (room.cores, room.gpus, room.memory) == (4, ["3"], 16)


def test_a_process_keeps_its_gpus_in_their_order(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert pool.Room(1).take(Resources(gpus=2), ("5", "2")) == ("5", "2")
    assert pool.Room(1).take(Resources(gpus=2), ("5",)) == ("2", "5")
    assert pool.Room(1).take(Resources(gpus=1), ("7",)) == ("2",)


def test_who_stops_reading_closes_the_pool(one_gpu, monkeypatch):
    monkeypatch.setattr(Worker, "ask", lambda self, request, gpus: {"result": 1})
    with pool.Pool(1) as made:
        found = made([request(), request()])
        assert next(found) == (0, None) and not made.closed
        found.close()
        assert made.closed and all(worker.stopped for worker in made.workers)


def test_memory_of_this_machine(monkeypatch):
    told = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 5_000_000}
    monkeypatch.setattr(os, "sysconf", told.__getitem__)
    assert pool.memory_here() == 20.48

    def fail(name):
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", fail)
    assert pool.memory_here() == math.inf


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("GPU 0: A (UUID: GPU-1)\n  MIG 1g.5gb\nGPU 1: B (UUID: GPU-2)", ["0", "1"]),
        ("No devices were found", []),
    ],
)
def test_gpus_that_the_driver_lists(tmp_path, monkeypatch, said, found):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pool.gpus_here() == []  # no driver
    (tmp_path / "nvidia-smi").write_text(
        f'#!/bin/sh\n[ "$*" = -L ] && echo "{said}" && printf "\\377"\nexit 9\n'
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert pool.gpus_here() == found


def test_a_fault_of_the_pool_costs_one_job_and_gives_its_room_back(one_gpu, monkeypatch):
    """And when the pool is closed, its threads end, also those that wait."""
    before = {*threading.enumerate()}

    def ask(self, request, gpus):
        if request.label == "bad":
            raise OSError("no process left")
        return {"result": list(gpus)}

    monkeypatch.setattr(Worker, "ask", ask)
    with pool.Pool(2) as workers:
        asked = [request(name, cores=2, gpus=1) for name in ("bad", "good", "good")]
        found = {n: a for n, a in workers(asked) if a is not None}
        assert found == {0: {"error": "OSError: no process left"}, 1: {"result": ["3"]}, 2: {"result": ["3"]}}
        started = [t for t in threading.enumerate() if t not in before and "serve" in t.name]
        assert len(workers.workers) == len(started) == 2
        assert dict(workers([request(gpus=2)]))[0]["error"].startswith("needs 2 GPUs")
    wait_for(lambda: not any(thread.is_alive() for thread in started))


@pytest.mark.parametrize(("slots", "jobs", "workers"), [(1, 3, 1), (4, 3, 3), (4, 1, 1)])
def test_no_more_workers_than_jobs_or_cores(one_gpu, monkeypatch, slots, jobs, workers):
    monkeypatch.setattr(Worker, "ask", lambda self, request, gpus: {"result": 1})
    with pool.Pool(slots) as made:
        assert len(list(made([request() for _ in range(jobs)]))) == 2 * jobs
        assert len(made.workers) == workers


class Bar:
    """A progress bar that remembers what it shows."""

    def __init__(self, **about):
        self.about, self.shown, self.lines, self.done, self.open = about, [], [], 0, True

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.open = False

    def update(self):
        self.done += 1

    def write(self, line):
        self.lines.append(line)

    def set_postfix_str(self, text):
        self.shown.append(text)


def test_progress_names_what_runs_and_what_failed(monkeypatch):
    bars, closed = [], []
    monkeypatch.setattr(pool.progress, "bar", lambda **about: bars.append(Bar(**about)) or bars[-1])
    answers = [(0, None), (1, None), (0, {"result": 1}), (2, {"error": "too large"}), (1, {"error": "why"})]

    def runner(requests):
        try:
            yield from answers
        finally:
            closed.append(True)

    asked = [request(name) for name in "abc"]
    found = list(pool.follow(runner, asked, "training", "run"))
    assert found == [answers[2], answers[3], answers[4]]
    (bar,) = bars
    assert bar.about == {"total": 3, "desc": "training", "unit": "run"} and bar.done == 3 and not bar.open
    assert bar.shown == ["a", "a, b", "b", "b", ""] and bar.lines == ["c: too large", "b: why"]
    assert closed == [True] and list(pool.follow(runner, [], "training", "run")) == [] and len(bars) == 1
    follower = pool.follow(runner, asked, "training", "run")
    next(follower)
    follower.close()
    assert closed == [True, True]  # who stops reading ends the jobs


def test_a_job_that_was_killed_often(monkeypatch):
    assert pool.retried({"result": 1, "killed": ["a", "b", "c"]}) == "c, 3 times, then retried"


@pytest.mark.parametrize(
    ("function", "name", "usual"),
    [
        (pool.answers, "slots", 1),
        (pool.Pool, "slots", 1),
        (runner.reproduce, "jobs", 1),
        (runner.reproduce, "profile", "demo"),
        (runner.states, "profile", "demo"),
        (verify.verify, "jobs", 1),
        (verify.verify, "tolerance", 1e-6),
        (verify.compare, "tolerance", 1e-6),
        (forecast.plan, "jobs", 1),
        (forecast.forecast, "slots", 1),
        (one_by_one.commands, "profile", "demo"),
        (receipts.need_runs, "slots", 1),
        (notebook.perform, "several", False),
    ],
)
def test_what_is_usual(function, name, usual):
    """One core of a shared machine, the study that fits on a laptop."""
    assert inspect.signature(function).parameters[name].default == usual
