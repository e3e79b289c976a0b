"""Weights of stages, over training and over images."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import vlmlab
from vlmlab.widgets import stages


@pytest.fixture(scope="module")
def run(vlm, tmp_path_factory):
    task = vlmlab.task("emoji/animals", protocol="few_shot", shots=1, seed=1)
    settings = {"epochs": 2, "order": "joint", "nga_lr": 0.1, "batch_size": 6}
    return vlmlab.fit("lafter_nga", vlm, task, out=tmp_path_factory.mktemp("runs"), **settings)


def test_weights_move_and_are_shares(run):
    found = stages.weights_by_epoch(run.model)
    assert found.dims == ("epoch", "stage") and found.sizes == {"epoch": 2, "stage": 3}
    np.testing.assert_allclose(found.sum("stage"), 1, atol=1e-5)
    assert float(abs(found[1] - found[0]).max()) > 1e-4
    np.testing.assert_allclose(found[1], run.model.stage_weights().detach(), atol=1e-6)


def test_play_and_difficulty(run, fresh, pointed_at):
    ui = vlmlab.explore_weights(run, samples=10)
    before = [p.value for p in ui.parts]
    ui.at.value = 1
    assert all(p.value != b for p, b in zip(ui.parts, before)) and ui.message.value == ""
    assert vlmlab.explore_weights(run).play.value == 1  # where a page begins, whatever the slider says
    ui.by.value = stages.HARD
    assert ui.message.value == "" and (ui.at.max, ui.at.description) == (5, "difficulty")
    np.testing.assert_allclose(ui.shown.sum("stage"), 1, atol=1e-5)
    names = {}
    exec(ui.cell(), names)
    assert pointed_at(names["fig"]) == pointed_at(*(p.drawing for p in ui.parts)) != []
    plt.close("all")


def test_difficulty_can_be_stopped(run, fresh, pressed, monkeypatch):
    ui = vlmlab.explore_weights(run, samples=10)
    monkeypatch.setattr(stages, "Watch", pressed)
    ui.by.value = stages.HARD
    assert "stopped" in ui.message.value and ui.shown.dims[0] == "epoch" and ui.busy.children == ()


def test_runs_without_stages_and_lost_ones(vlm, task, run, tmp_path):
    plain = vlmlab.fit("zero_shot", vlm, task, out=tmp_path)
    with pytest.raises(ValueError, match="not read in stages"):
        vlmlab.explore_weights(plain)
    with pytest.raises(FileNotFoundError, match=r"gone holds no run\.json"):
        vlmlab.explore_weights(str(tmp_path / "gone"))
