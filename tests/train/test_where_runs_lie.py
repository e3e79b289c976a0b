"""Where runs lie and are found: linked folders, names that look like paths."""

import pytest
from small_learners import Growing, Numbers

import vlmlab
from vlmlab.train.run import results, runs
from vlmlab.train.run_folder import found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path_factory.mktemp("whole"), device="cpu")
    row = {"task": "numbers", "protocol": "pairs", "rule": "unified", "test": "x", "n": 3, "split": "test"}
    run.save_results([row | {"metric": name, "value": 0.5} for name in ("accuracy", "other")])
    return run


def test_linked_runs_are_found_once(whole, tmp_path):
    root = tmp_path / "linked"
    root.mkdir()
    (root / "adhoc").symlink_to(whole.path.parents[2])
    (root / "again").symlink_to(whole.path.parents[2])
    (root / "up").symlink_to(root)
    assert len(found(root)) == 1 and len(results(root)) == 2
    assert vlmlab.fit(Growing, {}, Numbers(), out=root, device="cpu").path.resolve() == whole.path.resolve()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        runs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "names",
    [
        {"study": "../x"},
        {"study": "/tmp/x"},
        {"study": "a/b"},
        {"study": ""},
        {"study": "a" * 300},
        {"variant": "../x"},
    ],
)
def test_names_never_become_paths(tmp_path, names):
    with pytest.raises(ValueError, match=f"{next(iter(names))} must be a name"):
        vlmlab.fit(Growing, {}, Numbers(), out=tmp_path / "runs", device="cpu", **names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("id", ["../../x", "/tmp/x", "..", "a" * 400, "a\0b", "C:\\x"])
def test_the_name_of_a_task_never_becomes_a_path(tmp_path, id):
    run = vlmlab.fit(Growing, {}, Numbers(id=id), out=tmp_path, device="cpu")
    assert len(run.path.relative_to(tmp_path).parts) == 4 and run.path.resolve().is_relative_to(tmp_path)
