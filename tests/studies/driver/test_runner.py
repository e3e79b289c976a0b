"""One whole study: what fails is named and stops nothing, what is fresh is not made again."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from vlmlab import cli
from vlmlab.studies.driver import notebook, runner
from vlmlab.studies.jobs.worker import Request

USES = "from lab.measures import {name}_of\n{name}_of()"
DIE = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(scope="module")
def first(module_project):
    """The study after its first call: two artefacts are made, three fail each in its own way."""
    p = module_project
    p.study(
        p.artefact("good", USES.format(name="alpha"), extra="params = { epochs = 3 }"),
        p.artefact("broken", "value = 1 / 0"),
        p.artefact("dead", DIE),
        p.artefact("table", USES.format(name="beta"), kind="table"),
        p.artefact("lacking", matrix="bad"),
        tasks={"main": ["toy/a", "toy/b"], "bad": ["toy/a", "toy/raise", "toy/kill"]},
        extra="params = { epochs = 7 }",
    )
    return p.reproduce(jobs=2)


def rows(summary):
    return {row.artefact: row for row in summary.rows}


@pytest.fixture
def executed(monkeypatch):
    """The artefacts whose notebooks are executed."""
    made, request = [], runner.Plan.request

    def spy(plan, artefact, limit, several):
        made.append(artefact.id)
        return request(plan, artefact, limit, several)

    monkeypatch.setattr(runner.Plan, "request", spy)
    return made


def fast(monkeypatch):
    """Notebooks that fail at once, without a kernel."""
    monkeypatch.setattr(
        runner.Plan,
        "request",
        lambda plan, artefact, limit, several: Request(
            artefact.id, "fake_train:nope", {}, str(plan.index.folder / "log")
        ),
    )


def test_summary_names_every_failure(first):
    found = rows(first)
    states = {name: row.state for name, row in found.items()}
    assert states == {
        "good": "made",
        "broken": "failed",
        "dead": "failed",
        "table": "made",
        "lacking": "missing runs",
    }
    assert not first.ok
    assert found["broken"].detail == "ZeroDivisionError in cell 3 (In [3]): division by zero"
    assert found["dead"].detail.startswith("the kernel died in cell 3")
    assert "perhaps out of memory, 3 times; see " in found["dead"].detail
    lacking = "one toy/raise 4-shot seed 1: ValueError: this task cannot be (and 3 more)"
    assert found["lacking"].detail == lacking
    text = str(first)
    assert "ZeroDivisionError in cell 3" in text and f"figures are in {first.figures}" in text
    assert text.splitlines()[0].split() == ["artefact", "state", "seconds", "detail"]


def test_a_failing_job_stops_no_other(first, module_project):
    done = {(task, seed) for _, task, seed in module_project.calls()}
    assert done == {(task, seed) for task in ("a", "b", "raise", "kill") for seed in "12"}
    logs = [path.read_text() for path in (module_project.root / "runs/fake/logs").iterdir()]
    assert sum("ValueError: this task cannot be\nsecond line" in text for text in logs) == 2


def test_parameters_reach_the_notebook(first):
    assert (first.figures / "good.svg").read_text() == "3"  # its own
    assert (first.figures / "table.csv").read_text() == "epochs\n7"  # the profile's


def test_executed_and_partly_executed_notebooks_are_kept(first):
    folder = first.figures / "notebooks"
    assert sorted(p.name for p in folder.iterdir()) == [
        "broken.failed.ipynb",
        "dead.failed.ipynb",
        "good.html",
        "good.ipynb",
        "table.html",
        "table.ipynb",
    ]
    failed = notebook.read(folder / "broken.failed.ipynb")
    assert any(o.get("ename") == "ZeroDivisionError" for c in failed["cells"] for o in c.get("outputs", []))
    good = (folder / "good.ipynb").read_text()
    assert "papermill" not in good and "start_time" not in good and "attempts" not in good
    assert f'out = \\"{first.figures.as_posix()}\\"' in good
    assert not (first.figures.parents[1] / "runs/fake/attempts").exists()


def test_second_run_makes_nothing_and_loads_no_torch(first, module_project):
    p = module_project
    before = {f: f.stat().st_mtime_ns for f in first.figures.rglob("*") if f.is_file()}
    calls = len(p.calls())
    code = f"""
        import pathlib, sys
        from vlmlab import studies
        summary = studies.reproduce("fake", train="fake_train:train", only=["good", "table"],
                                    **{ {k: str(v) for k, v in p.places.items()} })
        heavy = [m for m in ("torch", "papermill", "distributed") if m in sys.modules]
        print([r.state for r in summary.rows], heavy)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "['fresh', 'fresh'] []"
    assert before == {f: f.stat().st_mtime_ns for f in before} and len(p.calls()) == calls


def test_a_second_call_tries_again_only_what_failed(first, module_project, executed):
    calls = len(module_project.calls())
    states = {row.artefact: row.state for row in module_project.reproduce(jobs=2).rows}
    assert states == {
        "good": "fresh",
        "broken": "failed",
        "dead": "failed",
        "table": "fresh",
        "lacking": "missing runs",
    }
    assert executed == ["broken", "dead"]
    assert {task for _, task, _ in module_project.calls()[calls:]} == {"raise", "kill"}


def changed(project, path, old, new):
    """States of the two good artefacts while a file is changed."""
    file = project.root / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    try:
        return {name: state for name, state in project.states().items() if name in ("good", "table")}
    finally:
        file.write_text(text)


FRESH = {"good": "fresh", "table": "fresh"}


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("lab/measures/beta.py", "return 2", "return 3", {"table": "stale changed: lab/measures/beta.py"}),
        ("notebooks/fake/good.ipynb", "# title", "# Title", {"good": "stale changed: notebook"}),
        ("notebooks/fake/study.toml", "epochs = 3", "epochs = 4", {"good": "stale changed: parameters"}),
        ("notebooks/fake/study.toml", "epochs = 7", "epochs = 8", {"table": "stale changed: parameters"}),
        (
            "data/published/fake/table1.csv",
            "1",
            "2",
            {n: "stale changed: data/published/fake/table1.csv" for n in FRESH},
        ),
        ("figures/fake/good.svg", "3", "by hand", {"good": "stale good.svg was changed by hand"}),
        (
            "notebooks/fake/study.toml",
            "seeds = [1, 2]",
            "seeds = [1]",
            {n: "stale changed: run one toy/a 4-shot seed 2 (" for n in FRESH},
        ),
        ("data/toy/images.csv", "1", "2", {n: "missing runs 4 of 4" for n in FRESH}),
    ],
)
def test_exactly_what_depends_on_a_change_is_stale(first, module_project, path, old, new, expected):
    assert changed(module_project, path, old, new).keys() == FRESH.keys()
    for name, state in changed(module_project, path, old, new).items():
        assert state.startswith(expected.get(name, "fresh")), (name, state)
    assert {n: module_project.states()[n] for n in FRESH} == FRESH


def test_states_of_the_others(first, module_project):
    states = module_project.states()
    assert states["lacking"].startswith(
        "failed 4 of 6; one toy/raise 4-shot seed 1: ValueError: this task cannot be (and 3 more)"
    )
    assert states["dead"].startswith("failed see ") and states["dead"].endswith("dead.failed.ipynb")


def test_missing_runs_are_trained_again_before_a_figure_counts_as_fresh(first, module_project, executed):
    p = module_project
    shutil.rmtree(next((p.root / "runs/fake/one/toy/b").iterdir()))
    assert p.states()["good"] == "missing runs 1 of 4"
    calls = len(p.calls())
    assert rows(p.reproduce(only=["good"]))["good"].state == "fresh"  # the same run came out of it
    assert len(p.calls()) == calls + 1 and executed == []


def test_an_edited_measure_is_made_again_and_nothing_else(first, module_project, executed):
    p = module_project
    text = p.root / "lab/measures/beta.py"
    text.write_text(text.read_text() + "\n\ndef more():\n    return 1\n")
    before = (first.figures / "good.svg").stat().st_mtime_ns
    summary = p.reproduce(only=["good", "table"])
    assert [(r.artefact, r.state) for r in summary.rows] == [("good", "fresh"), ("table", "made")]
    assert (first.figures / "good.svg").stat().st_mtime_ns == before
    assert p.states()["table"] == "fresh" and executed == ["table"]


def test_a_failure_leaves_the_figure_of_before(project):
    project.study(project.artefact("good"), project.artefact("table", kind="table"))
    assert project.reproduce(jobs=2).ok
    figures = project.root / "figures/fake"
    bad = (
        "import pathlib\npathlib.Path(out, 'good.svg').write_text('half')\n1 / 0",
        "import pathlib\npathlib.Path(out, 'table.tex').write_text('x')\n"
        "pathlib.Path(out, 'table.csv').write_text('a,b\\n1,nan')",
    )
    for name, code in zip(("good", "table"), bad):
        project.notebook(name, code)
    found = rows(project.reproduce(jobs=2))
    assert found["good"].detail.startswith("ZeroDivisionError in cell 3")
    assert found["table"].detail == ("table.csv, row 2: b is nan; a missing value is an empty cell")
    assert {row.state for row in found.values()} == {"failed"}
    assert (figures / "good.svg").read_text() == "1" and (figures / "table.csv").read_text() == "epochs\n1"
    project.notebook("good", "")
    (row,) = project.reproduce(only=["good"]).rows
    assert row.state == "failed" and "wrote no good.svg or good.png" in row.detail


def test_what_came_with_a_clone_is_executed_on_own_runs_and_compared(project, executed):
    """A clone has figures/ and no runs/: all is trained, every notebook executed once, and the numbers compared."""
    project.study(project.artefact("good"), project.artefact("table", kind="table"))
    project.reproduce(jobs=2)
    shutil.rmtree(project.root / "runs")
    kept = {p: p.stat().st_mtime_ns for p in (project.root / "figures/fake").iterdir() if p.suffix != ".json"}
    executed.clear()
    again = project.reproduce(jobs=2)
    found = rows(again)
    assert sorted(executed) == ["good", "table"]
    assert {name: (row.state, row.numbers) for name, row in found.items()} == {
        "good": ("agrees", ""),
        "table": ("agrees", "identical"),
    }
    runs = len(project.calls())
    assert f"{runs} of {runs} runs are identical to those behind the figures that were there" in str(again)
    assert "numbers of 1 artefacts: 1 identical" in str(again)
    assert all(p.stat().st_mtime_ns == before for p, before in kept.items() if p.is_file())
    executed.clear()
    third = project.reproduce(jobs=2)
    assert {row.state for row in third.rows} == {"fresh"} and not executed and "identical" not in str(third)


def test_numbers_that_are_no_more_what_they_were_are_told(project):
    project.study(project.artefact("table", kind="table"))
    project.reproduce()
    project.study(project.artefact("table", kind="table", extra="params = { epochs = 4 }"))
    (row,) = project.reproduce().rows
    assert (row.state, row.numbers) == ("made", "different")
    assert "numbers different: line 2 (), epochs: 1, now 4" in row.detail
    assert (project.root / "figures/fake/table.csv").read_text() == "epochs\n4"


def test_a_repaired_notebook_says_no_more_that_it_failed(project):
    project.study(project.artefact("good", "1 / 0"))
    project.reproduce()
    assert project.states()["good"].startswith("failed see ")
    project.artefact("good")
    (row,) = project.reproduce().rows
    assert row.state == "made" and project.states()["good"] == "fresh"
    kept = sorted(p.name for p in (project.root / "figures/fake/notebooks").iterdir())
    assert kept == ["good.html", "good.ipynb"]


def test_embedded_data_that_a_notebook_names_belongs_to_it(project):
    project.write("data/models/little/weights.json", "1")
    project.write("data/other/images.csv", "a\n")
    named = project.artefact(
        "good",
        "task = 'toy/a'",
        matrix="",
        extra="params = { which = ['little'] }",
        parameters=f"{project.parameters}\nwhich = []",
    )
    project.study(named, project.artefact("plain", matrix=""))
    assert project.reproduce(jobs=2).ok and not project.calls()
    for name, states in (
        ("other/images.csv", ("fresh", "fresh")),
        ("toy/images.csv", ("stale changed: data/toy/images.csv", "fresh")),
        (
            "models/little/weights.json",
            ("stale changed: data/models/little/weights.json and data/toy/images.csv", "fresh"),
        ),
    ):
        project.write(f"data/{name}", "changed")
        found = project.states()
        assert (found["good"].replace(", ", " and "), found["plain"]) == states


def test_two_calls_on_the_same_runs(project):
    driver, _ = start(project, "slow")
    try:
        with pytest.raises(BlockingIOError, match=rf"runs is in use by process {driver.pid} on \S+, si"):
            project.reproduce()
    finally:
        driver.kill()
        driver.wait()
    project.study(project.artefact("good"))  # the lock of a killed process keeps nobody out
    assert project.reproduce().ok


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("params = { epcohs = 3 }", "no parameter 'epcohs'.*study, artefact, profile, runs, out, epochs"),
        ("params = { epochs = '3' }", r"epochs must be int, like its default 1; got '3' \(str\)"),
        ("params = { runs = 'x' }", "params must not set runs"),
    ],
)
def test_wrong_parameters_stop_everything_before_it_starts(project, extra, words):
    project.study(project.artefact("good", extra=extra))
    with pytest.raises(ValueError, match=words):
        project.reproduce()
    assert not project.calls() and not (project.root / "figures").exists()


def test_a_profile_parameter_that_nobody_declares(project):
    project.study(project.artefact("good"), extra="params = { epcohs = 3 }")
    with pytest.raises(ValueError, match=r"profile\.demo\.params: no notebook declares 'epcohs'"):
        project.reproduce()


def unwritable(folder):
    """A folder in which nobody can make anything; for root a permission bit is not enough."""
    if os.geteuid():
        folder.mkdir()
        folder.chmod(0o500)
        return folder
    return "/proc/vlmlab"


@pytest.mark.parametrize("flag", ["runs", "figures"])
def test_read_only_folder_is_one_clear_line(project, flag, capsys, monkeypatch):
    project.study(project.artefact("good"))
    monkeypatch.chdir(project.root)
    folder = unwritable(project.root / "locked")
    assert cli.main(["reproduce", "fake", f"--{flag}", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"vlmlab: error: cannot write in {folder}") and f"--{flag}" in err
    assert err.count("\n") == 1


def test_other_profiles_leave_the_committed_figures_alone(project, monkeypatch):
    path = project.study(project.artefact("good"))
    path.write_text(path.read_text().replace("profile.demo", "profile.smoke"))
    fast(monkeypatch)
    summary = project.reproduce(profile="smoke", figures=None)
    assert summary.figures == project.root / "runs/figures/smoke/fake"


def start(project, task):
    """A driver in its own process, in the middle of a long job; returns it and the worker's process id."""
    project.study(project.artefact("good"), tasks={"main": [f"toy/{task}"]})
    places = {k: str(v) for k, v in project.places.items()}
    # a test run in the background ignores Ctrl-C, and its children would too
    code = (
        f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from vlmlab import studies; studies.reproduce('fake', train='fake_train:train', **{places})"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    end = time.monotonic() + 30
    while not project.calls():
        assert time.monotonic() < end and driver.poll() is None
        time.sleep(0.05)
    return driver, int(project.calls()[0][0])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_driver(project, how):
    driver, worker = start(project, "slow")
    driver.send_signal(how)
    assert driver.wait(10) != 0
    end = time.monotonic() + 10
    while alive(worker):
        assert time.monotonic() < end, "the worker goes on without its driver"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Running, not just waiting for a parent to collect it."""
    try:
        os.kill(process, 0)
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_table_is_aligned():
    text = runner.table([runner.Row("a", "made", 1.25, "why"), runner.Row("longer", "missing runs")])
    assert text == (
        "artefact  state         seconds  detail\n"
        "a         made              1.2  why\n"
        "longer    missing runs        -"
    )
