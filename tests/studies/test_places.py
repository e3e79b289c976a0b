"""Where a study finds its folders, and digests of what lies in them."""

import os
from pathlib import Path

from vlmlab.paths import shipped_notebooks
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


def test_studies_come_from_here_or_from_vlmlab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert places.notebooks_folder() == places.Places.of("demo").notebooks == shipped_notebooks()
    assert places.notebooks_folder("other") == Path("other")
    study = tmp_path / "notebooks/mine/study.toml"
    study.parent.mkdir(parents=True)
    assert places.notebooks_folder() == shipped_notebooks()
    study.touch()
    assert places.notebooks_folder() == Path("notebooks")
    assert places.Places.of("demo").project == tmp_path


def test_what_is_missing_or_damaged_is_not_known(tmp_path):
    path = tmp_path / "a.json"
    assert places.known(path) == {}
    for text in ("{", "[1]", ""):
        path.write_text(text)
        assert places.known(path) == {}
    path.write_text('{"a": 1}')
    assert places.known(path) == {"a": 1}


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
