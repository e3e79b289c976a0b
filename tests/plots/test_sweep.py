"""A sweep joins what was measured, marks settings, and keeps published numbers apart."""

import numpy as np
import pytest
import xarray as xr

from vlmlab import plots


@pytest.fixture
def accuracy():
    """(w_proj, method) with a value that only one method was measured at."""
    return xr.DataArray(
        [[60.0, 61.0], [np.nan, 63.0], [64.0, 62.0]],
        dims=("w_proj", "method"),
        coords={"w_proj": [1.0, 0.1, 0.0], "method": ["mmrlpp", "aligned_norm"]},
        name="accuracy",
    )


def test_sweep_joins_the_values_each_method_was_measured_at(accuracy):
    ax = plots.sweep(accuracy, "w_proj", spread=accuracy * 0 + 1)
    assert ax.lines[0].get_xdata().tolist() == [0, 1] and ax.lines[1].get_xdata().tolist() == [0, 0.1, 1]
    assert ax.lines[1].get_ydata().tolist() == [62, 63, 61]
    assert ax.get_ylabel() == "accuracy" and len(ax.collections) == 2


def test_sweep_marks_values_in_the_legend(accuracy):
    ax = plots.sweep(accuracy, "w_proj", marks={"default": 0.1, "published": 0.05})
    upright = [line for line in ax.lines if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in upright] == [0.1, 0.05]
    assert [line.get_label() for line in upright] == ["default: 0.1", "published: 0.05"]
    assert upright[0].get_linestyle() != upright[1].get_linestyle()


def test_sweep_shows_published_numbers_apart(accuracy):
    ax = plots.sweep(accuracy, "w_proj", published=accuracy[:, :1] + 5)
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert len(hollow) == 1 and sorted(hollow[0].get_ydata()) == [65, 69]


@pytest.mark.parametrize(
    ("log", "values", "scale"),
    [
        (False, [0.0, 0.1, 1.0], "linear"),
        (True, [0.01, 0.1, 1.0], "log"),
        (True, [0.0, 0.1, 1.0], "symlog"),
    ],
)
def test_the_axis_of_a_sweep(accuracy, log, values, scale):
    ax = plots.sweep(accuracy.assign_coords(w_proj=values), "w_proj", log=log)
    assert ax.get_xscale() == scale
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == [f"{v:g}" for v in values]


def test_sweep_refuses_negative_values_on_a_logarithmic_axis(accuracy):
    with pytest.raises(ValueError, match="'w_proj' goes down to -1"):
        plots.sweep(accuracy.assign_coords(w_proj=[-1.0, 0.1, 1.0]), "w_proj", log=True)
    with pytest.raises(ValueError, match="'method' is missing"):
        plots.sweep(accuracy.isel(method=0), "w_proj")
