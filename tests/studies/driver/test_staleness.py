"""What is trained and drawn again when one part changes: exactly what reads it, and nothing for what shapes nothing.

The project has a package of its own, `lab/`, laid out as vlmlab is: two methods that share a module, measures and
plots, a training function. One notebook reads the runs of one method, one those of the other, one both.
"""

import json
import os

import pytest

from vlmlab import studies
from vlmlab.studies.driver import staleness
from vlmlab.studies.jobs import receipts
from vlmlab.studies.manifest import load
from vlmlab.studies.places import Places

TRAIN = '''"""Trains."""
import hashlib, importlib, json, pathlib


def train(job, runs):
    method = importlib.import_module(f"lab.methods.{job['method']}")
    key = hashlib.sha256(json.dumps([job, method.value()], sort_keys=True).encode()).hexdigest()[:8]
    name = f"{job['study']}/{job['method']}/{key}"
    path = pathlib.Path(runs, name)
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_text(json.dumps({"key": key, "status": "finished", "job": {}, "labels": {}}))
    (path / "results.jsonl").write_text('{"value": 1.0}\\n')
    return {"run": name, "key": key, "status": "finished", "digest": key}
'''
LAB = {
    "training": TRAIN,
    "methods/__init__": "",
    "methods/one": "from .shared import half\n\n\ndef value():\n    return half(2)\n",
    "methods/two": "from .shared import half\n\n\ndef value():\n    return half(4)\n",
    "methods/shared": "def half(x):\n    return x / 2\n",
    "methods/three": "def value():\n    return 3\n",
    "plots/__init__": "_HOME = {'lines': '.lines', 'dots': '.dots'}\n",
    "plots/lines": "def lines_of():\n    return 1\n",
    "plots/dots": "def dots_of():\n    return 2\n",
}
STUDY = """[study]
id = "fake"
title = "A study"

[[artefact]]
id = "first"
title = "A figure"
notebook = "first.ipynb"
kind = "figure"
runs = ["one"]
params = { epochs = 3 }

[[artefact]]
id = "second"
notebook = "second.ipynb"
kind = "figure"
runs = ["two"]

[[artefact]]
id = "both"
notebook = "both.ipynb"
kind = "table"
runs = ["one", "two"]

[[artefact]]
id = "trees"
notebook = "trees.ipynb"
kind = "figure"
runs = ["three"]

[[artefact]]
id = "plain"
notebook = "plain.ipynb"
kind = "figure"

[profile.demo]
model = "little"
pretrained = "WEIGHTS"
precision = "fp32"
config = { rate = 1 }
params = { scale = 1 }
resources = { hours = 1 }

[profile.demo.method.two]
depth = 2

[[profile.demo.matrix]]
name = "one"
methods = ["one"]
tasks = ["toy/a"]
seeds = [1, 2]
protocol = "few_shot"
shots = [4]
rules = ["unified"]

[[profile.demo.matrix]]
name = "two"
methods = ["two"]
tasks = ["toy/a"]
seeds = [1]
presets = false
rules = ["unified", "decoupled"]

[profile.demo.matrix.variants]
wide = { width = 4 }

[[profile.demo.matrix]]
name = "three"
methods = ["three"]
tasks = ["folder:FOLDER"]
template = "a photo of a {}."
seeds = [2]
after = { teacher = "one" }

# The same under another name
[profile.twin]
pretrained = "WEIGHTS"
model = "little"
precision = "fp32"
params = { scale = 1 }
"""
# method -> who reads its runs; those of three build on those of one
RUNS = {"one": ("first", "both"), "two": ("second", "both"), "three": ("trees",)}
ALL = ("first", "second", "both", "trees", "plain")
TOML = "notebooks/fake/study.toml"
# file, what is there, what replaces it -> methods trained again, artefacts drawn again besides those that read them
CHANGES = {
    "code of a method": ("lab/methods/one.py", "half(2)", "half(3)", ["one", "three"], []),
    "code of another": ("lab/methods/two.py", "half(4)", "half(5)", ["two"], []),
    "module that methods share": ("lab/methods/shared.py", "x / 2", "x / 3", ["one", "two", "three"], []),
    "code that trains": ("lab/training.py", '"value": 1.0', '"value": 2.0', ["one", "two", "three"], []),
    "measure": ("lab/measures/alpha.py", "return shared.one", "return 2 * shared.one", [], ["first"]),
    "what a measure uses": ("lab/measures/shared.py", "one = 1", "one = 2", [], ["first"]),
    "other measure": ("lab/measures/beta.py", "return 2", "return 3", [], ["both"]),
    "plot": ("lab/plots/dots.py", "return 2", "return 3", [], ["second", "both"]),
    "module beside the notebook": ("notebooks/fake/beside.py", "a = 1", "a = 2", [], ["second"]),
    "data file": ("data/toy/images.csv", "1", "2", ["one", "two", "three"], []),
    "weights of the model": ("data/models/little/weights.json", "1", "2", ["one", "two", "three"], ["plain"]),
    "weights in a file": ("weights.pt", "1", "12", ["one", "two", "three"], []),
    "own image": ("trees/oak/1.png", "1", "12", ["three"], []),
    "template": (TOML, "photo of a {}", "picture of a {}", ["three"], []),
    "what a run builds on": (TOML, '{ teacher = "one" }', '{ tutor = "one" }', ["three"], []),
    "model": (
        TOML,
        'model = "little"\npretrained',
        'model = "other"\npretrained',
        ["one", "two", "three"],
        ["plain"],
    ),
    "precision": (TOML, '"fp32"\nconfig', '"amp_bf16"\nconfig', ["one", "two", "three"], ["plain"]),
    "task": (TOML, '["toy/a"]\nseeds = [1, 2]', '["toy/b"]\nseeds = [1, 2]', ["one", "three"], []),
    "protocol": (TOML, '"few_shot"', '"cross_dataset"', ["one", "three"], []),
    "shots": (TOML, "shots = [4]", "shots = [8]", ["one", "three"], []),
    "presets": (TOML, "presets = false", "presets = true", ["two"], []),
    "variant": (TOML, "wide = { width = 4 }", "wide = { width = 5 }", ["two"], []),
    "name of a variant": (TOML, "wide = { width = 4 }", "broad = { width = 4 }", ["two"], []),
    "parameter of the profile": (TOML, "scale = 1 }\nresources", "scale = 2 }\nresources", [], ["plain"]),
    "config": (TOML, "rate = 1", "rate = 2", ["one", "two", "three"], []),
    "config of a method": (TOML, "depth = 2", "depth = 3", ["two"], []),
    "rules": (TOML, 'rules = ["unified"]', 'rules = ["decoupled"]', ["one", "three"], []),
    "seeds": (TOML, "seeds = [1, 2]", "seeds = [2]", [], ["first", "both"]),
    "published number": ("data/published/fake/table1.csv", "1", "2", [], ALL),
    "source of a notebook": ("notebooks/fake/first.ipynb", "alpha_of()", "alpha_of() + 0", [], ["first"]),
    "text of a notebook": ("notebooks/fake/first.ipynb", "# title", "# Title", [], ["first"]),
    "parameter": (TOML, "epochs = 3", "epochs = 4", [], ["first"]),
    "figure itself": ("figures/fake/first.svg", "3", "by hand", [], ["first"]),
}
NOTHING = {
    "comment": ("lab/measures/alpha.py", "return shared.one", "return (shared.one)  # why", [], []),
    "docstring": ("lab/measures/beta.py", '"""Doc."""', '"""Other words."""', [], []),
    "comment of a method": ("lab/methods/one.py", "def value():", "# why\ndef value():", [], []),
    "docstring of what trains": ("lab/training.py", '"""Trains."""', '"""It trains."""', [], []),
    "measure that nobody uses": ("lab/measures/gamma.py", "return 3", "return 4", [], []),
    "a new measure": (
        "lab/measures/__init__.py",
        '"beta": ("beta_of",)',
        '"beta": ("beta_of",), "gamma": ("gamma_of",)',
        [],
        [],
    ),
    "a new plot": ("lab/plots/__init__.py", "'.lines', ", "'.lines', 'bars': '.bars', ", [], []),
    "text beside own images": ("trees/README.md", "1", "2", [], []),
    "text about the data": ("data/toy/README.md", "1", "2", [], []),
    "data of others": ("data/other/images.csv", "1", "2", [], []),
    "title": (TOML, "A figure", "One figure", [], []),
    "resources": (TOML, "hours = 1", "hours = 2", [], []),
}


@pytest.fixture(scope="module")
def made(module_project):
    """The study after its first call, everything fresh."""
    p = module_project
    for name, text in LAB.items():
        p.write(f"lab/{name}.py", text)
    p.write("lab/plots/bars.py", "def bars_of():\n    return 3\n")
    for name in ("toy/README.md", "other/images.csv", "models/little/weights.json"):
        p.write(f"data/{name}", "1")
    p.write("notebooks/fake/beside.py", "a = 1\n")
    p.artefact("first", "from lab.measures import alpha_of\nfrom lab.plots import lines\nalpha_of()")
    p.artefact("second", "from lab.plots import dots\nimport beside")
    p.artefact("both", "from lab.measures import beta_of\nfrom lab.plots import dots", kind="table")
    scaled = p.parameters.replace("epochs: int = 1", "epochs: int = 1\nscale: int = 1")
    p.artefact("plain", "scale", parameters=scaled)
    p.artefact("trees", "runs")
    for name in ("oak/1.png", "oak/2.png", "elm/1.png", "elm/2.png", "README.md"):
        p.write(f"trees/{name}", "1")
    p.write("weights.pt", "1")
    p.write(
        TOML, STUDY.replace("WEIGHTS", str(p.root / "weights.pt")).replace("FOLDER", str(p.root / "trees"))
    )
    summary = p.reproduce(train="lab.training:train")
    assert summary.ok, str(summary)
    return p


def outdated(project) -> tuple[set[str], dict[str, str]]:
    """(the methods with runs that are to be trained, artefact -> state where it is not fresh)."""
    study = load("fake", project.places["notebooks"])
    index = receipts.Index("fake", Places.of("demo", **project.places), "lab.training:train")
    methods = {job.method for job in study.jobs("demo", ("one", "two", "three")) if index.done(job) is None}
    return methods, {name: state for name, state in project.states().items() if state != "fresh"}


@pytest.mark.parametrize(
    ("path", "old", "new", "trained", "drawn"),
    [*CHANGES.values(), *NOTHING.values()],
    ids=[*CHANGES, *NOTHING],
)
def test_exactly_what_reads_a_part_is_made_again(made, path, old, new, trained, drawn):
    file = made.root / path
    before, stat = file.read_bytes(), file.stat()
    assert before.decode().count(old) == 1 or path.startswith("data"), before.decode().count(old)
    file.write_text(before.decode().replace(old, new, 1))
    try:
        methods, states = outdated(made)
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # weights in a file go by it
    assert methods == set(trained)
    lacking = {name for method in trained for name in RUNS[method]}
    assert {n for n, state in states.items() if state.startswith("missing runs")} == lacking
    assert {n for n, state in states.items() if state.startswith("stale")} == set(drawn) - lacking
    assert outdated(made) == (set(), {})


def test_a_retrained_method_redraws_what_reads_it(made):
    file = made.root / "lab/methods/one.py"
    before = file.read_text()
    file.write_text(before.replace("half(2)", "half(8)"))
    rows = {row.artefact: row for row in made.reproduce(train="lab.training:train").rows}
    assert {name: row.state for name, row in rows.items()} == {
        "first": "made",
        "second": "fresh",
        "plain": "fresh",
        "both": "made",
        "trees": "made",
    }
    assert rows["first"].detail.startswith("changed: run one toy/a 4-shot seed 1 (")
    file.write_text(before)
    assert made.reproduce(train="lab.training:train").ok and outdated(made) == (set(), {})


def test_a_record_holds_what_a_job_loaded_whatever_ran_before_it_in_its_process(made):
    """All jobs ran in one process: neither has the method of the other."""
    code = {}
    for path in (made.root / "runs/fake/jobs").iterdir():
        receipt = json.loads(path.read_text())
        code[receipt["run"].split("/")[1]] = sorted(receipt["code"])
    common = ["lab/__init__.py", "lab/methods/__init__.py"]
    for method, used in {"one": ["shared"], "two": ["shared"], "three": []}.items():
        used = [f"lab/methods/{name}.py" for name in (method, *used)]
        names = sorted([*common, *used, "lab/training.py"])
        assert [name for name in code[method] if name.startswith("lab/")] == names


def test_notebooks_do_not_load_the_gallery(project):
    cell = "from vlmlab import studies\nstudies.artefact, studies.save_figure, studies.save_table"
    project.study(project.artefact("good", cell, matrix=""))
    assert project.reproduce().ok
    recorded = json.loads((project.root / "figures/fake/.state.json").read_text())["good"]["code"]
    assert "vlmlab/studies/pages/tables.py" in recorded
    assert not [n for n in recorded if "gallery" in n or "driver" in n or "/jobs/" in n or "manifest" in n]


def test_the_name_of_the_profile_is_a_part(made):
    """Two profiles that share a folder of figures: what one made is stale under the other."""
    rows = studies.states("fake", "twin", **made.places, train="lab.training:train")
    found = {row.artefact: row for row in rows}
    assert found["plain"].state == "stale" and found["plain"].detail == "changed: parameters"
    assert {found[name].state for name in ALL[:-1]} == {"left out"}


def test_the_version_of_vlmlab_is_a_part(made, monkeypatch):
    monkeypatch.setattr(staleness, "__version__", "9.9")
    methods, states = outdated(made)
    assert methods == set() and states == dict.fromkeys(ALL, "stale changed: version of vlmlab")


def test_the_embedded_pictures_are_one_set(tmp_path):
    """Tasks of either folder read both, so that a change of one is a change of both."""
    for name in ("emoji", "drawings", "faces", "other", "models/tiny"):
        (tmp_path / name).mkdir(parents=True)
    for task in ("emoji/food", "drawings/food"):
        assert staleness.named(tmp_path, [task, "tiny"]) == ["drawings", "emoji", "models/tiny"]
    assert staleness.named(tmp_path, ["other/x"]) == ["other"]
    assert staleness.named(tmp_path, ["faces/emotions"]) == ["drawings", "emoji", "faces"]
