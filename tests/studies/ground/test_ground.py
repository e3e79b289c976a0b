"""A whole study in seconds: models by role, variants, runs that follow runs, notebooks, claims, the gallery."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import vlmlab
from vlmlab import studies
from vlmlab.studies.claims import judge

HERE = Path(__file__).parent
pytestmark = pytest.mark.study
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
found = art.runs.assign(given=[json.dumps(json.loads(pathlib.Path(p, "run.json").read_text())["models"]) for p in art.runs["path"]])
names = [type(run.model).__name__ for row, run, task in art.open()]
art.save(fig, data=found.drop(columns="path").assign(learner=names))""",
}
# What else trains or is scored, each a matrix of its own: name -> lines of study.toml
OTHERS = {
    "zero_shot": 'methods = ["zero_shot"]\ntasks = ["emoji/activities"]',
    "two_rules": 'methods = ["mmrlpp"]\ntasks = ["emoji/activities"]\nshots = [1]\n'
    "config = { epochs = 1, batch_size = 4, max_steps = 1, rep_dim = 8 }",
    "soft_labels": 'methods = ["zero_shot"]\ntasks = ["emoji/emotions"]\nprotocol = "label_distribution"\nshots = [1]',
    "answers": 'methods = ["ground_learners:Words"]\ntasks = ["emoji/scenes"]\nprotocol = "vqa"\nmodels = {}',
}


def write(root: Path, project) -> None:
    folder = root / "notebooks/ground"
    folder.mkdir(parents=True)
    for name in ("study.toml", "claims.toml"):
        shutil.copy(HERE / name, folder / name)
    for name in ("ground_train.py", "ground_learners.py"):
        shutil.copy(HERE / name, root)
    for name, text in CELLS.items():
        project.notebook(name, START, text, parameters=PARAMETERS).rename(folder / f"{name}.ipynb")
    study = folder / "study.toml"
    text = study.read_text()
    for name, lines in OTHERS.items():
        text += f'\n[[profile.demo.matrix]]\nname = "{name}"\nseeds = [1]\n{lines}\n'
    names = ", ".join(f'"{name}"' for name in OTHERS)
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
    assert len(done) == len(set(done)) == 4 + 1 + 2 + 1 + len(OTHERS)
    assert {row.state for row in reproduce(root).rows} == {"fresh"} and calls(root) == done


def test_what_follows_is_trained_behind_what_it_follows(first, root):
    order = [line.split()[0] for line in calls(root)]
    assert order.index("Student") > order.index("Words") and order.index("Joined") > order.index("Student")


def test_roles_are_filled_by_models_and_by_the_runs_of_the_same_seed_and_variant(first, root):
    frame = pd.read_csv(root / "figures/ground/stages.csv")
    assert frame["learner"].tolist() == ["Student", "Student", "Joined"]
    given = [json.loads(text) for text in frame["given"]]
    assert all({*g} == {"student", "teacher", "words"} for g in given[:2])
    assert given[0]["student"]["source"]["name"] == "tiny" and given[0]["words"] == given[1]["words"]
    assert {*given[2]} == {"vision", "language"} and frame["name"][2].endswith("Joined_short")
    assert given[2]["language"]["key"] == frame["key"][0]  # that of the same variant


def test_every_kind_of_question_is_scored(first, root):
    metrics = vlmlab.results(root / "runs").groupby("protocol")["metric"].unique().map(set)
    of_pairs = {"i2t R@1", "attributes_right", "nll_true_image", "AUC", "pointing"}
    assert of_pairs <= metrics["retrieval"] and "exact_match" in metrics["vqa"]
    assert {"accuracy", "KL"} <= metrics["label_distribution"] and "balanced_accuracy" in metrics[
        "base_to_new"
    ]
    rules = vlmlab.results(root / "runs", method="mmrlpp")["rule"]
    assert set(rules) == {"unified", "decoupled"}  # the method says what its paper reports


def test_variants_are_told_apart(first, root):
    table = pd.read_csv(root / "figures/ground/variants.csv")
    assert table.groupby(["method", "variant"])["seed"].apply(list).to_dict() == {
        ("coop_short", "short"): [1, 2],
        ("coop_long", "long"): [1, 2],
    }
    places = {name: root / name for name in ("runs", "figures", "notebooks")}
    verdicts = judge.judge("ground", **places, train="ground_train:train")["claims"]
    assert [c["verdict"] for c in verdicts] == ["holds here", "holds here"]
    assert verdicts[0]["seeds"] == 2 and verdicts[0]["evidence"][0].startswith("runs/vision: 4 runs")
    assert (root / "figures/index.html").is_file()


def test_a_run_that_changes_makes_what_follows_it_stale(first, root):
    text = (root / "notebooks/ground/study.toml").read_text()
    before = len(calls(root))
    try:
        changed = text.replace("width = 6", "width = 5")
        assert changed != text
        (root / "notebooks/ground/study.toml").write_text(changed)
        summary = reproduce(root)
        assert {row.artefact: row.state for row in summary.rows} == {"variants": "fresh", "stages": "made"}
        again = [line.split()[0] for line in calls(root)[before:]]
        assert sorted(again) == ["Joined", "Student", "Student", "Words"]
    finally:
        (root / "notebooks/ground/study.toml").write_text(text)


def test_a_failure_is_named_by_what_follows_it(first, root):
    text = (root / "notebooks/ground/study.toml").read_text()
    try:
        (root / "notebooks/ground/study.toml").write_text(
            text.replace("ground_learners:Words", "ground_learners:Wards")
        )
        (row,) = reproduce(root, only=["stages"]).rows
    finally:
        (root / "notebooks/ground/study.toml").write_text(text)
    assert (
        row.state == "missing runs"
        and "Student_short emoji/scenes seed 1: it builds on ground_learners:Wards" in row.detail
    )
    assert "which failed: ValueError: unknown method 'ground_learners:Wards'" in row.detail
