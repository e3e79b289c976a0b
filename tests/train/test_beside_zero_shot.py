"""A method that ends below the model it stands on is told so, with what was measured."""

import types

import pytest
from small_learners import Growing, Numbers

import vlmlab
from vlmlab.train import beside_zero_shot
from vlmlab.train.beside_zero_shot import below, measured
from vlmlab.train.run_folder import RunFolder

FAST = dict(epochs=1, batch_size=4, max_steps=1, rep_dim=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    vlm = vlmlab.load("tiny", device="cpu")
    task = vlmlab.task("emoji/food", protocol="base_to_new", shots=1, seed=1, backgrounds=1)
    run = vlmlab.fit("mmrlpp", vlm, task, out=tmp_path_factory.mktemp("runs"), **FAST)
    return run, task, vlmlab.evaluate(run, task, "unified")


def scored(frame, by):
    """The same rows as if every share were so much higher."""
    return frame.assign(value=frame["value"] + by)


def test_it_is_measured_where_that_is_cheap_and_only_lower_ones_are_told(trained):
    run, task, frame = trained
    assert below(run, task, scored(frame, 100)) == []
    told = below(run, task, scored(frame, -100))
    frozen = vlmlab.evaluate(
        vlmlab.methods.build("zero_shot", run.model.vlm, task.classes.names, task.template), task
    )
    value = frozen.set_index(["split", "metric"])["value"]
    for line, split in zip(told, ("base", "new", "hm")):
        assert (
            f"below zero-shot on {split} (unified)" in line
            and f"zero-shot has {value[split, 'accuracy']:.2f} " in line
        )
    assert len(told) == 4 and "1 steps on" in told[-1] and str(len(task.train)) in told[-1]
    assert len(list(run.path.parents[3].glob("**/run.json"))) == 1  # nothing is left of it


def test_what_was_measured_is_read_and_what_is_dear_is_not_measured(trained, monkeypatch):
    run, task, frame = trained
    monkeypatch.setattr(beside_zero_shot, "CHEAP", 0)
    assert below(run, task, scored(frame, -100)) == []
    out = run.path.parents[3]
    other = vlmlab.load("tiny", device="cpu", precision="amp_bf16")
    vlmlab.evaluate(vlmlab.fit("zero_shot", other, task, out=out), task)
    assert below(run, task, scored(frame, -100)) == []  # of another model
    vlmlab.evaluate(vlmlab.fit("zero_shot", run.model.vlm, task, out=out), task)
    assert len(below(run, task, scored(frame, -100))) == 4


def test_zero_shot_is_not_below_itself(trained):
    run, task, _ = trained
    frozen = vlmlab.fit("zero_shot", run.model.vlm, task, out=run.path.parents[3])
    assert below(frozen, task, scored(vlmlab.evaluate(frozen, task), -50)) == []


@pytest.mark.parametrize(("images", "asked"), [((1000, 1000), True), ((1000, 1001), False)])
def test_up_to_two_thousand_images_are_cheap(trained, tmp_path, monkeypatch, images, asked):
    """And what is as good as zero-shot is not below it, nor is another number than accuracy told."""
    run, task, frame = trained
    alone = types.SimpleNamespace(model=run.model, info=run.info, path=tmp_path / "a/b/c/d")
    few = types.SimpleNamespace(
        tests=dict(enumerate(map(range, images))), classes=task.classes, train=[0] * 7
    )
    calls = []
    monkeypatch.setattr(
        beside_zero_shot, "evaluate", lambda *given: (calls.append(given), scored(frame, 0))[1]
    )
    assert below(alone, few, frame) == [] and len(calls) == asked
    told = below(alone, few, frame.assign(value=frame["value"] - (frame["split"] == "new")))
    assert len(told) == 2 * asked and all("below zero-shot on new" in line for line in told[:1])
    assert not asked or told[-1].startswith(
        f"why it may be: it was trained for {run.info['steps']} steps on 7 images"
    )


def test_what_is_no_method_is_beside_nothing(tmp_path):
    run = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path)
    assert below(run, Numbers(), None) == []


def test_only_a_finished_zero_shot_run_on_the_same_data_counts(tmp_path):
    vlm = vlmlab.load("tiny", device="cpu")
    few, more = (
        vlmlab.task("emoji/food", protocol="few_shot", shots=n, seed=1, backgrounds=1) for n in (1, 2)
    )
    run = vlmlab.fit("mmrlpp", vlm, few, out=tmp_path, **FAST)
    other = vlmlab.fit("zero_shot", vlm, more, out=tmp_path)
    row = {"task": "t", "protocol": "p", "split": "s", "rule": "r", "metric": "accuracy", "test": "x", "n": 1}
    other.save_results([row | {"value": 1.0}])
    assert measured(run) is None  # of other images
    same = vlmlab.fit("zero_shot", vlm, few, out=tmp_path, study="another")
    assert measured(run) is None  # nothing is measured yet
    same.save_results([row | {"value": 2.0}])
    assert measured(run)["value"].tolist() == [2.0]
    RunFolder(same.path).write_info(same.info | {"status": "running"})
    assert measured(run) is None
    (same.path / "run.json").write_text("{")
    assert measured(run) is None
