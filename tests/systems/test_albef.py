"""ALBEF: its three terms, its teacher and queues, what it answers."""

import copy

import numpy as np
import pytest
import torch

import vlmlab
from vlmlab.scores import pointing, ranking, retrieval
from vlmlab.systems.albef import Albef

SMALL = {"width": 32, "patch": 16, "image_layers": 1, "text_layers": 1, "fusion_layers": 2, "joint": 16}
SMALL |= {"vocabulary": 40, "context": 16, "queue": 16}


def made(pairs, **config):
    torch.manual_seed(0)
    model = Albef({}, Albef.Config(**SMALL | config))
    model.prepared = model.prepare(pairs)
    return model


def batch_of(model, pairs, n=8):
    (stage,) = model.stages(pairs, model.Options(steps=4, batch=n), 0)
    return next(stage.feed(0)), stage


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    return vlmlab.fit(
        "albef", {}, pairs, out=tmp_path_factory.mktemp("albef"), steps=24, batch=16, lr=3e-3, **SMALL
    )


def test_it_learns_and_is_measured(run, pairs):
    log = run.metrics
    for term in ("itc", "itm", "mlm"):
        assert log[term].iloc[-6:].mean() < log[term].iloc[:6].mean(), term
    scores = vlmlab.evaluate(run, pairs).set_index("metric")["value"]
    assert {"i2t R@1", "AUC", "pointing"} <= set(scores.index)


def test_its_teacher_follows_and_its_queues_take_the_teachers_features(pairs):
    model = made(pairs, momentum=0.75)
    batch, stage = batch_of(model, pairs)
    sum(model.losses(batch | {"alpha": 0.4}, stage).values()).backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert all(p.grad is not None for p in (model.itm.weight, model.temperature))
    missing = [n for n, p in model.online.named_parameters() if p.grad is None]
    assert not missing, missing
    keys, before = model.keys, copy.deepcopy(model.teacher.text[0].mlp[0].weight)
    with torch.no_grad():
        for p in model.online.parameters():
            p.add_(1)
        model.temperature.fill_(3.0)
    model.after_step(stage, 0)
    assert torch.allclose(model.teacher.text[0].mlp[0].weight, before + 0.25, atol=1e-6)
    assert torch.equal(model.image_queue.rows[:8], keys[0]) and torch.equal(
        model.text_queue.rows[:8], keys[1]
    )
    assert model.image_queue.ages().tolist() == [0] * 8 and model.temperature.item() == 0.5


def test_soft_targets_rise_along_the_ramp(pairs):
    model = made(pairs)
    o = model.Options(steps=20, batch=8, alpha=0.4, ramp=0.5)
    feed = model.stages(pairs, o, 0)[0].feed
    alphas = [batch["alpha"] for batch in feed(0)]
    assert alphas == pytest.approx([0.4 * min(1, i / 10) for i in range(20)])
    assert [b["alpha"] for b in feed(18)] == alphas[18:]


def test_alpha_0_distils_nothing(pairs):
    """The hard terms alone, whatever the teacher says."""
    model = made(pairs, queue=0)
    batch, stage = batch_of(model, pairs)
    found = {0.0: [], 0.4: []}
    for damage in (0.0, 3.0):
        with torch.no_grad():
            model.teacher.head.bias.add_(damage * torch.randn(40))
        for alpha, values in found.items():
            torch.manual_seed(1)
            values.append(model.losses(batch | {"alpha": alpha}, stage)["mlm"].item())
    assert len(set(found[0.0])) == 1 and len(set(found[0.4])) == 2


@torch.no_grad()
def test_texts_do_not_depend_on_what_stands_beside_them(pairs):
    model = made(pairs).eval()
    images = torch.randn(2, 3, 48, 48)
    texts = ["a red circle", "a small red circle left of a large blue heart"]
    both = model.match(images, texts)
    assert torch.allclose(both[:1], model.match(images[:1], texts[:1]), atol=1e-5)
    assert torch.allclose(model.encode_text(texts)[:1], model.encode_text(texts[:1]), atol=1e-5)
    assert model.encode_image(images).norm(dim=1).tolist() == pytest.approx([1, 1])
    assert not torch.allclose(both, model.match(images.flip(0), texts), atol=1e-4)  # it looks


def test_masked_words_are_filled_in_and_the_others_stay(run):
    images = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        found = run.model.fill(images, ["a small [MASK] circle", "[MASK] red heart"])
    for text, frame in zip(found, (("a", "small", None, "circle"), (None, "red", "heart"))):
        words = text.split()
        assert len(words) == len(frame)
        assert all(b is None or a == b for a, b in zip(words, frame))
        assert set(words) <= set(run.model.words.all[8:])


@torch.no_grad()
def test_relevance_is_the_positive_part_of_attention_times_gradient(run):
    """Against finite differences of single probabilities."""
    model, text, images = run.model.eval(), "a small red circle", torch.randn(1, 3, 48, 48)
    maps, attention, step = model.relevance(images, [text]), model.looking(), 1e-2
    assert maps.shape == (1, 3, 3) and (maps >= 0).all() and attention.kept is None

    class Shifted(list):
        def __init__(self, shift):
            self.shift = shift

        def append(self, probs):
            super().append(probs + self.shift)

    def logit(shift):
        attention.kept = Shifted(shift)
        try:
            return model.match(images, [text]).item(), attention.kept[0]
        finally:
            attention.kept = None

    _, probs = logit(0.0)
    for patch in (3, 7):
        total = 0.0
        for word in range(1, 5):
            for head in range(4):
                shift = torch.zeros_like(probs)
                shift[0, head, word, patch] = step
                gradient = (logit(shift)[0] - logit(-shift)[0]) / (2 * step)
                total += max(0.0, probs[0, head, word, patch].item() * gradient) / 16
        assert maps.flatten()[patch - 1].item() == pytest.approx(total, rel=0.05, abs=1e-5) and total > 0


def test_scores_ask_it_and_find_numbers(run, pairs):
    test = pairs.tests["test"]
    from vlmlab.train.evaluate import answers

    for score in (retrieval, ranking, pointing):
        found = answers(score, run.model, test, {"unified": None})["unified"]
        assert np.isfinite(found).all() and found.std() > 0


def test_what_it_cannot_learn_from_is_said(one, pairs, tmp_path):
    with pytest.raises(ValueError, match="shapes/one under few_shot has no training captions"):
        vlmlab.fit("albef", {}, one, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="relevance_layer is 1; it must be below 1"):
        vlmlab.fit("albef", {}, pairs, out=tmp_path, **SMALL, relevance_layer=1)
    with pytest.raises(ValueError, match="Albef has no vocabulary yet"):
        Albef({}, Albef.Config(**SMALL)).encode_text(["a"])
