"""What a figure says where one points at it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from vlmlab import plots
from vlmlab.widgets import drawing
from vlmlab.widgets.picture import Beside, Picture


def at(drawn, x: float, y: float) -> list[str]:
    """What is said at a place, x and y as shares from the left and the top."""
    inside = lambda v: v.left <= x <= v.left + v.width and v.top <= y <= v.top + v.height
    return [v.text for v in drawn.values if inside(v)]


def place(fig, ax, x: float, y: float) -> tuple[float, float]:
    width, height = fig.bbox.size
    left, up = ax.transData.transform((x, y))
    return left / width, 1 - up / height


@pytest.fixture
def axes():
    fig, ax = plots.figure(height=2.5)
    yield fig, ax
    plt.close(fig)


def test_all_curves_at_one_place(axes):
    fig, ax = axes
    data = xr.DataArray([[1.0, 2.5, 4.0], [3.0, np.nan, 9.0]], {"role": ["cls", "patch"], "layer": [1, 2, 3]})
    plots.lines(data, ax=ax)
    ax.plot([1, 2, 3], [7, 7.25, 7], label="_image")
    ax.axvline(2)
    drawn = drawing.drawn(fig)
    assert at(drawn, *place(fig, ax, 2, 5)) == ["block 2\nclass token 2.5\nimage 7.25"]
    assert at(drawn, *place(fig, ax, 2.9, 1)) == ["block 3\nclass token 4\npatches 9\nimage 7"]


def test_cells_are_named_as_the_axes_are(axes):
    fig, ax = axes
    numbers = np.arange(24.0).reshape(2, 12)
    numbers[0, 0] = np.nan
    plots.matrix(
        xr.DataArray(numbers, {"role": ["prompts", "words"], "layer": np.arange(1, 13)}), ax, ylabel=""
    )
    drawn = drawing.drawn(fig)
    assert at(drawn, *place(fig, ax, 5, 1)) == ["words, block 6: 17"]  # the ticks leave out block 6
    assert at(drawn, *place(fig, ax, 0, 0)) == []


def test_bars_and_a_histogram(axes):
    fig, ax = axes
    ax.barh([0, 1], [0.25, 0.001], 0.4, label="first")
    ax.set_yticks([0, 1], ["cat", "dog"])
    assert at(drawing.drawn(fig), *place(fig, ax, 0.2, 1)) == ["dog, first: 0.001"]
    ax.clear()
    ax.hist([0.1, 0.2, 0.9], bins=2, range=(0, 1))
    ax.set_xlabel("r(x)")
    assert at(drawing.drawn(fig), *place(fig, ax, 0.2, 1)) == ["r(x) 0 to 0.5: 2"]


def test_attention_and_a_radar():
    fig, ax = plots.figure(height=2.5)
    plots.overlay(np.zeros((8, 8, 3)), xr.DataArray(np.arange(4) / 4, dims="token"), ax=ax)
    assert at(drawing.drawn(fig), *place(fig, ax, 6, 2)) == ["row 1, column 2: 0.25"]
    plt.close(fig)
    fig = plt.figure()
    ax = fig.add_subplot(projection="polar")
    data = xr.DataArray([[0.1, 0.2, 0.7]], {"epoch": ["epoch 1"], "stage": ["low", "middle", "high"]})
    plots.radar(data, "stage", "epoch", ax=ax)
    drawn = drawing.drawn(fig)
    assert {v.text for v in drawn.values} == {"low, epoch 1 0.1", "middle, epoch 1 0.2", "high, epoch 1 0.7"}
    plt.close(fig)


def test_the_page_gets_texts_and_places(axes):
    fig, ax = axes
    ax.plot([0, 1], [0, 1], label="<b>")
    shown = Picture()
    shown.show(drawing.drawn(fig))
    assert shown.says.value.count("<i style") == 2 and "&lt;b&gt; 1" in shown.says.value
    says = Beside(2, 3)
    says.say({4: "here"})
    assert "left:33.33%;top:50.00%" in says.value and 'class="v5"' in says.value
    assert says.rules().value.count("nth-child") == 6
