"""What a call of reproduce or verify asks for and says, without a kernel or a training."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vlmlab import own_files, studies
from vlmlab.studies.driver import forecast, kernel, notebook, one_by_one, runner, staleness, verify
from vlmlab.studies.driver.plan import Plan
from vlmlab.studies.jobs import cluster, pool
from vlmlab.studies.jobs.receipts import Done
from vlmlab.studies.jobs.worker import Failed, Killed
from vlmlab.studies.manifest import Artefact
from vlmlab.studies.places import Places, digest
from vlmlab.studies.profiles import Job
from vlmlab.studies.sections import Resources

FAKE = {"train": "fake_train:train"}


def planned(project, extra=""):
    project.study(project.artefact("good"), project.artefact("more", matrix="rest"), extra=extra,
                  tasks={"main": ["toy/a"], "rest": ["toy/a", "toy/b"]})  # fmt: skip
    study = studies.load("fake", project.places["notebooks"])
    return Plan(study, "demo", Places.of("demo", **project.places), "fake_train:train")


# ---------------------------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize(
    ("extra", "limit", "seconds", "needs"),
    [
        ("", None, 1800, Resources(1, 0, None, 0.6)),  # half an hour, and six minutes for the kernel
        ("", 90, 90, Resources(1, 0, None, 0.125)),
        ("resources = { hours = 2, cores = 3, memory_gb = 4 }", None, 7200, Resources(3, 0, 4, 2.1)),
    ],
)
def test_what_is_asked_for_a_notebook(project, extra, limit, seconds, needs):
    plan = planned(project, extra)
    found, root = plan.request(plan.artefacts[0], limit, True), project.root
    assert found.arguments == {
        "source": str(root / "notebooks/fake/good.ipynb"),
        "copy": str(root / "runs/fake/attempts/good/notebook.ipynb"),
        "limit": seconds,
        "project": str(root),
        "several": True,
        "values": {
            "study": "fake",
            "artefact": "good",
            "profile": "demo",
            "runs": str(root / "runs"),
            "out": str(root / "runs/fake/attempts/good"),
        },
    }
    assert (found.label, found.kind, found.resources) == ("good", "notebook", needs)
    assert found.call == "vlmlab.studies.driver.notebook:perform"
    assert found.log == str(root / "runs/fake/logs/good.log")
    assert found.settings[own_files.NOTEBOOKS] == str(root / "notebooks")


def test_runs_are_planned_once_and_remembered_by_profile_and_artefact(project):
    plan = planned(project)
    assert [job.task for job in plan.all_jobs()] == ["toy/a", "toy/a", "toy/b", "toy/b"]
    assert plan.values(plan.artefacts[0])["out"] == str(project.root / "figures/fake")
    for artefact in plan.artefacts:
        plan.remember(artefact, {"notebook": artefact.id})
    stored = json.loads((project.root / "runs/fake/executed.json").read_text())
    assert stored == {f"demo/{n}": digest({"notebook": n}) for n in ("good", "more")}


def test_runs_behind_the_figures_that_are_there(project, monkeypatch):
    plan = planned(project)
    done = {job.id: Done("r", f"k{n}", "d") for n, job in enumerate(plan.all_jobs())}
    monkeypatch.setattr(plan.index, "done", lambda job: done.get(job.id))
    now = staleness.of_runs([(job, done[job.id]) for job in plan.all_jobs()])
    before = dict(now)
    before[next(iter(before))] = "another key"
    monkeypatch.setattr(plan.state, "runs", lambda: before)
    assert plan.same_runs() == (3, 4)


# -------------------------------------------------------------------------------------------------- what is ahead

AHEAD = forecast.Forecast("s", "demo", 4, ["one", "two"], 3, ["fig1"], 36.0, 1.234, 99.6, "")
TRAIN = "s, profile demo: 2 of 4 runs are to be trained "


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, f"{TRAIN}(about 36 minutes, 1.23 GB of 100 free), 1 of 3 artefacts are to be made"),
        ({"gigabytes": None}, f"{TRAIN}(about 36 minutes), 1 of 3 artefacts are to be made"),
        (
            {"minutes": None},
            f"{TRAIN}(how long is not known: none was measured here yet; 100 GB are free), "
            "1 of 3 artefacts are to be made",
        ),
        ({"missing": []}, "s, profile demo: 1 of 3 artefacts are to be made"),
        ({"missing": [], "stale": []}, "s, profile demo: all 4 runs and 3 artefacts are there"),
        (
            {"missing": [], "page": "f/index.html"},
            "s, profile demo: 1 of 3 artefacts are to be made\n"
            "meanwhile f/index.html shows what was made before; open it in a browser",
        ),
    ],
)
def test_a_forecast_in_words(change, text):
    assert str(dataclasses.replace(AHEAD, **change)) == text


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0, "a minute"), (1.4, "a minute"), (1.6, "2 minutes"), (119, "119 minutes"), (120, "2.0 hours")],
)
def test_times_in_words(minutes, words):
    assert forecast.spoken(minutes) == words


def job(method="one", seed=1, **more):
    return Job("fake", {"vlm": {"name": "none"}}, method, "toy/a", "few_shot", 4, seed, None, {}, **more)


@pytest.mark.parametrize(
    ("seconds", "total"),
    [
        ({}, None),
        ({("one", 1): 10, ("one", 2): 30, ("two", 1): 100}, 20 + 100 + 140 / 3),  # none of three
        ({("one", 3): 7, ("two", 1): 100}, 7 + 100 + 107 / 2),  # its own from before
        ({("one", 1): True, ("two", 1): -1, ("two", 2): "x", ("one", 2): 1e18}, None),
        ({("one", 1): 0}, 0),
        ({("one", 1): 0.5, ("two", 2): None}, 1.5),
    ],
)
def test_what_was_measured_of_runs_like_those_that_are_missing(seconds, total):
    jobs = [job(m, s) for m in ("one", "two") for s in (1, 2, 3)] + [job("three")]
    receipts = {j.id: {"seconds": seconds[m]} if (m := (j.method, j.seed)) in seconds else {} for j in jobs}
    missing = [j for j in jobs if j.seed == 3 or j.method == "three"]
    found = forecast.total(missing, jobs, receipts, "seconds")
    assert found == (None if total is None else pytest.approx(total))


def test_minutes_gigabytes_and_what_is_free(project, monkeypatch):
    plan = planned(project)
    for each in plan.all_jobs()[:2]:  # of other inputs by now
        project.write(f"runs/fake/jobs/{each.id}.json", '{"seconds": 90, "bytes": 5e8}')
    asked = []
    monkeypatch.setattr(
        forecast.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=7e9)
    )
    project.write("figures/index.html", "")
    found = forecast.forecast(plan, 2)
    assert (found.minutes, found.gigabytes, found.free) == (4 * 90 / 60 / 2, 2, 7)
    assert forecast.forecast(plan).minutes == 6 and asked[0] == project.root / "runs"
    assert found.page == (project.root / "figures/index.html").as_posix()
    assert found.missing[0] == "one toy/a 4-shot seed 1" and found.stale == ["good", "more"]
    assert forecast.existing(project.root / "no/such/folder") == project.root


def test_the_command_of_one_run(project, monkeypatch):
    planned(project)
    monkeypatch.chdir(project.root)
    first, *_ = one_by_one.commands("fake", **FAKE)
    (wanted, *_) = studies.load("fake").jobs("demo", ("main",))
    assert first == (
        f"cd {project.root} && {sys.executable} -m vlmlab.cli reproduce fake --profile demo "
        f"--runs {project.root}/runs --notebooks {project.root}/notebooks --job {wanted.id}"
    )
    with pytest.raises(PermissionError, match=r"cannot write in /proc/nowhere/fake .* --runs"):
        one_by_one.train_one("fake", "demo", wanted.id, "/proc/nowhere", **FAKE)


# ----------------------------------------------------------------------------------------- what came of a call


@pytest.mark.parametrize(
    ("numbers", "same", "text"),
    [
        (["", ""], (2, 3), ""),
        (["identical", ""], (0, 0), "numbers of 1 artefacts: 1 identical\n"),
        (
            ["different", "within tolerance", "identical", "identical"],
            (2, 3),
            "2 of 3 runs are identical to those behind the figures that were there; "
            "numbers of 4 artefacts: 2 identical, 1 within tolerance, 1 different\n",
        ),
    ],
)
def test_whether_numbers_agree(numbers, same, text):
    rows = [runner.Row(f"fig{i}", "made", numbers=n) for i, n in enumerate(numbers)]
    found = runner.Summary(rows, Path("f"), same)
    assert found.agreement == text and str(found) == f"{runner.table(rows)}\n\n{text}figures are in f"


@pytest.mark.parametrize(
    ("state", "ok"), [("made", True), ("fresh", True), ("agrees", True), ("failed", False), ("missing runs", False)]
)  # fmt: skip
def test_a_summary_as_plain_values(state, ok):
    found = runner.Summary(
        [runner.Row("a", "fresh"), runner.Row("b", state, 1.5, "why", "identical")], Path("f/s")
    )
    plain = {"artefact": "b", "state": state, "seconds": 1.5, "detail": "why", "numbers": "identical"}
    fresh = {"artefact": "a", "state": "fresh", "seconds": 0.0, "detail": "", "numbers": ""}
    assert found.plain() == {"ok": ok, "figures": "f/s", "artefacts": [fresh, plain], "same_runs": (0, 0)}


@pytest.mark.parametrize(
    ("needs", "found"),
    [
        ("cores = 99", []),
        ("gpus = 1", ["notebooks", "runs of main", "runs of rest"]),
        ("memory_gb = 16", []),
        ("memory_gb = 17", ["notebooks", "runs of main", "runs of rest"]),
    ],
)
def test_what_the_machine_lacks(project, monkeypatch, needs, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(pool, "memory_here", lambda: 16.0)
    study = planned(project, f"resources = {{ {needs} }}").study
    said = runner.too_much(study, "demo", 1)
    assert [line.split(": needs ")[0] for line in said] == [
        f"{study.path}, resources of profile demo, {name}" for name in found
    ]


def test_who_does_the_work(tmp_path):
    with runner.runner_of(3, None, None, tmp_path) as local:
        assert isinstance(local, pool.Pool) and local.slots == 3
    with runner.runner_of(3, "tcp://x:1", None, tmp_path) as other:
        assert other.func is cluster.answers and other.keywords == {
            "scheduler": "tcp://x:1",
            "folder": tmp_path,
        }


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (None, "a\n1\n", ("", "")),
        ("a\n1\n", None, ("", "")),
        ("a\n1\n", "a\n1\n", ("identical", "numbers identical")),
        ("a\n1\n", "a\n2\n", ("different", "numbers different: line 2 (), a: 1, now 2")),
        ("a\n1.0\n", "a\n1\n", ("identical", "numbers identical: other bytes, same cells")),
    ],
)
def test_numbers_of_before_and_now(tmp_path, before, after, found):
    for name, text in (("before", before), ("after", after)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "fig.csv").write_text(text)
    artefact = SimpleNamespace(id="fig")
    assert runner.compared(artefact, tmp_path / "before", tmp_path / "after") == found


def test_numbers_of_before_that_cannot_be_read(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/fig.csv").write_bytes(b"\xff\xfe")
    (tmp_path / "fig.csv").write_text("a\n1\n")
    state, detail = runner.compared(SimpleNamespace(id="fig"), tmp_path / "old", tmp_path)
    assert state == "different" and detail.startswith(f"{tmp_path}/old/fig.csv cannot be read: 'utf-8'")


def test_a_gallery_that_cannot_be_made_is_said_and_no_more(project, monkeypatch, capsys):
    def build(figures, notebooks):
        raise ValueError(f"no study in {notebooks}")

    monkeypatch.setattr(runner.gallery, "build", build)
    monkeypatch.setattr(
        runner, "make", lambda plan, *rest: {a.id: runner.Row(a.id, "fresh") for a in plan.artefacts}
    )
    project.study(project.artefact("good", matrix=""))
    assert project.reproduce().ok
    assert capsys.readouterr().err.splitlines()[-1] == f"no gallery: no study in {project.root}/notebooks"


# ------------------------------------------------------------------------------------------------------- verify


def test_checks_are_a_table():
    checks = [
        verify.Check("fig1", "identical", pictures="svg same"),
        verify.Check("b", "not compared", "why"),
    ]
    assert verify.table(checks) == (
        "artefact  numbers       pictures  detail\n"
        "fig1      identical     svg same\n"
        "b         not compared  -         why"
    )


def test_notebooks_are_verified_in_a_folder_of_their_own(project, monkeypatch):
    planned(project)
    asked = []

    def answers(requests, slots):
        asked.append((requests, slots))
        yield from ((number, {"error": "why"}) for number, _ in enumerate(requests))

    monkeypatch.setattr(verify.pool, "answers", answers)
    monkeypatch.setattr(verify, "not_possible", lambda plan, artefact: "")
    for only in (["good"], ["more", "good"]):
        found = verify.verify("fake", only=only, jobs=3, **project.places, **FAKE)
        assert found == [verify.Check(name, "not compared", "why") for name in sorted(only)]
    for requests, slots in asked:
        assert slots == 3 and {r.arguments["several"] for r in requests} == {len(requests) > 1}
        for request in requests:
            folder = Path(request.arguments["copy"]).parent
            assert request.arguments["copy"].endswith(f"/{request.label}/notebook.ipynb")
            assert request.arguments["values"]["out"] == folder.as_posix()
            assert request.log == str(folder.parent / f"{request.label}.log")
            assert not folder.is_relative_to(project.root) and not folder.parent.exists()


@pytest.mark.parametrize("stale", [0, 1, 2])
def test_kernels_share_imports_where_several_notebooks_are_stale(project, monkeypatch, stale):
    """And what is said of a retried run stands beside the artefacts that read it."""
    plan, asked = planned(project), []
    why = dict(zip(("good", "more"), ["changed"] * stale + [""] * 2))
    monkeypatch.setattr(plan, "look", lambda artefact: (why[artefact.id], {}, []))
    (first, *_) = plan.all_jobs()

    def run(requests):
        asked.extend(request.arguments["several"] for request in requests)
        yield from ((number, {"error": "why", "seconds": 2.0}) for number, _ in enumerate(requests))

    rows = runner.make(plan, runner.Outcome(retried={first.id: "killed once"}), run, 60)
    assert asked == [stale > 1] * stale
    for number, name in enumerate(("good", "more")):
        failed = runner.Row(name, "failed", 2.0, "why")
        assert rows[name] == (failed if number < stale else runner.Row(name, "fresh", detail="killed once"))


@pytest.mark.parametrize(
    ("now", "detail"),
    [
        (
            "n,a,b\nx,2,3\ny,5,4\n",
            "line 2 (x), a: 1, now 2; line 2 (x), b: 2, now 3; line 3 (y), a: 3, now 5",
        ),
        ("n,a,b\nx,1,2\n,3,4\n", "line 3 (y), n: y, now empty"),
        ("", "columns were n, a, b, now "),
    ],
)
def test_the_first_three_cells_that_differ_are_named(tmp_path, now, detail):
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("n,a,b\nx,1,2\ny,3,4\n")
    new.write_text(now)
    assert verify.compare(old, new) == ("different", detail)


@pytest.mark.parametrize(
    ("suffix", "text", "other"),
    [
        (".tex", "% RECORD\n\\a\n% kept\n", "\\b"),
        (".svg", "<svg><dc:description>RECORD\n</dc:description><a/></svg>", "<b"),
        (".html", '<p><meta name="vlmlab" content="RECORD"><a>', "<b"),
        (".pdf", "/Keywords (RECORD \\) x) <a\nxref\nRECORD", "<b"),
    ],
)
def test_a_record_is_no_part_of_a_drawing(tmp_path, suffix, text, other):
    def drawing(text):
        (tmp_path / f"fig{suffix}").write_text(text)
        return verify.drawing(tmp_path / f"fig{suffix}")

    plain = drawing(text.replace("RECORD", "one"))
    assert (
        plain
        == drawing(text.replace("RECORD", "another"))
        != drawing(text.replace(r"\a", other).replace("<a", other))
    )


def test_a_picture_whose_record_is_lost_is_not_compared(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fig.svg").write_text("<svg/>")
    assert "fig.svg" in verify.pictures("fig", tmp_path / "old", tmp_path / "new")


# ------------------------------------------------------------------------------------------- one notebook's text

TYPED = """a: int | str = 1
b: "int" = 1.5
c: dict[str, int] = {}
d: Other | None = None
e: int
f = g = "x"
h.i = 3
j: None = 4
k, l = 1, 2
"""


def test_what_parameters_may_be(project):
    found = notebook.parameters(project.notebook("n", parameters=TYPED))
    assert {n: (p.types, p.default) for n, p in found.items()} == {
        "a": ((int, str), "1"),
        "b": ((float,), "1.5"),
        "c": ((dict,), "{}"),
        "d": ((), "None"),
        "f": ((str,), "'x'"),
        "j": ((type(None),), "4"),
    }
    with pytest.raises(ValueError, match=r"the parameters cell is no Python: .*, line 2"):
        notebook.parameters(project.notebook("n", parameters="a = 1\nb = ("))
    with pytest.raises(ValueError, match="has no parameter 'x'; its parameters cell declares nothing"):
        notebook.check(project.notebook("n", parameters="# none"), {"x": 1})


@pytest.mark.parametrize(
    ("metadata", "good"),
    [
        ({}, True),
        ({"kernelspec": {"language": "python"}}, True),
        ({"kernelspec": {"language": ""}}, True),
        ({"kernelspec": {}}, True),
        ({"kernelspec": 5}, True),
        ({"kernelspec": {"language": "julia"}}, False),
    ],
)
def test_notebooks_are_in_python_and_may_lack_metadata(tmp_path, metadata, good):
    cell = {"cell_type": "code", "source": ["a = ", "1"]}
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "metadata": metadata, "cells": [cell]}))
    if good:
        assert notebook.read(path)["cells"] == [cell | {"metadata": {}}]
    else:
        with pytest.raises(ValueError, match="is a notebook in 'julia'"):
            notebook.read(path)


@pytest.mark.parametrize("before", [None, "", "/other"])
def test_what_lies_beside_a_notebook_is_importable_for_a_while(monkeypatch, tmp_path, before):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", before or "")
    if before is None:
        monkeypatch.delenv("PYTHONPATH")
    with notebook.importable(Path("books")):
        found = os.environ["PYTHONPATH"].split(os.pathsep)
    assert found == [str(tmp_path / "books"), *([before] if before else [])]
    assert os.environ.get("PYTHONPATH") == before


def code(source, *tags, count=None, ran=True):
    about = {"papermill": {"start_time": "now"}} if ran else {"papermill": {"start_time": None}}
    metadata = about | ({"tags": [*tags]} if tags else {"tags": "none"})
    return {"cell_type": "code", "source": source, "metadata": metadata, "execution_count": count}


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([code("a", ran=False)], "the start of the kernel"),
        ([code("a", count=1), code("b", count=7), code("c", ran=False)], "cell 2 (In [7])"),
        ([code("a"), code("b")], "cell 2"),
        ([code("a", "parameters"), code("a", "injected-parameters"), code("b", count=3)], "cell 2 (In [3])"),
        ([code("!", "papermill-error-cell-tag"), code("b", count=1)], "cell 1 (In [1])"),
    ],
)
def test_where_a_notebook_stopped(tmp_path, cells, words):
    path = tmp_path / "n.ipynb"
    assert notebook.place(path) == "the start of the kernel"
    path.write_text(json.dumps({"nbformat": 4, "cells": cells}))
    assert notebook.place(path) == words


BOOK = {"cells": [code("import vlmlab")], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}
PLAIN = BOOK | {"cells": [code("1 + 1"), code("vlmlab") | {"cell_type": "markdown"}]}


@pytest.fixture
def asked(monkeypatch):
    """What papermill is asked for; it does nothing but raise what is set."""
    import papermill

    calls = SimpleNamespace(raises=None)

    def execute(book, target, **options):
        calls.book, calls.target, calls.options = book, target, options
        if calls.raises:
            raise calls.raises

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return calls


def attempt(tmp_path, book=BOOK, several=False):
    (tmp_path / "n.ipynb").write_text(json.dumps(book))
    return notebook.attempt(
        tmp_path / "n.ipynb", tmp_path / "copy.ipynb", {"a": 1}, 50.0, "/project", several
    )


@pytest.mark.parametrize(("book", "several"), [(BOOK, True), (BOOK, False), (PLAIN, True)])
def test_how_a_notebook_is_executed(tmp_path, asked, book, several):
    assert attempt(tmp_path, book, several) is None
    options = asked.options
    assert options["parameters"] == {"a": 1} and asked.target == str(tmp_path / "copy.ipynb")
    forked = several and book is BOOK and kernel.CAN_FORK
    assert options["kernel_manager_class"] is (kernel.ForkedKernel if forked else kernel.OwnKernel)
    assert options["start_timeout"] == 180 and options["shutdown_kernel"] == "immediate"
    assert options["progress_bar"] is False and (options["kernel_name"], options["language"]) == (
        "python3",
        "python",
    )
    first = f"--IPKernelApp.exec_lines={notebook.FIRST}"  # a vlmlab/ where it runs is another one
    assert options["extra_arguments"] == ["--IPKernelApp.log_level=ERROR", first]
    assert 40 < options["timeout_func"](None) <= 50
    last = asked.book["cells"][-1]
    assert len(asked.book["cells"]) == len(book["cells"]) + 1 and last["id"] == "vlmlab-code"
    assert f"_save({str(tmp_path / 'vlmlab-code')!r}, '/project', _files)" in last["source"]


def test_how_an_execution_fails(tmp_path, asked):
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    (tmp_path / "copy.ipynb").write_text(json.dumps({"nbformat": 4, "cells": [code("a", count=5)]}))
    where = "cell 1 (In [5])"
    for error, kind, text in (
        (PapermillExecutionError(0, 5, "a", "KeyError", "one\ntwo", []), Failed, f"KeyError in {where}: one"),
        (PapermillExecutionError(0, 5, "a", "KeyError", "", []), Failed, f"KeyError in {where}: "),
        (DeadKernelError("died"), Killed, f"the kernel died in {where}, perhaps out of memory"),
        (CellTimeoutError("late"), Failed, f"over the limit of 50 s in {where}"),
        (OSError("no port\nleft"), Failed, f"OSError in {where}: no port"),
    ):
        asked.raises = error
        found = attempt(tmp_path)
        assert type(found) is kind and str(found) == text


def test_the_first_line_of_a_kernel_looks_in_the_working_folder_last(monkeypatch):
    for path, wanted in ((["", "a", "b"], ["a", "b", ""]), (["a"], ["a"])):
        monkeypatch.setattr(sys, "path", list(path))
        eval(notebook.FIRST)
        assert sys.path == wanted


# ---------------------------------------------------------------------------------------------------- kernels


class Process:
    """As multiprocessing shows one, here without any."""

    pid, exitcode = 10**8, None

    def __init__(self):
        self.calls, self.alive = [], True

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))

    def is_alive(self):
        return self.alive


def test_a_forked_process_is_shown_as_one_that_was_started(monkeypatch):
    process, sent = Process(), []
    monkeypatch.setattr(os, "kill", lambda *call: sent.append(call))
    child = kernel.Child(process)
    assert child.poll() is None and process.calls == [("join", 0)] and child.pid == 10**8
    process.exitcode = 3
    assert child.poll() == child.wait() == 3 and process.calls[-1] == ("join",)
    child.send_signal(2)
    process.alive = False
    child.send_signal(9)
    assert sent == [(10**8, 2)]  # none to a number that may be another's by now
    child.kill()
    child.terminate()
    assert [name for name, *_ in process.calls[-2:]] == ["kill", "terminate"]
    assert child.stdin is child.stdout is child.stderr is None


@pytest.mark.parametrize("kind", [kernel.OwnKernel, kernel.ForkedKernel])
def test_kernels_listen_on_this_machine_alone_and_are_this_interpreter(kind):
    made = kind()
    assert (made.transport, made.ip) == ("tcp", "127.0.0.1")
    spec = made.kernel_spec
    assert spec.argv == [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    provisioner = spec.metadata.get("kernel_provisioner", {}).get("provisioner_name")
    assert provisioner == ("vlmlab-forked" if kind is kernel.ForkedKernel else None)
    assert spec.language == "python"


# --------------------------------------------------------------------------------------------------- staleness


def test_code_cells_without_what_ipython_adds():
    cells = ["%matplotlib inline\na = 1", "if a:\n    !ls", "broken (", "x = '\0'", "b = 2"]
    assert staleness.python_of(cells) == "pass\na = 1\nif a:\n    pass\nb = 2"


def test_texts_at_any_depth():
    value = {"a": "x", "b": [1, ("y", {"c": "z"})], "d": None, "e": 2.5}
    assert staleness.texts_of(value) == ["x", "y", "z"]
    assert sorted(staleness.texts_in("a = 'x' + f(b'q', ['y'], 3)")) == ["x", "y"]


def test_what_shapes_an_artefact(tmp_path):
    """Raw cells, and where runs and files lie, play no part; each other part is named."""
    cells = [code("a = 'toy/x'"), {"cell_type": "raw", "source": "one", "metadata": {}}]
    path = tmp_path / "n.ipynb"
    for name in ("toy/a.csv", "published/s/t.csv", "models/little/w.json", "other/b.csv"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text("1")
    artefact = Artefact("fig", "", path, "figure", (), {})

    def parts(values=None, models=None, runs=(), cells=cells):
        path.write_text(json.dumps({"nbformat": 4, "cells": cells}))
        values = {"runs": "r", "out": "o", "size": 1} | (values or {})
        return staleness.parts(artefact, "s", values, models or {}, list(runs), tmp_path / "data")

    plain = parts()
    assert {*plain} == {"notebook", "parameters", "model", "version of vlmlab", "data/published/s/t.csv", "data/toy/a.csv"}  # fmt: skip
    assert plain == parts({"runs": "elsewhere", "out": "there"}) == parts(cells=[cells[0]])

    def changed(**about):
        now = parts(**about)
        return {name for name in {*now, *plain} if now.get(name) != plain.get(name)}

    assert changed(values={"size": 2}) == {"parameters"}
    assert changed(cells=[*cells, code("1")]) == {"notebook"}
    assert changed(models={"vlm": {"name": "little"}}) == {"model", "data/models/little/w.json"}
    one = job()
    assert parts(runs=[(one, Done("r", "k", "d"))])[f"run one toy/a 4-shot seed 1 ({one.id[:6]})"] == "k d"
