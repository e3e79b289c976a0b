"""Run folders: damaged files, results."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vlmlab
from vlmlab.files import write
from vlmlab.train.key import key_of
from vlmlab.train.records import read_lines
from vlmlab.train.run import Run, results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    task = vlmlab.task("emoji/animals", protocol="base_to_new", shots=4, seed=1, backgrounds=1)
    run = vlmlab.fit("zero_shot", vlmlab.load("tiny", device="cpu"), task, out=root)
    vlmlab.evaluate(run, task)
    return run


@pytest.fixture
def copy(run, tmp_path):
    return Run(shutil.copytree(run.path, tmp_path / "run"))


def test_results_are_tidy_and_filtered(run):
    frame = results(run.path.parents[3])
    assert len(frame) == 6 and set(frame["split"]) == {"base", "new", "hm"} and set(frame["key"]) == {run.key}
    assert frame["method"].eq("zero_shot").all() and frame["shots"].eq(4).all()
    assert len(results(run.path.parents[3], split="new", metric=["accuracy"])) == 1
    with pytest.raises(ValueError, match="no column 'splitt'"):
        results(run.path.parents[3], splitt="new")


def test_no_runs_is_an_empty_table(tmp_path):
    assert list(results(tmp_path).columns) and results(tmp_path).empty


def test_a_damaged_run_names_file_and_fix(copy):
    (copy.path / "run.json").write_text('{"key": ')
    with pytest.raises(ValueError, match=r"run.json is damaged .* move the folder"):
        copy.info  # noqa: B018


def test_a_record_without_its_fields_is_damaged(copy):
    (copy.path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run.json is damaged .* move the folder"):
        copy.status  # noqa: B018


def test_a_damaged_line_names_file_and_fix(copy):
    path = copy.path / "results.jsonl"
    path.write_text('{"metric": \n' + path.read_text())
    with pytest.raises(ValueError, match=r"results.jsonl is damaged .*line 1.* move the folder"):
        results(copy.path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run.json; vlmlab.fit makes run folders"):
        Run(tmp_path)


def test_the_record_says_what_made_the_run(run):
    info = run.info
    assert {"torch", "open_clip", "vlmlab", "python"} <= info["versions"].keys()
    assert info["git"].keys() == {"commit", "dirty"} and info["device"] == "cpu"
    assert len(info["job"]["models"]["vlm"]["weights"]) == len(info["job"]["data"]) == 64
    assert info["status"] == "finished" and info["started"] <= info["finished"] and info["steps"] == 0
    # folders are named after study, method, task and key
    assert run.path.parts[-4:] == ("adhoc", "zero_shot", "emoji.animals", run.key)
    assert str(Path.home()) not in (run.path / "run.json").read_text()


def test_reading_runs_needs_no_torch(run):
    program = (
        "import sys; from vlmlab.train.run import Run, results\n"
        "assert len(results(sys.argv[1])) == 6 and Run(sys.argv[1]).status == 'finished'\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_other_numbers_of_the_same_question_replace(copy):
    before = copy.results
    copy.save_results([{**read_lines(copy.path / "results.jsonl")[0], "value": -1.0}])
    after = copy.results
    assert len(after) == len(before) and after["value"].eq(-1).sum() == 1


def test_a_line_cut_by_a_kill_is_dropped(copy):
    path = copy.path / "results.jsonl"
    rows = read_lines(path)
    with path.open("a") as f:
        f.write('{"metric": "accu')
    assert read_lines(path) == rows


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(temporary):
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*a.json.*No space left"):
        write(path, full)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_key_is_that_of_the_content():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})
