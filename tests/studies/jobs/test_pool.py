"""Jobs side by side: never more than the machine has, in their order, each with its own GPUs."""

import pytest

from vlmlab.studies.jobs import pool
from vlmlab.studies.jobs.worker import Request
from vlmlab.studies.sections import Resources


def requests(tmp_path, tasks, **resources):
    def request(i, task):
        job = {"study": "s", "method": "m", "task": f"toy/{task}", "seed": i}
        return Request(
            f"{task} {i}",
            "fake_train:train",
            {"job": job, "runs": str(tmp_path)},
            str(tmp_path / "job.log"),
            Resources(**resources),
        )

    return [request(i, task) for i, task in enumerate(tasks)]


def ask(tmp_path, tasks, slots=1, **resources):
    found = pool.answers(requests(tmp_path, tasks, **resources), slots)
    return {number: answer for number, answer in found if answer is not None}


def test_every_job_gets_its_answer(tmp_path):
    found = ask(tmp_path, ["a", "raise", "kill", "b"], 2)
    assert sorted(found) == [0, 1, 2, 3]
    assert found[0]["result"]["status"] == found[3]["result"]["status"] == "ok"
    assert found[1]["error"] == "ValueError: this task cannot be"
    assert found[2]["error"].startswith("killed by SIGKILL, perhaps out of memory, 3 times")


@pytest.mark.parametrize(("slots", "cores", "processes"), [(1, 1, 1), (2, 1, 2), (2, 8, 1)])
def test_as_many_at_a_time_as_there_is_room_for(tmp_path, slots, cores, processes):
    running, most = set(), 0
    for number, answer in pool.answers(requests(tmp_path, ["a"] * 6, cores=cores), slots):
        (running.add if answer is None else running.discard)(number)
        most = max(most, len(running))
    assert most == processes


def test_closing_early_ends_the_processes(tmp_path):
    found = pool.answers(requests(tmp_path, ["slow", "a"]), 1)
    assert next(found) == (0, None)
    found.close()
    assert next(found, "ended") == "ended"


def test_what_the_machine_does_not_have_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (one,) = ask(tmp_path, ["a"], gpus=2).values()
    assert one == {
        "error": "needs 2 GPUs, this machine has 1; change `resources` in study.toml or use --scheduler"
    }
    (one,) = ask(tmp_path, ["a"], memory_gb=1e6).values()
    assert one["error"].startswith("needs 1e+06 GB of memory, this machine has ")
    assert not (tmp_path / "calls.txt").exists()


def test_room_is_given_out_once(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    room = pool.Room(3)
    one, big = Resources(gpus=1), Resources(cores=2, memory_gb=room.all_memory)
    assert room.fits(one) and room.take(one, ()) == ("2",) and room.take(one, ()) == ("5",)
    assert not room.fits(one) and room.fits(Resources()) and not room.fits(big)
    room.give_back(one, ("2",))
    room.give_back(one, ("5",))
    assert room.take(one, ("5",)) == ("5",)  # a process keeps its GPU
    assert room.fits(big)
    room.take(big, ())
    assert not room.fits(Resources(memory_gb=1)) and not room.fits(Resources())
    room.give_back(big, ())
    assert room.fits(Resources(cores=9)) is False  # it waits until it is alone
    room.give_back(one, ("5",))
    assert room.fits(Resources(cores=9))


@pytest.mark.parametrize(("given", "found"), [("", []), ("-1", []), ("3", ["3"]), ("0,1", ["0", "1"])])
def test_gpus_are_those_that_cuda_may_see(monkeypatch, given, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert pool.gpus_here() == found


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"result": 1}, ""),
        ({"error": "x", "killed": ["killed by A"]}, ""),
        ({"result": 1, "killed": ["killed by A"]}, "killed by A, once, then retried"),
        ({"result": 1, "killed": ["killed by A", "killed by B"]}, "killed by B, twice, then retried"),
    ],
)
def test_what_is_said_of_a_retried_job(answer, text):
    assert pool.retried(answer) == text


def test_processes_stay_from_one_call_to_the_next(tmp_path):
    with pool.Pool(1) as workers:
        for _ in range(2):
            assert [a is None or "result" in a for _, a in workers(requests(tmp_path, ["a"]))] == [True, True]
    processes = [line.split()[0] for line in (tmp_path / "calls.txt").read_text().splitlines()]
    assert len(processes) == 2 and len({*processes}) == 1
