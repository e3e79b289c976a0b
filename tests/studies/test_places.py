"""Small safe ways of reading and writing."""

import os
from pathlib import Path

import pytest

from vlmlab.studies import places


def test_folder_from_the_project_and_from_a_notebook(project, monkeypatch, tmp_path_factory):
    project.study()
    monkeypatch.chdir(project.root)
    assert places.folder("runs") == Path("runs")
    monkeypatch.chdir(project.root / "notebooks/fake")
    assert places.folder("runs") == project.root / "runs"
    assert places.folder("/elsewhere") == Path("/elsewhere")
    monkeypatch.chdir(tmp_path_factory.mktemp("outside"))
    assert places.folder("runs") == Path("runs")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "new/a.json"
    places.write_json(path, {"b": 1, "a": "é"})
    before = path.read_bytes()

    def fill(temporary):
        temporary.write_text("half")
        raise ValueError

    with pytest.raises(ValueError):
        places.write(path, fill)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["a.json"]
    assert places.read_json(path) == {"a": "é", "b": 1}


def test_digests_follow_content(tmp_path):
    path = tmp_path / "toy/a.csv"
    path.parent.mkdir()
    path.write_text("1")
    (path.parent / "README.md").write_text("not data")
    before = places.data_digests(tmp_path, ["toy", "missing"])
    assert list(before) == ["toy/a.csv"]
    path.write_text("2")
    os.utime(path, ns=(1, 1))
    assert places.data_digests(tmp_path, ["toy"]) != before
    path.write_text("1")
    assert places.data_digests(tmp_path, ["toy"]) == before
    assert places.digest({"a": 1, "b": [2]}) == places.digest({"b": [2], "a": 1}) != places.digest({"a": 2})
