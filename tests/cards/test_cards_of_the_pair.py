"""The cards of tiny-siglip and tiny-janus: about these weights, and measured again in part."""

import numpy as np
import pandas as pd
import pytest
import torch

import vlmlab
from vlmlab.cards import card, measures, shapes, writing
from vlmlab.cards import text as card_text
from vlmlab.models.load import EMBEDDED
from vlmlab.tasks import shapes as scenes_of_shapes
from vlmlab.tasks.shapes.composition import scene
from vlmlab.tasks.shapes.texts import captions

pytest.importorskip("transformers", minversion="5")
PAIR = ("tiny-siglip", "tiny-janus")
SMALL = measures.Size(scenes=12, retrieval=8)


@pytest.fixture(scope="module")
def models():
    return {name: vlmlab.load(name, device="cpu") for name in PAIR}


@pytest.mark.parametrize("name", PAIR)
def test_the_card_is_about_these_weights(models, name):
    assert set(card.read(EMBEDDED / name)["weights"]) == {models[name].fingerprint()[:16]}


def test_both_fit_into_the_repository():
    sizes = [p.stat().st_size for name in PAIR for p in (EMBEDDED / name).iterdir()]
    assert sum(sizes) < 30e6


def test_zero_shot_is_as_measured(models):
    """The same scenes again."""
    committed = card.read(EMBEDDED / "tiny-siglip").query("measure == 'shapes' and style == 'tiny-siglip'")
    n = measures.FULL.scenes
    for found in shapes.zero_shot(measures.Bank(models["tiny-siglip"]), "tiny-siglip", n):
        there = committed[committed["metric"] == found["metric"]]
        assert there["value"].item() == pytest.approx(
            found["value"], abs=1.5 / n
        )  # a near tie may turn elsewhere
        assert there["n"].item() == found["n"] == n


def test_captions_are_as_measured(models):
    found = scenes_of_shapes.scenes(measures.FULL.scenes // 2, kind="one")
    rows = pd.DataFrame(writing.described(models["tiny-janus"], found, "one")).query("measure == 'captions'")
    committed = card.read(EMBEDDED / "tiny-janus").query("measure == 'captions' and task == 'shapes/one'")
    for here in rows.itertuples():
        there = committed[(committed["metric"] == here.metric) & (committed["style"] == here.style)]
        assert there["value"].item() == pytest.approx(here.value, abs=1.5 / len(found)), here.metric


def test_what_it_writes_depends_on_the_image(models):
    model, found = models["tiny-janus"], scenes_of_shapes.scenes(12, kind="one")
    said = {
        shown: writing.write(model, images, [writing.DESCRIBE] * 12)
        for shown, images in writing.pictures(found).items()
    }
    right = {s: sum(a.split()[1] in b for a, b in zip(t, found.texts)) for s, t in said.items()}  # its colour
    assert right[writing.OWN] >= 8 > right[writing.OTHER]
    with torch.no_grad():
        prompts = [model.processor.image_token + writing.DESCRIBE] * 12
        own, other = (
            model.log_likelihood(found.texts, images, prompts).total.sum()
            for images in writing.pictures(found).values()
        )
    assert own > other + 12


def test_its_own_image_gains_on_every_kind_of_scene():
    """Objects, colours and shapes that are said, and the loss against another image and against none."""
    rows = card.read(EMBEDDED / "tiny-janus").query("measure == 'target'")
    assert len(rows) == 3 * (len(writing.ATTRIBUTES) + 1 + 2)
    assert (rows["passed"].astype(bool) == (rows["value"] > rows["target"])).all()
    kept = rows[rows["metric"].str.contains("objects|colours|nats")]
    assert kept["passed"].astype(bool).all(), kept[["style", "metric", "value"]]


def test_captions_are_written_better_than_anyone_can_without_an_image():
    """The entropy of all captions of a kind, counted over all scenes of a side."""
    rows = (
        card.read(EMBEDDED / "tiny-janus")
        .query("measure == 'loss' and style == @writing.OWN")
        .set_index("task")
    )
    for kind, count in writing.EVEN.items():
        of = rows.loc[f"shapes/{kind}"]
        assert of["value"] + 2 * of["se"] < of["chance"]
        said = {text for i in range(4000) for text in captions(scene(f"{kind}/train/0.{i}"))}
        assert count * 0.5 < len(said) <= count
    assert np.isnan(rows.loc["shapes/many", "chance"])


def test_small_cards(models, monkeypatch):
    """On few scenes, with all that the README asks for."""
    for name, learner in (("tiny-siglip", "siglip"), ("tiny-janus", "janus")):
        frame = card.finished(card.ROWS[learner](models[name], SMALL), models[name])
        assert list(frame.columns) == card.COLUMNS and frame["n"].gt(0).all()
        shares = frame[
            ~frame["measure"].isin(["model", "target", "loss"]) & ~frame["metric"].str.contains("rank")
        ]
        assert shares["value"].between(0, 1).all()
        folder = EMBEDDED / name
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert card_text.fill(text, frame, folder / "config.json").count("| --- |") >= 3


def test_gains_are_paired_and_strict():
    metrics = {
        ("x said", writing.OWN): np.array([1.0, 1, 0, 1]),
        ("x said", writing.OTHER): np.array([0.0, 1, 0, 0]),
    }
    *rows, target = writing.compared("captions", "one", metrics, ("said",))
    assert [r["value"] for r in rows] == [0.75, 0.25] and target["value"] == 0.5
    assert target["target"] == pytest.approx(2 * pd.Series([1.0, 0, 0, 1]).sem()) and not target["passed"]
    metrics["x said", writing.OTHER] = metrics["x said", writing.OWN]
    assert not writing.compared("captions", "one", metrics, ("said",))[-1]["passed"]  # nothing is no gain
