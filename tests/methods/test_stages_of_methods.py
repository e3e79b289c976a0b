"""What `fit` gets from a method: stages, steps, rates, optimiser, batches; and what it is refused for."""

import dataclasses
import math
import types

import pytest
import small_clip
import torch
import torch.nn.functional as F

import vlmlab
from vlmlab import methods, registry
from vlmlab.learner import Stage
from vlmlab.methods.lafter import TEXTS, linear

IMAGES = 7  # of the task below, 3 steps of 2 in an epoch


@pytest.fixture(scope="module")
def task():
    whole = vlmlab.task("emoji/emotions", protocol="label_distribution")
    train = whole.train.select(range(0, 70, 10))
    return vlmlab.tasks.Task("faces", "label_distribution", None, 1, whole.template, train, None, {})


def staged(name, vlm, task, seed=3, **given):
    config, options = registry.settings(name, {"batch_size": 2} | given)
    m = methods.find(name).build({"vlm": vlm}, (list(task.train.classnames), task.template), config)
    return m, m.stages(task, options, seed)


@pytest.mark.parametrize(
    ("given", "steps", "optimiser", "options"),
    [
        ({}, 30, "adamw", {"eps": 1e-8}),
        ({"optimiser": "adam", "eps": 1e-3}, 30, "adam", {"eps": 1e-3}),
        ({"optimiser": "sgd"}, 30, "sgd", {"momentum": 0.9}),
        ({"max_steps": 4}, 4, "adamw", {"eps": 1e-8}),
        ({"max_steps": 400}, 30, "adamw", {"eps": 1e-8}),
        ({"epochs": 2, "batch_size": 3}, 4, "adamw", {"eps": 1e-8}),
    ],
)
def test_one_stage_of_epochs(small_vlm, task, given, steps, optimiser, options):
    _, (stage,) = staged("mmrlpp", small_vlm, task, **given)
    epoch = IMAGES // given.get("batch_size", 2)
    assert (stage.steps, stage.epoch, stage.save) == (steps, epoch, epoch)
    assert (stage.optimiser, stage.options) == (optimiser, options)
    (group,) = stage.groups
    assert (group.names, group.lr, group.weight_decay) == ("*", 1e-3, 5e-4)
    last = next(stage.feed(steps - 1))
    assert (
        last["image"].shape == (given.get("batch_size", 2), 3, 64, 64) and len(list(stage.feed(0))) == steps
    )


def test_the_rate_changes_with_the_epoch_alone(small_vlm, task):
    _, (stage,) = staged("coop", small_vlm, task, epochs=4, lr=0.2, warmup_epochs=2)
    rates = [stage.rate(step, 0.2) for step in range(12)]
    wanted = [1e-5, 1e-5, 0.2, 0.2 * (1 + 0.5**0.5) / 2]  # the cosine after an eighth of a turn
    assert rates == pytest.approx([r for r in wanted for _ in range(3)], rel=1e-12)


def test_what_trains_nothing_has_no_stage(small_vlm, task):
    for name in ("zero_shot", "linear_probe"):
        assert staged(name, small_vlm, task)[1] == []


def test_lafter_goes_through_all_batches_of_all_its_stages(small_vlm, task):
    """Each part of the training on images goes on where the one before ended."""
    order = {"epochs": 3, "warmup_epochs": 1, "labels": "true", "stages": "11,12", "w_distribution": 1.0}
    _, parts = staged("lafter_nga", small_vlm, task, **order)
    assert [(s.name, s.steps, s.epoch, s.save) for s in parts[1:]] == [
        ("warmup", 3, 3, 3),
        ("unfreeze2", 3, 3, 3),
        ("images", 3, 3, 3),
    ]
    _, (_, whole) = staged("lafter_nga", small_vlm, task, **order | {"order": "joint"})
    batches = [batch for stage in parts[1:] for _, batch in zip(range(stage.steps), stage.feed(0))]
    assert len(batches) == whole.steps == 9
    for ours, wanted in zip(batches, whole.feed(0), strict=True):
        assert ours.keys() == wanted.keys() == {"strong", "label", "distribution"}
        assert torch.equal(ours["strong"], wanted["strong"]) and torch.equal(ours["label"], wanted["label"])
    again = next(parts[2].feed(2))
    assert torch.equal(again["strong"], batches[5]["strong"])
    _, few = staged("lafter_nga", small_vlm, task, max_steps=2, **order)
    assert [s.steps for s in few] == [2, 2, 2, 2]
    _, plain = staged("lafter", small_vlm, task, epochs=2)
    assert [(s.steps, s.epoch) for s in plain] == [(400, None), (6, 3)]


@pytest.mark.parametrize(
    ("weights", "missing"), [({}, "a label"), ({"w_distribution": 1.0}, "a distribution and a label")]
)
def test_true_labels_that_are_not_there(small_vlm, task, weights, missing):
    bare = dataclasses.replace(task, train=task.train.bare(range(7)))
    config, options = registry.settings("lafter", {"labels": "true", **weights})
    m = methods.find("lafter").build({"vlm": small_vlm}, (["cat", "dog"], "a {}."), config)
    with pytest.raises(ValueError, match=f"labels='true' needs {missing} of every image, and faces"):
        m.stages(bare, options, 1)


@pytest.mark.parametrize(
    ("stage", "step", "taught"),
    [
        (Stage(TEXTS, 3), 0, False),
        (Stage(TEXTS, 3), 1, False),
        (Stage(TEXTS, 3), 2, True),
        (Stage("images", 3, epoch=3), 2, False),
        (Stage("images", 3, epoch=3), 1, False),
    ],
)
def test_the_teacher_is_what_the_last_step_on_texts_left(small_vlm, stage, step, taught):
    m = methods.build("lafter", small_vlm, small_clip.CLASSES)
    m.after_step(stage, step)
    assert torch.equal(m.teacher, m.adapter if taught else torch.zeros_like(m.adapter))
    assert m.epochs_kept == (stage.epoch is not None and step == 2)


def test_epochs_that_are_not_kept(small_vlm):
    m = methods.build("lafter", small_vlm, small_clip.CLASSES, epochs=2)
    m.after_step(Stage("images", 2, epoch=1), 0)
    for epoch in (0, 2):
        with pytest.raises(ValueError, match=f"epoch {epoch}, but epochs 1 to 1 are kept"), m.at_epoch(epoch):
            pass


def test_promptsrc_averages_after_each_epoch(small_vlm):
    m = methods.build("promptsrc", small_vlm, small_clip.CLASSES, epochs=2, gpa_mean=2.0)
    stage, seen = Stage("train", 6, epoch=3), []
    share = 1 / (1 + math.exp(0.5))  # of the first epoch, one standard deviation from the mean
    for step in range(6):
        with torch.no_grad():
            m.text.normal_()
        seen.append(m.text.detach().clone())
        m.after_step(stage, step)
        assert step == 5 or torch.equal(m.text, seen[-1])
    torch.testing.assert_close(m.text.detach(), share * seen[2] + (1 - share) * seen[5])
    with pytest.raises(ValueError, match="epoch 0 of 2"):
        m.average(0)


# numbers that half precision would round


@pytest.mark.parametrize("mixed", [False, True])
def test_products_with_classes_are_in_float32_also_in_mixed_precision(small_vlm, mixed):
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(3, 64, generator=g), torch.randn(5, 64, generator=g)
    m = methods.build("zero_shot", small_vlm, small_clip.CLASSES)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        found = linear(x, w), m.cosine_logits(x, w)
    exact = x.double() @ w.double().T
    for value, scale in zip(found, (1, 100)):
        assert value.dtype == torch.float32
        assert (value - scale * exact).abs().max() < 1e-5 * scale * exact.abs().max()


# what a method stands on


def test_a_panel_says_classes_template_and_rules(small_vlm):
    m = methods.build("mmrlpp", small_vlm, small_clip.CLASSES, "a drawing of a {}.", rep_dim=8)
    facts = m.panel().facts
    assert facts["template"] == "a drawing of a {}." and facts["rules"] == "unified, decoupled"
    assert facts["classes"].startswith("6: abyssinian") and facts["stands on"] == small_vlm.name


def test_what_a_method_cannot_stand_on(small_vlm, monkeypatch):
    cls, config = methods.find("mmrl"), registry.config("mmrl")()
    with pytest.raises(ValueError, match="MMRL needs a task with class names"):
        cls.build({"vlm": small_vlm}, None, config)
    words = types.SimpleNamespace(name="some words")
    with pytest.raises(ValueError, match=r"MMRL stands on images and texts .* some words is of kind Simple"):
        cls.build({"vlm": words}, (["cat"], "a {}."), config)
    with monkeypatch.context() as patch:
        patch.setattr(type(small_vlm.text), "depth", 11)
        with pytest.raises(ValueError, match="two towers of equal depth; they have 12 and 11 blocks"):
            cls.build({"vlm": small_vlm}, (["cat"], "a {}."), config)
    with monkeypatch.context() as patch:
        patch.delattr(small_vlm.image, "reads_class_token")  # as of a tower of another library
        with pytest.raises(ValueError, match="LaFTer reads the class token"):
            methods.build("lafter", small_vlm, ["cat"])


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("mmrl", {"tokens": 1, "rep_dim": 1}),
        ("mmrlpp", {"tokens": 1, "rep_dim": 1, "rank": 1, "proj_rank": 1}),
        ("maple", {"tokens": 1, "depth": 1}),
        ("promptsrc", {"tokens": 1, "depth": 1, "image_tokens": 1, "image_depth": 1}),
        ("promptsrc", {"depth": 12}),
        ("hicropl", {"tokens": 1, "depth": 2, "cross_layer": 1}),
        ("hicropl", {"tokens": 1, "depth": 3, "cross_layer": 2}),
    ],
)
def test_the_least_and_the_most_that_is_legal(small_vlm, name, config):
    m = methods.build(name, small_vlm, small_clip.CLASSES[:2], **config)
    with torch.no_grad():
        assert m.logits(small_clip.images()[:1]).isfinite().all()


def test_class_features_of_a_frozen_tower_take_one_run(small_vlm):
    m, calls = methods.build("zero_shot", small_vlm, small_clip.CLASSES), []
    hooks = [b.register_forward_hook(lambda *_: calls.append(1)) for b in small_vlm.text.blocks]
    try:
        first, second = m.class_features(), m.class_features()
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == 12 and torch.equal(first, second)
    with torch.no_grad():
        assert torch.allclose(first, F.normalize(small_vlm.encode_text(m.prompts()), dim=-1), atol=1e-6)


def test_names_that_repeat_keep_rows_of_their_own(small_vlm):
    """As ImageNet's two cranes."""
    m = methods.build("linear_probe", small_vlm, ["crane", "dog", "crane"])
    with torch.no_grad():
        m.weight.copy_(torch.eye(3, 64))
        rows = m.class_features()
    assert torch.equal(rows, torch.eye(3, 64))
