"""Own images through training: Python, the command line, a study; and opened again from elsewhere."""

import own_data as own
import pytest

import vlmlab
from vlmlab.cli import main
from vlmlab.paths import PACKAGE
from vlmlab.studies.jobs.receipts import Index
from vlmlab.studies.manifest import load
from vlmlab.studies.places import Places

pytestmark = pytest.mark.filterwarnings("ignore:.*nobody divided the images")
TREES = "a photo of a {}, a type of tree."


def test_a_run_on_a_folder_opens_again_from_elsewhere(tmp_path, monkeypatch):
    own.folders(tmp_path / "data/trees", 4)
    monkeypatch.chdir(tmp_path / "data")
    task = vlmlab.task("folder:trees", protocol="base_to_new", shots=1, template=TREES)
    run = vlmlab.fit("zero_shot", vlmlab.load("tiny", device="cpu"), task, out=tmp_path / "runs")
    assert run.path.relative_to(tmp_path / "runs").parts[:3] == ("adhoc", "zero_shot", "folder.trees")
    monkeypatch.chdir(tmp_path)
    again = vlmlab.open_run(run.path, "cpu")
    assert again.task.fingerprint() == task.fingerprint() and again.model.template == TREES
    rows = vlmlab.evaluate(again, again.task)
    assert set(rows["split"]) == {"base", "new", "hm"} and set(rows["task"]) == {"folder:trees"}
    own.picture(tmp_path / "data/trees" / task.train.ids[0], seed=1)
    with pytest.raises(ValueError, match="was trained on other data than folder:trees holds now"):
        vlmlab.open_run(run.path, "cpu")


def test_the_command_line(tmp_path, capsys):
    own.folders(tmp_path / "trees", 4)
    about = ["--template", TREES, "--shots", "1", "--out", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(["fit", "zero_shot", f"folder:{tmp_path}/trees", *about]) == 0
    assert "folder.trees" in capsys.readouterr().out
    assert main(["fit", "zero_shot", f"folder:{tmp_path}/tree", *about]) == 2
    assert "did you mean" in capsys.readouterr().err


STUDY = """
[study]
id = "mine"

[[artefact]]
id = "fig"
notebook = "fig.ipynb"
kind = "figure"
runs = ["main"]

[profile.demo]
model = "tiny"

[[profile.demo.matrix]]
name = "main"
methods = ["zero_shot"]
tasks = ["folder:trees"]
seeds = [1]
shots = [1]
template = "a photo of a {}, a type of tree."
"""


def test_a_study_takes_them_by_id(tmp_path, monkeypatch):
    own.folders(tmp_path / "trees", 4)
    folder = tmp_path / "notebooks/mine"
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(STUDY)
    (folder / "fig.ipynb").write_text("{}")
    monkeypatch.chdir(tmp_path)
    from vlmlab.studies.jobs.train import train

    (job,) = load("mine").jobs("demo", ("main",))
    done = train(job.spec, str(tmp_path / "runs"))
    info = vlmlab.Run(tmp_path / "runs" / done["run"]).info
    assert info["task"]["template"] == TREES and info["classes"][0] == ["Norway spruce", "beech"]
    assert "template" not in vlmlab.studies.profiles.Job(**dict.fromkeys(JOB)).spec  # ids of others stay

    def inputs():
        return Index("mine", Places.of("demo", data=PACKAGE.parent / "data")).inputs(job, {})

    before = inputs()
    assert inputs() == before
    own.picture(tmp_path / "trees/elm/0.png", seed=3)
    assert inputs() != before  # figures of other images are stale


JOB = ("study", "models", "method", "task", "protocol", "shots", "seed", "rules", "config")
