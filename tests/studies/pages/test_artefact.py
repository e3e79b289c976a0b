"""The handle of a notebook: runs are chosen by what there is, opened as they were trained, and saved with."""

import dataclasses
import types

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from vlmlab import studies, task
from vlmlab.models.load import load
from vlmlab.studies.pages.artefact import Opened
from vlmlab.train.evaluate import evaluate
from vlmlab.train.fit import fit

ROWS = pd.DataFrame({"name": ["mmrlpp", "mmrlpp", "aligned_norm_proj", "mmrlpp"], "task": list("babc")})


@pytest.fixture(autouse=True)
def threads():
    torch.set_num_threads(1)


def opened(rows=ROWS, opener=None, out="", **models):
    """A handle without a study.toml."""
    profile = types.SimpleNamespace(models=models or {"vlm": {"name": "tiny"}})
    study = types.SimpleNamespace(id="fake", profile=lambda name: profile)
    return Opened(study, "demo", "fig1", out, rows, opener)


def chosen(*args, **options) -> list:
    return opened().only(*args, **options).runs.index.tolist()


def test_only_takes_names_and_tasks_in_the_order_of_the_runs():
    assert chosen() == [0, 1, 2, 3]
    assert chosen(["mmrlpp"]) == [0, 1, 3]
    assert chosen(["mmrlpp"], ["c", "b"]) == [0, 3]
    assert chosen(tasks="a") == [1]
    assert opened().where(ROWS["task"] == "b").only(["mmrlpp"]).runs.index.tolist() == [0]


def test_without_tasks_it_is_the_first_of_them():
    assert chosen(tasks=[], first=2) == [0, 1, 2] and chosen(tasks="", first=1) == [0, 2]
    assert chosen(["mmrlpp"], tasks=["c", "other"], first=1) == [3]


def test_tasks_of_another_profile_are_replaced_with_a_word():
    with pytest.warns(UserWarning, match=r"no runs of other; b, a instead"):
        assert chosen(tasks=["other"], first=2) == [0, 1, 2]


def test_a_name_without_runs_is_named():
    with pytest.raises(ValueError, match=r"no run is called coop; there are mmrlpp, aligned_norm_proj"):
        opened().only(["coop"])


def test_the_one_model_is_loaded_once_and_several_are_named():
    loaded = []
    art = opened(opener=lambda name, **more: loaded.append(name) or name)
    assert art.model == "tiny" and art.only(["mmrlpp"]).model == "tiny" and loaded == ["tiny", "tiny"]
    with pytest.raises(ValueError, match=r"profile demo has models by role \(student, teacher\), not one"):
        opened(student={"name": "tiny"}, teacher={"name": "small"}).model  # noqa: B018


@pytest.fixture(scope="module")
def vlm():
    return load("tiny", device="cpu")


def test_runs_are_opened_on_the_data_they_were_trained_on(vlm, tmp_path):
    data = task("emoji/activities", protocol="base_to_new", shots=2, seed=3)
    zero = task("emoji/activities", protocol="base_to_new", seed=1)
    few = fit("mmrlpp", vlm, data, out=tmp_path, max_steps=1, warmup_epochs=0)
    runs = [few, fit("zero_shot", vlm, zero, out=tmp_path)]
    rows = [
        {
            "method": m,
            "task": "emoji/activities",
            "protocol": "base_to_new",
            "shots": shots,
            "seed": seed,
            "name": m,
            "key": run.key,
            "path": run.path,
        }
        for m, shots, seed, run in (("mmrlpp", 2, 3, runs[0]), ("zero_shot", None, 1, runs[1]))
    ]
    found = list(opened(pd.DataFrame(rows), lambda **model: vlm).open())
    assert [row.key for row, _, _ in found] == [run.key for run in runs]
    assert found[0][2].fingerprint() == data.fingerprint() and found[1][2].shots is None
    trained = runs[0].attach(vlm, data).model.trainable()
    same = found[0][1].model.trainable()
    assert same and all(torch.equal(same[k], trained[k]) for k in trained)


def test_a_run_that_two_matrices_share_is_read_under_each_protocol(vlm, tmp_path):
    """Few-shot and cross-dataset matrices train alike: one run, whose rows must not be mixed."""
    settings = {"out": tmp_path, "max_steps": 1, "warmup_epochs": 0, "rep_dim": 8}
    rows = []
    for protocol, variant in (("few_shot", ""), ("domain_shift", "short")):
        data = task("emoji/activities", protocol=protocol, shots=1, seed=1)
        run = fit("mmrlpp", vlm, data, variant=variant, **settings)
        evaluate(run, data, rule="unified")
        rows.append({"name": "mmrlpp", "protocol": protocol, "variant": variant, "path": run.path})
    assert rows[0]["path"] == rows[1]["path"]
    few, shifted = (opened(pd.DataFrame([row])).results for row in rows)
    assert set(few["split"]) == {"test"} and few["variant"].eq("").all()
    assert "noise" in set(shifted["split"]) and shifted["variant"].eq("short").all()


def test_scores_are_of_one_rule_with_settings_beside_them_and_of_shared_runs_once(vlm, tmp_path):
    data = task("emoji/activities", protocol="few_shot", shots=1, seed=1)
    run = fit("lafter", vlm, data, out=tmp_path, max_steps=1, epochs=1, tokens=2, noise=0.25)
    evaluate(run, data, rule=["unified", "unified+best_epoch"])
    row = {"name": "lafter_short", "protocol": "few_shot", "variant": "short", "path": run.path}
    found = opened(pd.DataFrame([row, row, row | {"name": "lafter", "variant": ""}]))
    scores = found.scores("noise", "stages")
    assert len(scores) == 2 * len(run.results.query("rule == 'unified'")) > 0
    assert set(scores["rule"]) == {"unified"} and set(scores["name"]) == {"lafter_short", "lafter"}
    assert scores["noise"].eq(0.25).all() and scores["stages"].isna().all()  # LaFTer has no stages
    assert "epoch" in set(found.scores(rule="unified+best_epoch")["metric"])


def test_images_are_spread_over_the_split(vlm):
    art = opened(opener=lambda **model: vlm)
    split = task("emoji/activities", protocol="base_to_new", seed=1).new
    images, labels = art.images(split)
    assert images.shape == (len(split), 3, *vlm.clip.visual.image_size)
    assert labels.tolist() == split.labels.tolist()
    some, few = art.images(split, limit=4)
    at = np.linspace(0, len(split) - 1, 4).astype(int)
    assert torch.equal(some, images[at]) and few.tolist() == split.labels[at].tolist()
    assert len(art.images(split, limit=10**6)[0]) == len(split)


def test_a_drawing_counts_once_whatever_its_grounds():
    split = task("emoji/animals", protocol="base_to_new", seed=1).tests["base"]
    once = opened().drawings(split)
    assert 2 * len(once) == len(split) and once.ids == [id for id in split.ids if not id.endswith("+1")]
    few = opened().drawings(split, per_class=5, classes=2)
    assert few.classnames == (split.classnames[0], split.classnames[-1]) and few.counts().tolist() == [5, 5]
    sizes = types.SimpleNamespace(content=lambda id: b"512")  # photographs of one size in bytes are no copies
    photographs = dataclasses.replace(
        once, ids=[f"{i}.jpg" for i in range(len(once))], concept=str, content=sizes.content
    )
    assert opened().drawings(photographs).ids == photographs.ids


def test_figures_and_tables_are_saved_with_the_runs_that_are_left(tmp_path):
    rows = ROWS.assign(key=["k0", "k1", "k2", "k3"], seed=[1, 2, 3, 4])
    art = opened(rows, out=tmp_path)
    fig = plt.figure()
    assert [p.suffix for p in art.only(["mmrlpp"]).save(fig, data=rows)] == [".svg", ".png", ".pdf", ".csv"]
    note = studies.read_provenance(tmp_path / "fig1.svg")
    assert (note["run_keys"], note["seeds"]) == (["k0", "k1", "k3"], [1, 2, 4])
    assert (note["study"], note["profile"], note["artefact"]) == ("fake", "demo", "fig1")
    assert [p.suffix for p in art.save(rows)] == [".csv", ".tex", ".html"]
    assert studies.read_provenance(tmp_path / "fig1.tex")["run_keys"] == ["k0", "k1", "k2", "k3"]
    assert opened(rows).save(fig) == []


def test_runs_that_are_missing_are_trained_first(project, monkeypatch):
    project.study(
        project.artefact("good"),
        project.artefact("bad", matrix="bad"),
        tasks={"main": ["toy/a"], "bad": ["toy/raise"]},
    )
    monkeypatch.chdir(project.root / "notebooks/fake")  # where Jupyter opens it
    options = {"train": "fake_train:train", "data": project.root / "data"}
    art = studies.artefact("fake", "good", runs="runs", **options)
    assert art.runs[["method", "task", "shots"]].values.tolist() == [["one", "toy/a", 4]] * 2
    assert art.runs.seed.tolist() == [1, 2]
    assert all((project.root / path / "run.json").exists() for path in art.runs.path)
    assert len(project.calls()) == 2
    again = studies.artefact("fake", "good", runs="runs", **options)
    assert again.runs.equals(art.runs) and len(project.calls()) == 2
    with pytest.raises(RuntimeError, match="toy/raise 4-shot seed 1: ValueError: this task cannot be"):
        studies.artefact("fake", "bad", runs="runs", **options)
    assert project.states()["good"] == "missing not made yet"


def test_public_names():
    assert dir(studies) == sorted(studies.__all__) and all(hasattr(studies, name) for name in studies.__all__)
    with pytest.raises(AttributeError, match=r"vlmlab\.studies has no 'rnus'; it has artefact"):
        studies.rnus  # noqa: B018
