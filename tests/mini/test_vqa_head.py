"""The head for questions: what it chooses among, what trains, what a run of it keeps."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlab
from vlmlab.mini.vqa_head import VqaHead
from vlmlab.tasks import Questions
from vlmlab.train.run import Run

SMALL = {"hidden": 64, "answers": 20, "dropout": 0.1, "least": 1}
READING = {"read": lambda id, rng: Image.new("RGB", (64, 64), id), "content": str.encode}


def asked(counts, **options):
    """Questions about two images, one per entry of `counts` (answer -> people)."""
    n = len(counts)
    told = {"questions": tuple(f"what is {i}?" for i in range(n)), "image_of": [i % 2 for i in range(n)]}
    return Questions(
        ["red", "blue"], answers=tuple(counts), kinds=("other",) * n, **told, **READING, **options
    )


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def task():
    found = vlmlab.task("shapes/many", protocol="vqa")
    test = found.tests["test"].select(range(25))
    return dataclasses.replace(found, train=found.train.select(range(60)), val=None, tests={"test": test})


def test_answers_of_nine_questions_or_more():
    answers = (
        [{"Cat": 6, "dog": 4}] * 9
        + [{"the bird.": 10}] * 8
        + [{"a cat": 10}]
        + [{"two": 5, "2": 4, "one": 1}] * 12
    )
    questions = asked(answers)
    assert questions.vocabulary() == ("2", "cat")
    assert questions.vocabulary(least=8) == ("2", "cat", "bird") and questions.vocabulary(most=1) == ("2",)
    worth = questions.worth(("2", "cat", "dog", "1"))
    assert worth[0] == {1: 1.0, 2: 1.0} and worth[9] == {} and worth[17] == {1: 1.0}
    assert worth[-1] == {0: 1.0, 3: pytest.approx(0.3)}


def test_a_probe_learns_on_towers_that_stand_still(vlm, task, tmp_path):
    before = vlm.fingerprint()
    run = vlmlab.fit("vqa_head", vlm, task, out=tmp_path, epochs=60, batch=64, lr=5e-3, **SMALL)
    assert vlm.fingerprint() == before and not any(name.startswith("vlm.") for name in run.model.own())
    loss = run.metrics["loss"]
    assert loss.iloc[-1] < 0.3 * loss.iloc[0]
    answers = run.info["prepared"]["answers"]
    assert {"yes", "no", "1", "2", "red", "circle"} <= set(answers) and 90 < run.info["prepared"]["ceiling"][
        "test"
    ] <= 100
    frame = vlmlab.evaluate(run, dataclasses.replace(task, tests={"learnt": task.train.select(range(25))}))
    right = frame.set_index("metric")["value"]
    assert right["exact_match"] > 50  # of answers that it was taught, of which a guess would hit a third
    weights = np.array(
        [frame.set_index("metric")["n"][f"exact_match {k}"] for k in ("yes/no", "number", "other")]
    )
    parts = np.array([right[f"exact_match {k}"] for k in ("yes/no", "number", "other")])
    assert right["exact_match"] == pytest.approx((weights * parts).sum() / weights.sum())
    pixels = torch.stack([vlm.preprocess(task.train.image(i)) for i in range(4)])
    texts = ["how many shapes are there?"] * 4
    again = Run(run.path).attach(vlm)
    with torch.inference_mode():
        assert again.model.generate(pixels, texts) == run.model.generate(pixels, texts)


def test_finetuning_trains_a_copy_of_both_towers(vlm, task, tmp_path):
    few = dataclasses.replace(task, train=task.train.select(range(12)))
    before = {name: value.clone() for name, value in vlm.state_dict().items()}
    run = vlmlab.fit("vqa_head", vlm, few, out=tmp_path, mode="finetune", epochs=1, batch=12, **SMALL)
    assert all(torch.equal(before[name], value) for name, value in vlm.state_dict().items())
    own = run.model.vlm.state_dict()
    moved = {name for name in before if not torch.equal(before[name], own[name])}
    assert any("visual.transformer" in n for n in moved) and any("token_embedding" in n for n in moved)
    for unused in ("visual.proj", "text_projection", "logit_scale"):
        assert not any(n.endswith(unused) for n in moved)


def test_features_and_pictures_give_the_same_loss(vlm, task):
    few = dataclasses.replace(task, train=task.train.select(range(6)))
    torch.manual_seed(0)
    probe = VqaHead.build(
        {"vlm": vlm}, None, VqaHead.Config(hidden=16, answers=9, dropout=0.0, least=1)
    ).eval()
    probe.prepared = probe.prepare(few)
    rows = [[0, 3, 5], [1, 2]]
    for cached, seen in zip(
        probe.from_features(few.train, rows), probe.from_pictures(few.train, rows), strict=True
    ):
        target = torch.rand(len(seen["question"]), 9)
        with torch.no_grad():
            a, b = (probe.losses(batch | {"target": target})["bce"] for batch in (cached, seen))
        assert a.item() == pytest.approx(b.item(), rel=1e-4)


def test_what_it_cannot_learn_from_is_said(vlm, task, tmp_path):
    captions = vlmlab.task("shapes/pairs", protocol="retrieval")
    with pytest.raises(
        ValueError, match="shapes/pairs under retrieval has no training questions; use the protocol vqa"
    ):
        vlmlab.fit("vqa_head", vlm, captions, out=tmp_path)
    with pytest.raises(ValueError, match="no answer of shapes/many has 500 training questions; lower least"):
        vlmlab.fit("vqa_head", vlm, task, out=tmp_path, least=500)
    with pytest.raises(ValueError, match="mode is 'probes': expected one of probe, finetune"):
        vlmlab.fit("vqa_head", vlm, task, out=tmp_path, mode="probes")
