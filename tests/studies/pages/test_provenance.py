"""Saved files say where they came from, and the same figure has the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from vlmlab.studies import read_provenance, save_figure, save_table
from vlmlab.studies.pages import provenance

matplotlib.use("Agg")
NOTE = {"study": "alignednorm", "profile": "demo", "run_keys": ["b2", "a1", "a1"], "seeds": [2, 1]}


def figure():
    from matplotlib.figure import Figure

    fig = Figure(figsize=(3, 2))
    ax = fig.subplots()
    ax.fill_between([0, 1, 2], [0, 1, 4], label="r(x)")
    ax.scatter([0, 1], [1, 2], clip_on=True)
    ax.legend()
    return fig


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_round_trip(tmp_path):
    frame = pd.DataFrame({"x": [0, 1], "r(x)": [0.1, 1 / 3]})
    paths = save_figure(figure(), tmp_path / "new", "fig3a", data=frame, **NOTE)
    assert [p.name for p in paths] == ["fig3a.svg", "fig3a.png", "fig3a.pdf", "fig3a.csv"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)
    assert read_provenance(paths[-1]) == read_provenance(paths[0])  # a .csv by the file beside it
    for path in paths[:-1]:
        moved = path.rename(tmp_path / f"moved{path.suffix}")
        found = read_provenance(moved)
        assert found["artefact"] == "fig3a" and found["study"] == "alignednorm" and found["profile"] == "demo"
        assert found["run_keys"] == ["a1", "b2"] and found["seeds"] == [1, 2]
        assert found["versions"]["matplotlib"] == matplotlib.__version__
        assert set(found["git"]) == {"commit", "dirty"}
    assert pd.read_csv(paths[-1]).equals(frame)


def test_same_figure_same_bytes_without_time_or_place(tmp_path):
    for name in ("a", "b"):
        save_figure(figure(), tmp_path / name, "fig", **NOTE)
    for kind in ("svg", "png", "pdf"):
        first, second = ((tmp_path / name / f"fig.{kind}").read_bytes() for name in ("a", "b"))
        assert first == second
        assert b"CreationDate" not in first
        assert str(tmp_path).encode() not in first and b"<dc:date>" not in first


def test_same_figure_same_bytes_in_another_process(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_provenance as t; "
        "t.save_figure(t.figure(), sys.argv[2], 'fig', **t.NOTE)"
    )
    for name, seed in (("a", "1"), ("b", "2")):
        subprocess.run(
            [sys.executable, "-c", code, Path(__file__).parent, tmp_path / name],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
    for kind in ("svg", "png", "pdf"):
        first, second = ((tmp_path / name / f"fig.{kind}").read_bytes() for name in ("a", "b"))
        assert first == second


def test_the_record_is_in_the_bytes(tmp_path):
    for name, seeds in (("a", [1, 2]), ("b", [3])):
        save_figure(figure(), tmp_path / name, "fig", **{**NOTE, "seeds": seeds})
    assert (tmp_path / "a/fig.png").read_bytes() != (tmp_path / "b/fig.png").read_bytes()


def test_an_empty_out_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert save_figure(figure(), "", "fig", **NOTE) == []
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path):
    save_figure(figure(), tmp_path, "fig", **NOTE)
    before = (tmp_path / "fig.svg").read_bytes()
    broken = figure()
    broken.axes[0].set_title("$\\nosuchcommand$")
    with pytest.raises(ValueError):
        save_figure(broken, tmp_path, "fig", **NOTE)
    assert (tmp_path / "fig.svg").read_bytes() == before and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"x\n", "beside it"),
        ("a.txt", b"x\n", "only .svg, .png, .pdf, .tex, .html say"),
        ("a.pdf", b"%PDF-1.4\n", "does not say where"),
        ("a.html", b"<html></html>", "does not say where"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "does not say where"),
        ("a.svg", b"no xml", "does not say where"),
        ("a.png", b"no png", "does not say where"),
        ("a.tex", b"% a comment\n", "does not say where"),
    ],
)
def test_files_without_a_record(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_provenance(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"b\.svg"):
        read_provenance(tmp_path / "b.svg")


def test_git_state(tmp_path):
    state = provenance.git_state.__wrapped__
    nothing = {"commit": None, "dirty": None}
    assert state(tmp_path) == nothing
    git(tmp_path, "init", "-q")
    assert state(tmp_path) == nothing
    (tmp_path / "vlmlab").mkdir()
    code = tmp_path / "vlmlab/code.py"
    code.write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/fig.svg").write_text("a figure that was just made")
    assert state(tmp_path)["dirty"] is False
    code.write_text("a = 2\n")
    assert state(tmp_path) == {"commit": commit, "dirty": True}
    assert state(tmp_path / "vlmlab") == nothing  # a package inside somebody else's repository


def test_record_is_sorted_ascii():
    text = provenance.record(artefact="fig", **{**NOTE, "study": "é"})
    assert text.isascii() and list(json.loads(text)) == sorted(json.loads(text))


def test_any_text_survives_in_every_kind(tmp_path):
    """Brackets, backslashes, quotes and letters beyond ASCII, as a study's name might hold them."""
    from vlmlab.studies import save_table

    note = {**NOTE, "study": 'a (b) \\ "c" <d> & é --> ['}
    paths = [
        *save_figure(figure(), tmp_path, "fig", **note),
        *save_table(pd.DataFrame({"a": [1]}), tmp_path, "table", **note),
    ]
    assert {p.suffix for p in paths} == {".svg", ".png", ".pdf", ".tex", ".html", ".csv"}
    for path in paths:
        assert read_provenance(path)["study"] == note["study"]


def test_the_runs_themselves_say_keys_and_seeds(tmp_path):
    trained = pd.DataFrame({"key": ["b2", "a1", "a1"], "seed": [2, 1, 1], "path": "there"})
    own = {k: v for k, v in NOTE.items() if k not in ("run_keys", "seeds")}
    figures = save_figure(figure(), tmp_path, "fig", trained=trained, **own)
    page = save_table(pd.DataFrame({"x": [1]}), tmp_path, "table", trained=trained, **own)[-1]
    for path in (figures[0], page):
        found = read_provenance(path)
        assert found["run_keys"] == ["a1", "b2"] and found["seeds"] == [1, 2]
