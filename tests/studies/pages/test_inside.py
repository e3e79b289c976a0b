"""What the survey's notebooks measure inside of systems, where the answer is known."""

import dataclasses

import numpy as np
import pytest
import torch

import vlmlab
from vlmlab.studies.pages import inside
from vlmlab.systems.words import split
from vlmlab.tasks.shapes.composition import COLOURS


@pytest.fixture(scope="module")
def pairs():
    task = vlmlab.task("shapes/pairs", protocol="retrieval")
    tests = {name: images.select(range(12)) for name, images in task.tests.items()}
    return dataclasses.replace(task, train=task.train.select(range(24)), val=None, tests=tests)


@pytest.fixture(scope="module")
def test(pairs):
    return next(iter(pairs.tests.values()))


@pytest.fixture(scope="module")
def models(pairs, tmp_path_factory):
    sizes = {"width": 32, "layers": 2, "hidden": 64, "vocabulary": 60}
    out = tmp_path_factory.mktemp("runs")
    return {
        "vlm": vlmlab.load("tiny"),
        "language": vlmlab.fit("language", {}, pairs, out=out, steps=2, batch=8, **sizes),
    }


def fitted(method, models, task, out, **settings):
    return vlmlab.fit(method, models, task, out=out, batch=8, **settings).model


def test_names_are_found_in_their_captions(test):
    for text, names in zip(test.texts, test.shows):
        for name in names:
            at = inside.place(text, name)
            assert split(text)[at : at + 3] == split(name)


def test_where_words_point(pairs, test, tmp_path):
    sizes = {"width": 16, "patch": 16, "image_layers": 1, "text_layers": 1, "queue": 16, "vocabulary": 40}
    model = fitted("albef", {}, pairs, tmp_path, steps=2, **sizes)
    pixels = torch.stack([model.preprocess(test.image(i)) for i in range(len(test))])
    rows, maps = inside.pointed(model, test, pixels)
    assert set(rows["metric"]) == {f"{k} on {w}" for k in inside.WORDS for w in ("own", "other")}
    chance = rows.groupby("metric")["chance"].mean()
    both = [100 * np.mean([m.mean() for m in test.masks(i)]) for i in range(len(test))]
    assert chance.to_numpy() == pytest.approx(np.full(6, np.mean(both)))
    heat, at = maps[1, "colour"]
    assert heat.shape == (12, 3, 3) and all(split(t)[i] in COLOURS for t, i in zip(test.texts, at))
    found = inside.rematched(model, test, pixels, k=12)
    assert set(found["metric"]) == {"R@1 by cosine", "R@1 matched again"} and len(found) == 24
    hits = found[found["metric"] == "R@1 matched again"]["value"].to_numpy() == 100
    logits = torch.stack([model.match(pixels, [text] * 12) for text in test.texts], 1)  # all are asked about
    assert (hits == (logits.argmax(1) == torch.arange(12)).numpy()).all()


def test_closing_a_closed_gate_costs_nothing(models, pairs, test, tmp_path):
    sizes = {"latents": 4, "resampler_layers": 1, "heads": 2, "head": 8}
    model = fitted("flamingo", models, pairs, tmp_path, steps=2, **sizes).eval()
    pixels, texts = torch.randn(12, 3, 64, 64), test.texts
    with torch.no_grad():
        for block in model.gated:
            block.cross_gate.zero_(), block.mlp_gate.fill_(0.7)
    before = {name: x.clone() for name, x in model.own().items()}
    rows = inside.closed_gates(model, pixels, texts).set_index("gate")
    assert (rows.loc["cross", "value"] == 0).all() and (rows.loc["mlp", "value"].abs() > 1e-6).all()
    assert rows.loc["mlp", "tanh"].to_numpy() == pytest.approx(np.tanh(0.7))
    assert all(torch.equal(before[name], x) for name, x in model.own().items())


def test_a_head_that_says_one_colour_is_right_where_that_colour_is(models, pairs, test, tmp_path):
    model = fitted("llava", models, pairs, tmp_path, steps=1, instruct_steps=1).eval()
    with torch.no_grad():
        model.llava.get_output_embeddings().weight.zero_()  # the first colour of all
    rows, colours = inside.colours_on_patches(model, test, torch.randn(12, 3, 64, 64))
    on = [
        (name.split()[1], mask.reshape(8, 8, 8, 8).mean((1, 3)) > 0.5)
        for i in range(len(test))
        for mask, name in zip(test.masks(i), test.shows[i])
    ]
    first = sum(m.sum() for c, m in on if c == next(iter(COLOURS)))
    assert colours == len(COLOURS) and len(rows) == 2
    assert rows["value"].to_numpy() == pytest.approx(100 * first / sum(m.sum() for _, m in on), abs=1.5)


class Captioner:
    """Says the same of every image, but where it draws."""

    def generate(self, pixels, texts, how, **options):
        return [
            f"a red circle {int(torch.randint(9, ()))}" if how == "nucleus" else "a red circle" for _ in texts
        ]

    def log_likelihood(self, pixels, texts):
        return torch.full((len(texts),), -6.0), torch.full((len(texts),), 3)


def test_decodings_are_told_apart(test):
    rows = inside.decodings(Captioner(), test, torch.zeros(12, 1), draws=2)
    assert rows.groupby("decoding")["draw"].nunique().to_dict() == {"beam": 1, "greedy": 1, "nucleus": 2}
    found = rows.pivot_table("value", "decoding", "metric")
    assert (found["log_p"] == -2).all()
    assert found.loc["greedy", "different"] == pytest.approx(100 / 12) and found.loc[
        "greedy", "distinct_2"
    ] == pytest.approx(100 / 12)
    assert found.loc["nucleus", "distinct_2"] > found.loc["greedy", "distinct_2"]
