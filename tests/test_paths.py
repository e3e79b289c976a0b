"""Where vlmlab's own files are, and what a message says to do about one that is missing."""

from pathlib import Path

import pytest

from vlmlab import paths
from vlmlab.tasks.emoji import data


def test_the_checkout_has_its_data_beside_the_package(monkeypatch):
    monkeypatch.delenv("VLMLAB_DATA", raising=False)
    root = Path(__file__).parents[1]
    assert paths.data_dir() == root / "data" and paths.shipped_notebooks() == root / "notebooks"


@pytest.mark.parametrize("value", ["", "~/x"])
def test_a_folder_of_ones_own(monkeypatch, value):
    monkeypatch.setenv("VLMLAB_DATA", value)
    assert paths.data_dir() == (Path.home() / "x" if value else paths.HOME / "data")


@pytest.mark.parametrize(
    ("variable", "git", "advice"),
    [
        (None, True, "restore it with `git checkout -- data`"),
        (None, False, "install vlmlab again"),
        ("own", True, "VLMLAB_DATA must name a folder like the data/ that comes with vlmlab"),
    ],
)
def test_a_missing_file_says_what_helps_there(tmp_path, monkeypatch, variable, git, advice):
    monkeypatch.delenv("VLMLAB_DATA", raising=False)
    if variable:
        monkeypatch.setenv("VLMLAB_DATA", str(tmp_path / variable))
    monkeypatch.setattr(paths, "HOME", tmp_path)
    if git:
        (tmp_path / ".git").mkdir()
    with pytest.raises(FileNotFoundError, match=advice) as caught:
        data.present(paths.data_dir() / "emoji/concepts.parquet")
    assert ("git" in str(caught.value)) == (git and not variable)
