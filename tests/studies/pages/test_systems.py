"""A row of the table of systems: read off a run, and asked of the learner itself."""

import dataclasses

import pytest

import vlmlab
from vlmlab.studies.pages import systems
from vlmlab.train.run import Run


def few(task, n=16):
    tests = {name: images.select(range(4)) for name, images in task.tests.items()}
    return dataclasses.replace(task, train=task.train.select(range(n)), val=None, tests=tests)


@pytest.fixture(scope="module")
def pairs():
    return few(vlmlab.task("shapes/pairs", protocol="retrieval"))


@pytest.fixture(scope="module")
def language(pairs, tmp_path_factory):
    sizes = {"width": 32, "layers": 2, "hidden": 64, "vocabulary": 40}
    return vlmlab.fit("language", {}, pairs, out=tmp_path_factory.mktemp("runs"), steps=2, batch=8, **sizes)


def test_what_stands_on_frozen_models_and_writes(language, pairs, tmp_path):
    models = {"language": language, "vlm": vlmlab.load("tiny")}  # in another order than it needs them
    sizes = {"latents": 4, "resampler_layers": 1, "heads": 2, "head": 8}
    run = vlmlab.fit("flamingo", models, pairs, out=tmp_path, steps=3, batch=8, **sizes)
    found = systems.facts(run, pairs)
    assert found["writes"] == "word by word, about an image" and found["tokens"] == 4
    assert isinstance(found["example"], str)
    assert found["trained"] == sum(p.numel() for p in run.model.trainable().values())
    given = [p.numel() for m in (models["vlm"], language.model) for p in m.parameters()]
    assert found["frozen"] == sum(given)
    assert found["losses"] == "train: lm" and found["steps"] == 3
    assert found["data"] == "shapes/pairs, 16 images"


def test_terms_are_told_by_stage_and_without_what_is_logged_beside_them(pairs, tmp_path):
    sizes = {"width": 16, "patch": 16, "image_layers": 1, "text_layers": 1, "queue": 16, "vocabulary": 40}
    run = vlmlab.fit("albef", {}, pairs, out=tmp_path, steps=2, batch=8, **sizes)
    assert systems.terms(run) == {"pretrain": ["itc", "itm", "mlm"]}
    found = systems.facts(run, pairs)
    assert found["writes"] == "a word in a gap" and found["tokens"] == 1 + (48 // 16) ** 2
    assert "[MASK]" not in found["example"] and found["frozen"] == 0


def test_what_neither_writes_nor_reads(tmp_path):
    one = few(vlmlab.task("shapes/one", protocol="few_shot"))
    run = vlmlab.fit("moco", {}, one, out=tmp_path, steps=2, batch=8, image=16, queue=16)
    found = systems.facts(Run(run.path).attach({}, one), one)
    assert (found["writes"], found["example"], found["tokens"]) == ("no", "", None)
    assert found["losses"] == "pretrain: nce"  # accuracy and drift are no terms
    own = dict(run.model.query.named_parameters())
    assert found["trained"] == sum(p.numel() for p in own.values())
