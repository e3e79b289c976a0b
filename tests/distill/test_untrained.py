"""The control that does not train, a head for questions on a student, and what the study reads off a learner of cmapkd."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlab
from vlmlab import plots, registry
from vlmlab.studies.pages import diagrams, difficulty, pyramids
from vlmlab.tasks import Questions
from vlmlab.tasks.task import Task

SMALL = dict(channels=12, sizes=(8, 4, 2, 1))


@pytest.fixture(scope="module")
def learner(models):
    torch.manual_seed(0)
    return registry.build("cmapkd", models, **SMALL).eval()


def test_an_untrained_student_is_the_model_as_it_is_given(models, task, tmp_path):
    run = vlmlab.fit("untrained", {"student": models["student"]}, task, out=tmp_path)
    assert run.info["steps"] == 0 and not run.model.trainable()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(run.model.encode_image(images), models["student"].encode_image(images))
    assert {"i2t R@1", "mean R"} <= set(vlmlab.evaluate(run, task)["metric"])


def test_a_head_for_questions_stands_on_a_student(models, task, tmp_path):
    reading = {"read": lambda id, rng=None: Image.new("RGB", (32, 32), id), "content": str.encode}
    said = ({"red": 1}, {"no": 1}, {"no": 1}, {"blue": 1})
    asked = Questions(
        ["red", "blue"],
        questions=("which colour?", "is it blue?", "is it red?", "which colour?"),
        image_of=[0, 0, 1, 1],
        answers=said,
        kinds=("other", "yes/no", "yes/no", "other"),
        **reading,
    )
    data = Task("asked", "vqa", None, 1, "{}", asked, None, {"test": asked})
    student = vlmlab.fit("untrained", {"student": models["student"]}, task, out=tmp_path)
    settings = dict(epochs=1, hidden=8, answers=3, least=1)
    run, same = (
        vlmlab.fit("vqa_head", m, data, out=tmp_path, **settings) for m in (student, models["student"])
    )
    assert "run" in run.info["models"]["vlm"] and run.model.vlm is student.model.student
    a, b = (torch.cat([x.flatten() for name, x in sorted(r.model.own().items())]) for r in (run, same))
    assert torch.equal(a, b)
    images = torch.stack([torch.ones(3, 32, 32) * i for i in (0, 0, 1, 1)])
    with torch.no_grad():
        together = run.model.generate(images, list(asked.questions))
        single = [run.model.generate(x[None], [q])[0] for x, q in zip(images, asked.questions)]
    assert together == single


def test_the_prefit_may_have_steps_of_its_own(models, task):
    built = registry.build("cmapkd", models, **SMALL)
    stages = built.stages(task, built.Options(batch_size=12, max_steps=25, prefit=7), seed=0)
    assert (stages[0].name, stages[0].steps) == ("prefit", 7)
    assert sum(stage.steps for stage in stages[1:]) == 25


def test_what_is_seen_is_what_the_learner_computes(learner, task):
    test = task.tests["test"]
    found = pyramids.seen(learner, test)
    batch = next(iter(pyramids.batches(learner, test)))
    with torch.no_grad():
        s, t = learner.levels(batch), learner.teacher_levels(batch)
        costs, weights = learner.costs(s, t), learner.weights(s, t)
    n = len(weights)
    assert np.allclose(found.losses[:n], costs, atol=1e-5) and np.allclose(
        found.weights[:n], weights, atol=1e-5
    )
    assert np.allclose(found.teacher.vision[:n], t.vision, atol=1e-5)
    assert found.weights.shape == (len(test), 2, 4) and np.allclose(found.alone.sum(-1), 1, atol=1e-5)
    assert sorted(found.shuffled[:, 0, 0]) == sorted(found.weights[:, 0, 0])
    given = {"student": learner.loaded[0], "teacher": learner.teacher}
    with pytest.raises(ValueError, match="not weighed by ALSN"):
        pyramids.seen(registry.build("cmapkd", given, weights="uniform", **SMALL), test)


def test_difficulty_is_that_of_the_teacher_and_of_the_student_as_given(learner, task):
    test = task.tests["test"]
    teacher, student = difficulty.galleries(learner, test)
    assert teacher.shape == student.shape == (len(test), len(test.texts))
    assert abs(student).max() <= float(learner.loaded[0].logit_scale) * 1.0001
    hard = difficulty.difficulties(test, teacher, student)
    assert {*hard} == {*difficulty.NAMES} and all(len(v) == len(test) for v in hard.values())
    rows = difficulty.associations(hard, pyramids.seen(learner, test), 0.1)
    assert len(rows) == 4 * len(difficulty.SOURCES) * 8 and {r["source"] for r in rows} == {
        *difficulty.SOURCES
    }
    mean, band = difficulty.curves([(hard, pyramids.seen(learner, test).weights)], "loss", pyramids.VISION)
    assert set(mean.dims) == {"decile", "level"} and (band.sel(bound="low") <= band.sel(bound="high")).all()


def test_diagrams_are_read_off_the_learner(learner, models):
    for boxes, links in (diagrams.overview(learner), diagrams.pyramid(learner), diagrams.hierarchy(learner)):
        assert plots.boxes(boxes, links) is not None
    boxes, _ = diagrams.overview(learner)
    text = dict(zip(boxes["name"], boxes["text"]))
    assert "5x5 patches" in text["teacher image"] and "4x4 patches" in text["student image"]
    assert diagrams.weights(learner.config) == pytest.approx(
        {"intra_v": 1, "intra_l": 1, "align_single": 0.5, "align_pyr": 0.25, "rel_sample": 0.3}
        | {"rel_layer": 0.09, "task": 0.1}
    )
    manual = registry.build("cmapkd", models, weights="manual", **SMALL)
    boxes, links = diagrams.overview(manual)
    assert "manual weights" in set(boxes["text"]) and {a for a, b in links if b == "weights"} == set()
    config = dataclasses.replace(learner.config, w_align=0.0, weights="uniform")
    assert diagrams.weights(config)["align_pyr"] == 0
    assert "ALSN" not in diagrams.schedule(config) and "ALSN" in diagrams.schedule(learner.config)
    assert pyramids.compatibility(learner).sum().item() == pytest.approx(1)
