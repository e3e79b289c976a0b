"""A study beside one's paper, with its own method and measure: found by name, by folder, by --notebooks."""

import json
import subprocess

import pytest

import vlmlab
from vlmlab import cli, measures, own_files, registry, studies
from vlmlab.studies.driver import one_by_one
from vlmlab.studies.jobs.receipts import Index
from vlmlab.studies.places import Places

STUDY = """[study]
id = "mine"

[[artefact]]
id = "one"
notebook = "one.ipynb"
kind = "table"
runs = ["main"]

[profile.demo]
model = "tiny"
config = { max_steps = 1, batch_size = 4, warmup_epochs = 0 }

[[profile.demo.matrix]]
name = "main"
methods = ["shifted"]
tasks = ["emoji/animals"]
seeds = [1]
shots = [1]
"""
METHOD = '''from vlmlab.methods.coop import CoOp

from ._amount import AMOUNT


class Shifted(CoOp):
    """CoOp under another name."""

    amount = AMOUNT
'''
MEASURE = "def doubled(x):\n    return 2 * x\n\n\ndef halved(x):\n    return x / 2\n"
CELL = """import pandas as pd
from vlmlab import measures, studies
from vlmlab.measures.doubled import halved
art = studies.artefact(study, artefact, profile, runs, out)
row = art.results[:1][["method", "metric"]].assign(two=measures.doubled(halved(2)))
art.save(row)"""


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The folder of a paper, which is nobody's package."""
    root = tmp_path_factory.mktemp("paper")
    parameters = 'study = "mine"\nartefact = "one"\nprofile = "demo"\nruns = "runs"\nout = ""'
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "# title", "id": "t"}]
    for i, text in enumerate([parameters, CELL]):
        tags = {} if i else {"tags": ["parameters"]}
        code = {"cell_type": "code", "outputs": [], "execution_count": None, "id": f"c{i}"}
        cells.append(code | {"metadata": tags, "source": text})
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    for name, text in {
        "notebooks/mine/study.toml": STUDY,
        "notebooks/mine/one.ipynb": json.dumps(book),
        "methods/shifted.py": METHOD,
        "methods/_amount.py": "AMOUNT = 1\n",
        "measures/doubled.py": MEASURE,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def inside(paper, monkeypatch):
    monkeypatch.chdir(paper)
    return paper


@pytest.fixture(scope="module")
def made(paper, tmp_path_factory):
    """Another folder, from which the study was made once by its path; its run by the printed command."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        (line,) = one_by_one.commands(paper / "notebooks/mine")
        done = subprocess.run(line, shell=True, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert one_by_one.commands(paper / "notebooks/mine") == []  # it trained just that run
        assert cli.main(["reproduce", str(paper / "notebooks/mine")]) == 0
    return elsewhere


def test_by_path_it_works_from_anywhere_and_writes_here(made, paper, monkeypatch):
    assert (made / "figures/mine/one.csv").read_text().splitlines()[1].split(",")[::2] == ["shifted", "2.0"]
    assert (made / "runs/mine/shifted").is_dir() and not (paper / "runs").exists()
    monkeypatch.chdir(made)
    for words in ([str(paper / "notebooks/mine")], ["mine", "--notebooks", str(paper / "notebooks")]):
        assert cli.main(["studies", *words]) == 0


@pytest.mark.parametrize("how", ["name", "relative", "dot"])
def test_ways_to_name_it(inside, how, monkeypatch, capsys):
    if how == "dot":
        monkeypatch.chdir(inside / "notebooks/mine")
    word = {"name": "mine", "relative": "notebooks/mine", "dot": "./"}[how]
    found = studies.load(word)
    assert found.id == "mine" and found.path.resolve() == inside / "notebooks/mine/study.toml"
    assert found.notebooks.resolve() == inside / "notebooks"


def test_fresh_by_each_name_and_stale_when_the_method_changes(made, paper, monkeypatch):
    monkeypatch.chdir(made)
    study = studies.load(paper / "notebooks/mine")
    (job,) = study.jobs("demo", ("main",))
    places = Places.of("demo", notebooks=study.notebooks)
    assert Index("mine", places).done(job)
    for name, old, new in (("shifted", "amount", "size"), ("_amount", "1", "2")):
        file = paper / f"methods/{name}.py"
        text = file.read_text()
        file.write_text(text.replace(old, new))
        assert Index("mine", places).done(job) is None, name
        file.write_text(text)
    for broken in (b"class (", b"\xff\xfe\0", b"a = '\0'"):  # named when it is imported, no traceback before
        file.write_bytes(broken)
        assert Index("mine", places).done(job) is None
    file.write_text("AMOUNT = 1\n")
    assert Index("mine", places).done(job)
    file = paper / "measures/doubled.py"
    file.write_text(MEASURE.replace("2 * x", "3 * x"))
    (row,) = studies.states(paper / "notebooks/mine")
    file.write_text(MEASURE)
    assert row.state == "stale" and "measures/doubled.py" in row.detail
    assert [row.state for row in studies.states(paper / "notebooks/mine")] == ["fresh"]


def test_own_method_and_measure_are_found_by_name(inside):
    assert "shifted" in registry.names("methods") and registry.name_of(registry.find("shifted")) == "shifted"
    assert measures.doubled(2) == 4
    with pytest.raises(AttributeError, match="defines no function"):
        (inside / "measures/empty.py").write_text("a = 1\n")
        measures.empty  # noqa: B018
    (inside / "measures/empty.py").unlink()


def test_out_of_the_project_they_are_gone(inside, tmp_path, monkeypatch):
    assert "shifted" in registry.names("methods")
    monkeypatch.chdir(tmp_path)
    assert "shifted" not in registry.names("methods")
    monkeypatch.setenv(own_files.NOTEBOOKS, str(inside / "notebooks"))
    assert "shifted" in registry.names("methods") and measures.doubled(1) == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("broken", "class (", ["methods/broken.py, line 1: SyntaxError"]),
        ("lacks", "import nowhere_at_all\n", ["methods/lacks.py: ModuleNotFoundError", "nowhere_at_all"]),
        ("empty", "a = 1\n", ["methods/empty.py", "no method"]),
        ("binary", b"\xff\xfe\0", ["methods/binary.py"]),
    ],
)
def test_a_damaged_file_is_named_and_hides_no_other(inside, name, text, words):
    file = inside / f"methods/{name}.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        with pytest.raises(ValueError) as caught:
            registry.find(name)
        assert all(word in str(caught.value) for word in words), caught.value
        assert registry.find("coop").__name__ == "CoOp"
    finally:
        file.unlink()


def test_a_name_that_is_taken_is_refused(inside):
    file = inside / "methods/mmrlpp.py"
    file.write_text(METHOD)
    try:
        with pytest.raises(ValueError, match=r"mmrlpp\.py: vlmlab\.methods has a 'mmrlpp' of its own"):
            registry.find("shifted")
    finally:
        file.unlink()
    assert registry.find("mmrlpp").__module__ == "vlmlab.methods.mmrlpp"


@pytest.mark.parametrize("word", ["../mine", "/nowhere/mine", "mine/..", "notebooks/nope"])
def test_a_path_that_is_no_study_is_named(inside, word, capsys):
    assert cli.main(["studies", word]) == 2
    assert "there is no study in" in capsys.readouterr().err
    assert not (vlmlab.own_files.project() / "runs").exists()
