"""A method that ends below the model it stands on is told so, with what was measured."""

import pytest

import vlmlab
from vlmlab.train import beside_zero_shot
from vlmlab.train.beside_zero_shot import below

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
