"""verify: numbers made again and compared; nothing is trained, nothing in figures/ changes."""

import pytest

from vlmlab import cli
from vlmlab.studies import save_figure
from vlmlab.studies.driver import verify
from vlmlab.studies.driver.verify import compare, pictures
from vlmlab.studies.pages import provenance

CSV = 'import pathlib\npathlib.Path(out, f"{{artefact}}.csv").write_text("name,value\\nx,{value}\\n")'
SAVES = """import matplotlib; matplotlib.use("Agg")
from matplotlib.figure import Figure
import pandas as pd
from vlmlab import studies
fig = Figure(figsize=(1, 1)); fig.subplots().plot([0, 1])
studies.save_figure(fig, out, artefact, study=study, profile=profile, data=pd.DataFrame({"a": [1.5]}))"""


def check(project, **options):
    found = verify.verify("fake", **project.places, train="fake_train:train", **options)
    return {c.artefact: c for c in found}


def files(project):
    folder = project.root / "figures"
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_numbers_are_made_again_and_compared(project):
    made = [project.artefact(name, CSV.format(value="1.5")) for name in ("same", "moved", "near")]
    project.study(*made, project.artefact("never"))
    assert project.reproduce(only=["same", "moved", "near"]).ok
    project.artefact("moved", CSV.format(value="2.5"))
    project.artefact("near", CSV.format(value="1.5000000001"))
    before, trained = files(project), project.calls()
    found = check(project)
    assert {name: c.state for name, c in found.items()} == {
        "same": "identical",
        "moved": "different",
        "near": "within tolerance",
        "never": "not compared",
    }
    assert found["moved"].detail == "line 2 (x), value: 1.5, now 2.5"
    assert found["near"].detail == "largest relative difference 6.7e-11"
    assert "--only never` makes it" in found["never"].detail
    assert [c.ok for c in found.values()] == [True, False, True, False]
    assert files(project) == before and project.calls() == trained
    assert not (project.root / "runs/fake/attempts").exists()
    assert check(project, only=["near"], tolerance=0)["near"].state == "different"


def test_missing_runs_are_not_trained(project):
    project.study(project.artefact("fig1"))
    project.write("figures/fake/fig1.csv", "a\n1\n")
    found = check(project)["fig1"]
    assert found.state == "not compared" and "2 of 2 runs are missing" in found.detail
    assert "vlmlab reproduce fake --profile demo --only fig1" in found.detail and project.calls() == []


def test_a_notebook_that_fails_or_writes_no_csv(project):
    project.study(*(project.artefact(name, CSV.format(value=1)) for name in ("fails", "silent")))
    assert project.reproduce().ok
    project.artefact("fails", "1 / 0")
    project.artefact("silent")
    found = check(project)
    assert found["fails"].state == "not compared" and "ZeroDivisionError" in found["fails"].detail
    assert found["silent"] == verify.Check("silent", "different", "the notebook no longer writes silent.csv")


def test_pictures_are_compared_too(project):
    project.study(project.artefact("fig1"))
    project.notebook("fig1", SAVES)  # without the cell that writes text files
    assert project.reproduce().ok
    assert check(project)["fig1"] == verify.Check("fig1", "identical", "", "svg, png, pdf same")


def save(folder, width=1.0):
    from matplotlib.figure import Figure

    fig = Figure(figsize=(2, 1))
    fig.subplots().plot([0, 1], linewidth=width)
    save_figure(fig, folder, "fig", study="s", profile="demo", run_keys=["k"])
    return folder


def test_a_commit_is_no_difference_but_a_line_is(tmp_path, monkeypatch):
    old = save(tmp_path / "old")
    monkeypatch.setattr(provenance, "git_state", lambda: {"commit": "f" * 40, "dirty": True})
    new = save(tmp_path / "new")
    for kind in ("svg", "png", "pdf"):
        assert (old / f"fig.{kind}").read_bytes() != (new / f"fig.{kind}").read_bytes()
    assert pictures("fig", old, new) == "svg, png, pdf same"
    assert pictures("fig", old, save(tmp_path / "wide", 3)) == "svg, png, pdf different"


def test_other_versions_draw_differently(tmp_path, monkeypatch):
    old = save(tmp_path / "old")
    monkeypatch.setattr(provenance, "versions", lambda: {"matplotlib": "99", "python": "3.11"})
    new = save(tmp_path / "new", 3)
    assert pictures("fig", old, new).startswith("not compared: matplotlib ")


@pytest.mark.parametrize(
    ("now", "state", "words"),
    [
        ("name,a,b\nx,1,2\ny,3,\n", "identical", ""),
        ('name,a,b\n"x",1,2\ny,3,\n', "identical", "other bytes"),
        ("name,a,b\nx,1.0,2\ny,3,\n", "identical", "other bytes"),
        ("name,a,b\nx,1.0000001,2\ny,3,\n", "within tolerance", "1.0e-07"),
        ("name,a,b\nx,1.1,2\ny,3,\n", "different", "line 2 (x), a: 1, now 1.1"),
        ("name,a,b\nx,1,2\ny,3,4\n", "different", "line 3 (y), b: empty, now 4"),
        ("name,a,b\nz,1,2\ny,3,\n", "different", "line 2 (x), name: x, now z"),
        ("name,a,b\nx,9,9\ny,9,9\n", "different", "; and 1 more cells"),
        ("name,a\nx,1\ny,3\n", "different", "columns were name, a, b, now name, a"),
        ("name,a,b\nx,1,2\n", "different", "2 rows, now 1"),
        ("name,a,b\nx,1\ny,3,\n", "different", "line 2 (x), b: 2, now empty"),
    ],
)
def test_cells(tmp_path, now, state, words):
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("name,a,b\nx,1,2\ny,3,\n")
    new.write_text(now)
    found = compare(old, new)
    assert found[0] == state and words in found[1]


@pytest.mark.parametrize(
    ("x", "y", "wanted"),
    [
        ("0", "-0.0", 0),
        ("0", "1e-300", 1),
        ("1", "-1", 2),
        ("a", "b", 9),
        ("inf", "1", 9),
        ("1", "nan", 9),
        ("inf", "Infinity", 0),
    ],
)
def test_relative_differences(x, y, wanted):
    assert min(verify.apart(x, y), 9) == wanted


@pytest.mark.parametrize(
    ("states", "status"),
    [(["identical", "within tolerance"], 0), (["different"], 1), (["identical", "not compared"], 1)],
)
def test_command(monkeypatch, capsys, states, status):
    asked = []

    def fake(*args, **options):
        asked.append((args, options))
        return [verify.Check(f"fig{i}", state, "why") for i, state in enumerate(states)]

    monkeypatch.setattr(verify, "verify", fake)
    words = ["--only", "fig0,fig1", "--tolerance", "0.5", "--profile", "smoke"]
    assert cli.main(["verify", "fake", *words]) == status
    assert asked[0][0][:3] == ("fake", "smoke", ["fig0", "fig1"]) and asked[0][1]["tolerance"] == 0.5
    assert f"fig0      {states[0]}" in capsys.readouterr().out
