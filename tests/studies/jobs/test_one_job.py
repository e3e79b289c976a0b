"""One job in a process, what that process remembers of the job before, and what a receipt stands for."""

import dataclasses
import functools
import os
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

from vlmlab import own_files, studies
from vlmlab.paths import PACKAGE
from vlmlab.studies import code
from vlmlab.studies.jobs import pool, receipts, train
from vlmlab.studies.jobs.worker import Memory, Request, Worker, environment, settings
from vlmlab.studies.places import Places
from vlmlab.studies.profiles import Job
from vlmlab.studies.sections import Resources


@pytest.mark.parametrize(
    ("arguments", "given", "threads", "devices"),
    [
        ({}, None, "1", None),
        ({}, "3", "3", None),
        ({"cores": 2}, "3", "2", None),
        ({"gpus": ("4", "6")}, None, "1", "4,6"),
    ],
)
def test_the_environment_of_a_job(monkeypatch, arguments, given, threads, devices):
    for name, value in {
        "OMP_NUM_THREADS": given,
        "CUDA_VISIBLE_DEVICES": None,
        "PYTHONPATH": "/mine",
    }.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTHER", "kept")
    found = environment(**arguments)
    assert (found["OMP_NUM_THREADS"], found.get("CUDA_VISIBLE_DEVICES")) == (threads, devices)
    assert found["PYTHONPATH"] == f"{PACKAGE.parent}{os.pathsep}/mine" and found["OTHER"] == "kept"
    monkeypatch.delenv("PYTHONPATH")
    assert environment()["PYTHONPATH"] == str(PACKAGE.parent)


def test_the_settings_of_a_job(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("VLMLAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VLMLAB_X", "1")
    monkeypatch.chdir(tmp_path)
    assert settings() == {"VLMLAB_X": "1"}
    assert settings(Path("books")) == {"VLMLAB_X": "1", own_files.NOTEBOOKS: str(tmp_path / "books")}
    made = Request("a", "b:c", {}, "log")
    assert (made.resources, made.cwd, made.settings, made.kind) == (
        Resources(cores=1, gpus=0, memory_gb=None, hours=24),
        str(tmp_path),
        {"VLMLAB_X": "1"},
        "",
    )


@pytest.mark.parametrize(
    ("first", "second", "touched", "kept"),
    [
        ("a", "a", False, True),
        ("a", "b", False, False),
        ("a", "a", True, False),
        ("", "", False, False),  # of no kind: nobody says that they load the same
    ],
)
def test_modules_are_kept_for_jobs_of_the_same_kind(tmp_path, monkeypatch, first, second, touched, kept):
    path = tmp_path / "of_the_job.py"
    path.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(code, "loaded_files", lambda: [str(path)])  # of thousands
    monkeypatch.setattr(code, "gc", types.SimpleNamespace(collect=lambda: None))  # of gigabytes
    memory = Memory({name for name in sys.modules})
    memory.make_ready(first, tmp_path)
    import of_the_job

    memory.remember(tmp_path)
    if touched:
        os.utime(path, ns=(1, 1))
    memory.make_ready(second, tmp_path)
    assert (sys.modules.get("of_the_job") is of_the_job) is kept
    sys.modules.pop("of_the_job", None)


RAISE = "import errno\ndef fail(**_):\n    raise OSError({number}, {words!r})\n"
FULL = "; make room where {folder}/logs lies, or name another folder with --runs"


@pytest.mark.parametrize(
    ("number", "words", "end"),
    [
        ("errno.ENOSPC", "No space left on device", FULL),
        ("errno.ENOSPC", "cannot write; make room", ""),  # it says so already
        ("errno.EACCES", "not allowed", ""),
    ],
)
def test_advice_belongs_to_a_full_disk_alone(tmp_path, number, words, end):
    (tmp_path / "failing.py").write_text(RAISE.format(number=number, words=words))
    worker = Worker()
    try:
        request = Request("a job", "failing:fail", {}, str(tmp_path / "logs/job.log"), cwd=str(tmp_path))
        answer = worker.ask(request)
    finally:
        worker.stop()
    assert answer["error"].endswith(f"] {words}{end.format(folder=tmp_path)}") and 0 <= answer["seconds"] < 60
    assert worker.ask(request)["error"] == "stopped"  # for good


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce it")
@pytest.mark.parametrize(("hard", "size", "limit"), [(-1, 4, 4), (8, 4, 4), (8, 16, 8)])
def test_a_limit_of_memory_is_no_larger_than_the_system_allows(hard, size, limit):
    code = (
        "import resource, sys\nfrom vlmlab.studies.jobs.worker import limit_memory\n"
        "hard, size = (int(x) * 10**9 if int(x) > 0 else resource.RLIM_INFINITY for x in sys.argv[1:])\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))\nlimit_memory(size)\n"
        "print([x // 10**9 for x in resource.getrlimit(resource.RLIMIT_DATA)])"
    )
    call = [sys.executable, "-c", code, str(hard), str(size)]
    done = subprocess.run(call, capture_output=True, encoding="utf-8", check=True, env=environment())
    assert done.stdout.strip() == f"[{limit}, {limit}]"


# ------------------------------------------------------------------------------------------------- training jobs

JOB = Job("fake", {"vlm": {"name": "none"}}, "one", "toy/a", "few_shot", 4, 2, ("r",), {"lr": 1})


@pytest.fixture
def index(project):
    return receipts.Index("fake", Places.of("demo", **project.places), "fake_train:train")


def test_what_is_asked_of_the_process_that_trains(index, project):
    found = index.request(JOB)
    runs, folder = project.places["runs"], project.places["runs"] / "fake"
    assert found.arguments == {
        "train": "fake_train:train",
        "job": JOB.spec,
        "runs": str(runs),
        "receipt": str(folder / f"jobs/{JOB.id}.json"),
        "inputs": index.inputs(JOB, {}),
        "project": str(project.root),
    }
    assert (found.label, found.call) == ("one toy/a 4-shot seed 2", "vlmlab.studies.jobs.receipts:perform")
    assert found.log == str(folder / f"logs/{JOB.id}.log") and found.resources is JOB.resources
    assert found.settings[own_files.NOTEBOOKS] == str(project.places["notebooks"])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 9, "shots": 1, "config": {}, "task": "toy/b", "variant": "x"}, True),
        ({"method": "two"}, False),
        ({"task": "other/a"}, False),
        ({"protocol": "vqa"}, False),
        ({"models": {"vlm": {"name": "other"}}}, False),
    ],
)
def test_jobs_of_one_kind_load_the_same_modules(index, change, same):
    kinds = {index.request(job).kind for job in (JOB, dataclasses.replace(JOB, **change))}
    assert len(kinds) == (1 if same else 2)


def test_while_nothing_is_trained_each_job_is_looked_at_once(index, monkeypatch):
    looks = []
    monkeypatch.setattr(index, "look", lambda job: looks.append(job.id))
    with index.at_rest():
        assert index.done(JOB) is None and index.done(JOB) is None and len(looks) == 1
    assert index.done(JOB) is None and len(looks) == 2


def test_files_outside_are_known_by_size_and_time(tmp_path, monkeypatch):
    (tmp_path / "w/below").mkdir(parents=True)
    for name, text in (("w/a.bin", "12"), ("w/b.txt", "123"), ("w/below/c.bin", "1")):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, ns=(5, 7))
    folder = str(tmp_path / "w")
    assert receipts.looks_of(folder, "*") == {f"{folder}/a.bin": "2 7", f"{folder}/b.txt": "3 7"}
    assert receipts.looks_of(folder, "*.bin") == {f"{folder}/a.bin": "2 7"}
    assert receipts.looks_of(f"{folder}/b.txt", "*") == {f"{folder}/b.txt/.": "3 7"}
    assert receipts.looks_of("", "*") == receipts.looks_of(f"{folder}/nope", "*") == {}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert receipts.looks_of("~/w/b.txt", "*") == {"~/w/b.txt/.": "3 7"}


def test_only_ones_own_images_have_a_state(tmp_path):
    assert receipts.state_of("emoji/food") is None and receipts.state_of("other:thing") is None


def test_runs_that_fail_are_named_and_the_others_come_back(project):
    project.study(project.artefact("good"), tasks={"main": ["toy/raise"], "rest": ["toy/a"]})
    study = studies.load("fake", project.places["notebooks"])
    places = Places.of("demo", **project.places)
    need = functools.partial(receipts.need_runs, study="fake", places=places, train="fake_train:train")
    with pytest.raises(RuntimeError) as caught:
        need(study.jobs("demo", ("main",)))
    assert str(caught.value) == "one toy/raise 4-shot seed 1: ValueError: this task cannot be (and 1 more)"
    jobs = study.jobs("demo", ("rest",))
    found = need(jobs[:1])
    assert [job for job, _ in found] == jobs[:1] and found[0][1].run.startswith("fake/one/toy/a/")
    index = receipts.Index("fake", places, "fake_train:train")
    (lost,) = study.jobs("demo", ("main",))[:1]
    assert index.error(lost) == "ValueError: this task cannot be" and index.error(jobs[0]) == ""
    assert receipts.known(index.receipt(lost))["job"] == lost.label


def test_what_is_missing_is_told_by_its_first_error():
    jobs = [dataclasses.replace(JOB, seed=s) for s in (1, 2, 3)]
    said = "one toy/a 4-shot seed 2: why (and 2 more)"
    assert receipts.lacking(jobs, {jobs[1].id: "why", jobs[2].id: "else"}) == said
    assert receipts.lacking(jobs[:1], {}) == "one toy/a 4-shot seed 1: not finished"


def test_the_digest_of_a_run_does_not_hang_on_the_order_of_its_rows(tmp_path):
    rows = pd.DataFrame({"split": ["base", "new"], "value": [1.5, 2.5]})
    turned = rows[::-1].reset_index(drop=True)
    first = train.digest(rows, tmp_path / "none")
    assert first == train.digest(turned, tmp_path / "none") and len(first) == 16
    assert first != train.digest(rows.assign(value=[1.5, 2.25]), tmp_path / "none")
    (tmp_path / "some").write_bytes(b"w")
    assert first != train.digest(rows, tmp_path / "some")


def test_a_template_of_the_study_reaches_the_task(monkeypatch, tmp_path):
    import vlmlab

    asked, run = [], types.SimpleNamespace(path=tmp_path / "r", key="k", status="ok")
    monkeypatch.setattr(vlmlab, "task", lambda name, **about: asked.append((name, about)), raising=False)
    monkeypatch.setattr(vlmlab, "fit", lambda *a, **k: run, raising=False)
    monkeypatch.setattr(vlmlab, "evaluate", lambda *a, **k: pd.DataFrame({"value": [1]}), raising=False)
    about = {"protocol": "few_shot", "shots": 4, "seed": 2, "template": "a {}."}
    train.train(JOB.spec | {"models": {}, "template": "a {}."}, str(tmp_path))
    assert asked == [("toy/a", about)] and pool.retried({}) == ""
