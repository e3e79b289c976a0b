"""Lines draw the numbers they are given, measured and published ones apart."""

import numpy as np
import pytest
import xarray as xr

from vlmlab import plots


@pytest.fixture
def norms():
    return xr.DataArray(
        np.arange(6.0).reshape(3, 2),
        dims=("layer", "role"),
        coords={"layer": [6, 7, 8], "role": ["cls", "prompt"]},
    )


def test_lines_draw_one_line_per_role_with_the_given_numbers(norms):
    ax = plots.lines(norms, spread=norms * 0.1)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0, 2, 4], [1, 3, 5]]
    assert ax.lines[0].get_color() == plots.colour("cls") != ax.lines[1].get_color()
    assert len(ax.collections) == 2 and ax.get_xlabel() == "block"


def test_lines_given_axes_use_them_and_leave_the_legend_to_the_caller(norms):
    fig, ax = plots.figure()
    assert plots.lines(norms, ax=ax) is ax
    assert ax.get_legend() is None and not fig.legends
    own = plots.lines(norms)
    assert [t.get_text() for t in own.figure.legends[0].get_texts()] == ["class token", "prompt tokens"]


def test_style_and_colours_replace_those_of_the_names(norms):
    ax = plots.lines(norms, style=":", colours="mmrlpp", prefix="MMRL++, ")
    assert {line.get_linestyle() for line in ax.lines} == {":"}
    assert {line.get_color() for line in ax.lines} == {plots.colour("mmrlpp")}
    assert ax.lines[0].get_label() == "MMRL++, class token"


def test_a_spread_with_bounds_is_the_band_itself(norms):
    bounds = xr.concat([norms - 1, norms + 3], "bound")
    band = plots.lines(norms, spread=bounds).collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == -1 and band[:, 1].max() == 7
    with pytest.raises(ValueError, match="bound"):
        plots.lines(norms, spread=xr.concat([norms] * 3, "bound"))


def test_a_line_breaks_where_a_number_is_missing(norms):
    norms[1, 0] = np.nan
    assert np.isnan(plots.lines(norms).lines[0].get_ydata()[1])


def test_published_numbers_are_hollow_and_not_joined(norms):
    published = norms.sel(layer=[6, 8]).assign_coords(role=["prompt", "register"]) + 1
    ax = plots.lines(norms, published=published)
    measured, hollow = ax.lines[:2], [m for m in ax.lines[2:] if len(m.get_xdata())]
    assert all(m.get_linestyle() == "None" and m.get_markerfacecolor() == "white" for m in hollow)
    assert hollow[0].get_ydata().tolist() == [1, 5]
    assert hollow[0].get_markeredgecolor() == measured[1].get_color()
    names = [t.get_text() for t in ax.figure.legends[0].get_texts()]
    assert names[2:] == ["registers, published", "published"]
    assert [line.get_ydata().tolist() for line in measured] == [[0, 2, 4], [1, 3, 5]]


def test_lines_keep_the_scale_of_given_axes(norms):
    ax = plots.figure()[1]
    ax.set_xscale("log")
    assert plots.lines(norms, ax=ax).get_xscale() == "log"


def test_lines_name_the_axis_that_is_wrong(norms):
    with pytest.raises(ValueError, match="'role' is missing"):
        plots.lines(norms.isel(role=0))
    with pytest.raises(ValueError, match="reduce 'seed' first"):
        plots.lines(norms.expand_dims(seed=2))
    with pytest.raises(ValueError, match="'layer' is empty"):
        plots.lines(norms.isel(layer=[]))
    with pytest.raises(ValueError, match="only NaN along the axes"):
        plots.lines(norms * np.nan)
    with pytest.raises(ValueError, match="'role' is \\['prompt'\\]"):
        plots.lines(norms.where(norms["role"] == "cls"))
