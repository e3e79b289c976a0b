"""What is ahead is said before anything starts; runs can be done one by one by printed commands."""

import json
import subprocess

import pytest

from vlmlab import cli, studies
from vlmlab.studies.driver import one_by_one
from vlmlab.studies.driver.forecast import spoken

FAKE = {"train": "fake_train:train"}


@pytest.fixture
def two(project):
    """Two artefacts, the second of two more runs."""
    project.study(
        project.artefact("good"),
        project.artefact("more", matrix="rest"),
        tasks={"main": ["toy/a"], "rest": ["toy/b"]},
    )
    return project


def ahead(project, **options):
    return studies.plan("fake", **project.places, **FAKE, **options)


def test_before_anything_was_measured(two):
    found = ahead(two)
    assert (found.runs, len(found.missing), found.artefacts, found.stale) == (4, 4, 2, ["good", "more"])
    assert found.minutes is None and found.gigabytes is None and found.page == ""
    assert "4 of 4 runs are to be trained (how long is not known: none was measured here yet" in str(found)
    assert two.calls() == [] and not (two.root / "runs").exists() and not (two.root / "figures").exists()


def test_times_and_sizes_are_those_of_receipts(two):
    assert two.reproduce(only=["good"]).ok
    for path in (two.root / "runs/fake/jobs").iterdir():
        receipt = json.loads(path.read_text())
        assert 0 < receipt["seconds"] < 60 and receipt["bytes"] > 10
        path.write_text(json.dumps(receipt | {"seconds": 600.0, "bytes": 2e9}))
    found = ahead(two, jobs=2)
    assert len(found.missing) == 2 and found.stale == ["more"]
    assert found.minutes == pytest.approx(2 * 600 / 60 / 2) and found.gigabytes == pytest.approx(4)
    assert "2 of 4 runs are to be trained (about 10 minutes, 4.00 GB of " in str(found)
    assert "figures/index.html shows what was made before" in str(found)
    assert ahead(two, only=["good"]).missing == []
    assert str(ahead(two, only=["good"])) == "fake, profile demo: all 2 runs and 1 artefacts are there"


@pytest.mark.parametrize("damage", [{"seconds": "x", "bytes": None}, {"seconds": -1, "bytes": True}])
def test_damaged_receipts_measure_nothing(two, damage):
    assert two.reproduce(only=["good"]).ok
    for path in (two.root / "runs/fake/jobs").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    assert ahead(two).minutes is None


def test_the_plan_comes_before_the_work(two, capsys):
    assert two.reproduce(only=["good"]).ok
    err = capsys.readouterr().err
    assert err.startswith("fake, profile demo: 2 of 2 runs are to be trained")
    assert "training: 0/2 run" in err and "\r" not in err
    assert two.reproduce(only=["good"]).ok and capsys.readouterr().err == ""


def test_the_command_stops_after_the_plan(two, monkeypatch, capsys):
    monkeypatch.chdir(two.root)
    for flag in ("--plan", "-n", "--dry-run"):
        assert cli.main(["reproduce", "fake", flag]) == 0
        assert "4 of 4 runs are to be trained" in capsys.readouterr().out
    assert cli.main(["reproduce", "fake", "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stale"] == ["good", "more"]
    assert not (two.root / "runs").exists()


def test_resources_that_this_machine_lacks_are_said_first(two, monkeypatch, capsys):
    path = two.root / "notebooks/fake/study.toml"
    path.write_text(
        path.read_text().replace('model = "none"', 'model = "none"\nresources = { memory_gb = 1e12 }')
    )
    monkeypatch.chdir(two.root)
    assert cli.main(["reproduce", "fake", "--only", "nosuch"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        "note: notebooks/fake/study.toml, resources of profile demo, notebooks: needs 1e+12 GB"
    )
    assert "runs of main" in err and "no artefact 'nosuch'" in err.splitlines()[-1]


@pytest.mark.parametrize(("minutes", "words"), [(0.2, "a minute"), (36, "36 minutes"), (600, "10.0 hours")])
def test_spoken(minutes, words):
    assert spoken(minutes) == words


def test_one_command_for_each_run(two, tmp_path, monkeypatch):
    """A printed line trains the run that it stands for, from any folder; then only the others are missing."""
    monkeypatch.chdir(two.root)
    lines = one_by_one.commands("fake", **FAKE)
    assert len(lines) == 4 and len({*lines}) == 4
    assert all(line.startswith(f"cd {two.root} && ") and "\n" not in line for line in lines)
    assert one_by_one.commands("fake", only=["more"], **FAKE) == lines[2:]
    id = lines[0].split()[-1]
    assert one_by_one.train_one("fake", "demo", id, **FAKE) == ""
    assert one_by_one.commands("fake", **FAKE) == lines[1:]
    assert len(two.calls()) == 1
    with pytest.raises(ValueError, match="has no run 'nope'"):
        one_by_one.train_one("fake", "demo", "nope", **FAKE)


def test_a_printed_line_is_a_command(two, tmp_path, monkeypatch):
    """Up to the training itself, which here has no model: its failure is one line."""
    monkeypatch.chdir(two.root)
    line = one_by_one.commands("fake", **FAKE)[0]
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    (error,) = [x for x in done.stderr.splitlines() if x.startswith("vlmlab: error")]
    assert done.returncode == 1 and "unknown model 'none'" in error
