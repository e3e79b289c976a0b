"""The studies that come with vlmlab, copied to a folder of one's own."""

import pytest

from vlmlab import registry
from vlmlab.paths import shipped_notebooks
from vlmlab.studies import manifest, shipped
from vlmlab.studies.driver import notebook


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A folder of notebooks as a checkout has it, with what Jupyter leaves there."""
    folder = tmp_path / "ours"
    for name in (
        "tour.ipynb",
        "a/study.toml",
        "a/fig.ipynb",
        "a/.ipynb_checkpoints/fig.ipynb",
        "b/study.toml",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    monkeypatch.setattr(shipped, "shipped_notebooks", lambda: folder)
    return folder


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_all_or_one(ours, tmp_path):
    copied = shipped.copy(tmp_path / "all")
    assert files(tmp_path / "all/notebooks") == ["a/fig.ipynb", "a/study.toml", "b/study.toml", "tour.ipynb"]
    assert len(copied) == 4 and copied[0].read_text() == "a/fig.ipynb"
    shipped.copy(tmp_path / "one", "a")
    assert files(tmp_path / "one") == ["notebooks/a/fig.ipynb", "notebooks/a/study.toml"]
    with pytest.raises(FileNotFoundError, match="no study 'c' comes with vlmlab; there are a, b"):
        shipped.copy(tmp_path, "c")
    assert shipped_notebooks().joinpath("alignednorm/study.toml").is_file()


def test_nothing_of_ones_own_is_overwritten(ours, tmp_path):
    mine = tmp_path / "mine/notebooks/b/study.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("my own")
    with pytest.raises(FileExistsError, match=r"b/study\.toml is there and says something else"):
        shipped.copy(tmp_path / "mine")
    assert files(tmp_path / "mine") == ["notebooks/b/study.toml"] and mine.read_text() == "my own"
    mine.write_text("b/study.toml")
    before = mine.stat().st_mtime_ns
    shipped.copy(tmp_path / "mine")
    assert len(files(tmp_path / "mine")) == 4 and mine.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", manifest.names(shipped_notebooks()))
def test_every_run_of_every_profile_has_settings_that_its_method_takes(name):
    study = manifest.load(name, shipped_notebooks())
    for profile in study.profiles.values():
        for job in study.jobs(profile.name, tuple(profile.matrices)):
            registry.settings(registry.find(job.method), job.config)


@pytest.mark.parametrize("name", manifest.names(shipped_notebooks()))
def test_every_artefact_has_its_notebook_and_every_parameter_a_reader(name):
    study = manifest.load(name, shipped_notebooks())
    declared = {a.id: notebook.parameters(a.notebook) for a in study.artefacts.values()}
    for artefact in study.artefacts.values():
        notebook.check(artefact.notebook, artefact.params)
        assert {"study", "artefact", "profile", "runs", "out"} <= set(declared[artefact.id])
    for profile in study.profiles.values():
        assert set(profile.params) <= {p for found in declared.values() for p in found}, profile.name
