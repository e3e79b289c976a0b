"""A whole study in seconds: models by role, variants, runs that follow runs, notebooks, claims, the gallery."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from vlmlab import studies
from vlmlab.studies.claims import judge

HERE = Path(__file__).parent
PARAMETERS = 'study = "ground"\nartefact = ""\nprofile = "demo"\nruns = "runs"\nout = ""\nmethods: list = []'
START = """from vlmlab import studies
art = studies.artefact(study, artefact, profile, runs, out, train="ground_train:train")
"""
CELLS = {
    "variants": """import pandas as pd
assert art.model.name == "tiny"
rows = []
for row, run, task in art.only(["coop_short", "coop_long"]).open():
    images, labels = art.images(task.base, 4)
    assert run.model.logits(images).shape == (4, len(task.base.classnames)) and len(labels) == 4
    accuracy = run.results.query("metric == 'accuracy' and split == 'base'")["value"].item()
    rows.append({"method": row.name, "variant": row.variant, "seed": row.seed, "value": accuracy})
table = pd.DataFrame(rows)
art.save(table)""",
    "stages": """import json, pathlib
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
found = art.runs.assign(given=[json.dumps(json.loads(pathlib.Path(p, "run.json").read_text())["given"]) for p in art.runs["path"]])
art.save(fig, data=found.drop(columns="path"))""",
}
# Learners, scores and tasks that vlmlab.fit trains here, each as a matrix of its own: name -> lines of study.toml
LEARNERS = {
    "zero_shot": 'methods = ["zero_shot"]\ntasks = ["emoji/activities"]\nseeds = [1]',
    "mmrlpp": 'methods = ["mmrlpp"]\ntasks = ["emoji/activities"]\nseeds = [1]\nshots = [1]',
}


def write(root: Path, project) -> None:
    folder = root / "notebooks/ground"
    folder.mkdir(parents=True)
    for name in ("study.toml", "claims.toml"):
        shutil.copy(HERE / name, folder / name)
    shutil.copy(HERE / "ground_train.py", root)
    for name, text in CELLS.items():
        project.notebook(name, START, text, parameters=PARAMETERS).rename(folder / f"{name}.ipynb")
    study = folder / "study.toml"
    text = study.read_text()
    for name, lines in LEARNERS.items():
        text += f'\n[[profile.demo.matrix]]\nname = "{name}"\n{lines}\n'
    names = ", ".join(f'"{name}"' for name in LEARNERS)
    study.write_text(text.replace('runs = ["vision"]', f'runs = ["vision", {names}]'))


@pytest.fixture(scope="module")
def root(module_project):
    (module_project.root / "data").rename(module_project.root / "other_data")  # vlmlab's own is used
    write(module_project.root, module_project)
    return module_project.root


def reproduce(root, **options):
    places = {name: root / name for name in ("runs", "figures", "notebooks")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return studies.reproduce("ground", **places, train="ground_train:train", **options)


@pytest.fixture(scope="module")
def first(root):
    return reproduce(root)


def calls(root) -> list[str]:
    return (root / "runs/calls.txt").read_text().splitlines()


def test_all_is_trained_once_and_drawn(first, root):
    assert first.ok, str(first)
    assert [row.state for row in first.rows] == ["made", "made"]
    done = calls(root)
    assert len(done) == len(set(done)) == 4 + 2 + 4 + 1 + len(LEARNERS)
    assert {row.state for row in reproduce(root).rows} == {"fresh"} and calls(root) == done


def test_what_follows_is_trained_behind_what_it_follows(first, root):
    order = [line.split()[0] for line in calls(root)]
    assert order.index("reader") > max(i for i, name in enumerate(order) if name == "from_nothing")
    assert order[-1] == "joiner"


def test_roles_are_filled_by_models_and_by_the_runs_of_the_same_seed_and_variant(first, root):
    frame = pd.read_csv(root / "figures/ground/stages.csv")
    frame["given"] = frame["given"].map(json.loads)
    readers = frame[frame["method"] == "reader"]
    models = {"student": {"name": "tiny"}, "teacher": {"name": "tiny", "precision": "fp32"}}
    wanted = [{**models, "words": seed} for seed in readers["seed"]]
    assert len(readers) == 4 and readers["given"].tolist() == wanted
    (joined,) = frame[frame["method"] == "joiner"].itertuples()
    assert joined.name == "joiner_short" and {*joined.given} == {"vision", "language"}
    assert joined.given["language"] == 2 + 1 + 2  # its seed, its width, what its own predecessor measured


def test_variants_are_told_apart(first, root):
    table = pd.read_csv(root / "figures/ground/variants.csv")
    assert table.groupby(["method", "variant"])["seed"].apply(list).to_dict() == {
        ("coop_short", "short"): [1, 2],
        ("coop_long", "long"): [1, 2],
    }
    places = {name: root / name for name in ("runs", "figures", "notebooks")}
    verdicts = judge.judge("ground", **places, train="ground_train:train")["claims"]
    assert [c["verdict"] for c in verdicts] == ["supported", "supported"]
    assert verdicts[0]["n"] == 2 and verdicts[0]["evidence"][0].startswith("runs/vision: 4 runs")
    assert (root / "figures/index.html").is_file()


def test_a_run_that_changes_makes_what_follows_it_stale(first, root):
    text = (root / "notebooks/ground/study.toml").read_text()
    before = len(calls(root))
    try:
        changed = text.replace(
            "seeds = [1, 2]\nmodels = {}", "seeds = [1, 2]\nmodels = {}\nconfig = { width = 5 }"
        )
        assert changed != text
        (root / "notebooks/ground/study.toml").write_text(changed)
        summary = reproduce(root)
        assert {row.artefact: row.state for row in summary.rows} == {"variants": "fresh", "stages": "made"}
        again = [line.split()[0] for line in calls(root)[before:]]
        assert again == ["from_nothing"] * 2 + ["reader"] * 4 + ["joiner"]
    finally:
        (root / "notebooks/ground/study.toml").write_text(text)


def test_a_failure_is_named_by_what_follows_it(first, root):
    text = (root / "notebooks/ground/study.toml").read_text()
    try:
        (root / "notebooks/ground/study.toml").write_text(text.replace('"from_nothing"', '"from_less"'))
        (row,) = reproduce(root, only=["stages"]).rows
    finally:
        (root / "notebooks/ground/study.toml").write_text(text)
    assert (
        row.state == "missing runs"
        and "reader_short emoji/activities seed 1: it builds on from_less" in row.detail
    )
    assert "which failed: ValueError: unknown method 'from_less'" in row.detail
