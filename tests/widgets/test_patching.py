"""Swapping activations between two images."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import vlmlab
from vlmlab.train.evaluate import predict
from vlmlab.widgets import patching


@pytest.fixture(scope="module")
def pair(task):
    return task.base.select([0, 150])


def test_the_ends_of_the_sweep(tuned, pair, fresh):
    ui = vlmlab.explore_patching(tuned, pair)
    share = patching.restored_share(ui.logits, pair)
    depth = tuned.vlm.image.depth
    np.testing.assert_allclose(share.sel(layer=depth, role=patching.ALL), 1, atol=1e-4)
    assert share.sel(layer=2, role="prompt").isnull() and share.sel(layer=depth, role="prompt").notnull()
    plain = predict(tuned, pair)
    np.testing.assert_allclose(ui.logits.attrs["second"], plain[1], rtol=1e-5)


def test_the_class_token_carries_all_in_the_end(vlm, pair, fresh, pointed_at, monkeypatch):
    ui = vlmlab.explore_patching(vlm, pair)
    share = patching.restored_share(ui.logits, pair)
    assert float(share.sel(layer=12, role="cls")) == pytest.approx(1, abs=1e-4)
    assert float(share.sel(layer=12, role="patch")) == pytest.approx(0, abs=1e-4)
    before = [p.value for p in ui.parts]
    ui.layer.value, ui.role.value = 12, "cls"
    assert all(p.value != b for p, b in zip(ui.parts, before)) and ui.message.value == ""
    names = {"pair": pair}
    exec(ui.cell(), names)
    assert pointed_at(names["fig"]) == pointed_at(*(p.drawing for p in ui.parts)) != []
    plt.close("all")
    monkeypatch.setattr(patching, "patched", None)  # the sweep is in memory
    again = vlmlab.explore_patching(vlm, pair)
    assert (again.layer.value, again.role.value) == (12, "cls")


def test_a_sweep_can_be_stopped_and_goes_on(vlm, task, fresh, pressed, monkeypatch):
    other = task.new.select([0, 40])
    monkeypatch.setattr(patching, "Watch", pressed)
    assert vlmlab.explore_patching(vlm, other) is None
    monkeypatch.undo()
    assert vlmlab.explore_patching(vlm, other).message.value == ""


def test_what_is_no_pair(vlm, task):
    for pair, said in (
        (task.base.select([0]), "1 images"),
        (task.base.select([0, 1]), "of class"),
        (3, "a int"),
    ):
        with pytest.raises(ValueError, match=said):
            vlmlab.explore_patching(vlm, pair)
