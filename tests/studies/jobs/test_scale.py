"""Fifteen artefacts, three of them in trouble: twelve are right, the three are named, a second call repairs."""

import os
import signal
import subprocess
import sys

import pytest
from forked import running, wait_for

TROUBLE = ("raise", "kill_twice", "corrupt")
READ = "import pathlib\nassert any(pathlib.Path(runs, 'fake/one/toy/{task}').glob('*/results.jsonl'))"
GOOD = [f"t{i}" for i in range(12)]


@pytest.fixture(scope="module")
def fifteen(module_project):
    """A study of fifteen artefacts, each with one run of its own."""
    names = [*TROUBLE, *GOOD]
    artefacts = [module_project.artefact(n, READ.format(task=n), kind="table", matrix=n) for n in names]
    path = module_project.study(*artefacts, tasks={n: [f"toy/{n}"] for n in names})
    path.write_text(path.read_text().replace("seeds = [1, 2]", "seeds = [1]"))
    return module_project


@pytest.fixture(scope="module")
def first(fifteen):
    return fifteen.reproduce(jobs=2)


def by_name(summary):
    return {row.artefact: row for row in summary.rows}


def tries(project, task):
    return sum(name == task for _, name, _ in project.calls())


def test_first_call(first, fifteen):
    rows = by_name(first)
    assert len(rows) == 15 and not first.ok  # exit status 1
    for name in GOOD:
        assert rows[name].state == "made" and rows[name].detail == "not made yet"
        assert (first.figures / f"{name}.csv").read_text() == "epochs\n1"
    named = {name: row.detail for name, row in rows.items() if name not in GOOD}
    assert named["raise"] == "one toy/raise 4-shot seed 1: ValueError: this task cannot be"
    assert named["kill_twice"].endswith("killed by SIGKILL, perhaps out of memory, twice, then retried")
    assert (
        "wrote a damaged result" in named["corrupt"]
        and "line 1, value must be a finite number; it is nan" in named["corrupt"]
    )
    assert [rows[name].state for name in TROUBLE] == ["missing runs", "made", "missing runs"]
    assert [tries(fifteen, name) for name in TROUBLE] == [1, 3, 1]


def test_second_call_repairs_what_can_be_repaired(first, fifteen):
    before = {
        path: path.stat().st_mtime_ns
        for path in first.figures.iterdir()
        if path.suffix == ".csv" and path.name != "numbers.csv"
    }
    assert len(before) == 13
    second = fifteen.reproduce(jobs=2)
    states = {row.artefact: row.state for row in second.rows}
    assert states == {
        **dict.fromkeys(GOOD, "fresh"),
        "raise": "missing runs",
        "kill_twice": "fresh",
        "corrupt": "made",
    }
    assert not second.ok  # `raise` is a fault of the study, and still named
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [tries(fifteen, name) for name in TROUBLE] == [2, 3, 2]
    assert [tries(fifteen, name) for name in GOOD] == [1] * 12


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_notebooks_end_with_the_driver_and_the_next_call_goes_on(project, how):
    sleep = (
        "import os, pathlib, time\nmark = pathlib.Path(runs, f'{artefact}.txt')\n"
        "if not mark.exists():\n    mark.write_text(str(os.getpid()))\n    time.sleep(60)"
    )
    project.study(project.artefact("one"), project.artefact("two", sleep), project.artefact("three", sleep))
    code = (
        f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from vlmlab import studies; studies.reproduce('fake', train='fake_train:train', jobs=3, "
        f"**{ {k: str(v) for k, v in project.places.items()} })"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    marks = [project.root / f"runs/{name}.txt" for name in ("two", "three")]
    wait_for(lambda: all(m.exists() and m.read_text() for m in marks) and project.states()["one"] == "fresh")
    driver.send_signal(how)
    assert driver.wait(10) != 0
    kernels = [int(mark.read_text()) for mark in marks]
    wait_for(lambda: not any(map(running, kernels)))
    assert {row.artefact: row.state for row in project.reproduce(jobs=2).rows} == {
        "one": "fresh",
        "two": "made",
        "three": "made",
    }
    assert len(project.calls()) == 2  # nothing was trained again
