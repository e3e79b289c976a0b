"""A radar closes one polygon per method over the named spokes."""

import numpy as np
import pytest
import xarray as xr

from vlmlab import plots


@pytest.fixture
def table():
    return xr.DataArray(
        [[70.0, 75.0], [40.0, 45.0], [60.0, 61.0], [80.0, 82.0]],
        dims=("dataset", "method"),
        coords={"dataset": ["animals", "food", "people", "travel"], "method": ["mmrlpp", "aligned_norm"]},
    )


def test_a_polygon_per_method_closes_and_is_filled(table):
    ax = plots.radar(table)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[70, 40, 60, 80, 70], [75, 45, 61, 82, 75]]
    assert [line.get_color() for line in ax.lines] == [plots.colour("mmrlpp"), plots.colour("aligned_norm")]
    assert len(ax.patches) == 2 and ax.get_ylim()[0] == 0 and ax.get_ylim()[1] >= 82
    assert [t.get_text() for t in ax.get_xticklabels()] == table["dataset"].values.tolist()
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["MMRL++", "AlignedNorm"]


def test_a_band_takes_the_place_of_the_filling(table):
    ax = plots.radar(table, spread=table * 0 + 2)
    assert len(ax.collections) == 2 and not ax.patches
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == 38 and band.max() == 82


def test_a_missing_number_leaves_the_polygon_open(table):
    table[1, 0] = np.nan
    ax = plots.radar(table)
    assert len(ax.patches) == 1 and np.isnan(ax.lines[0].get_ydata()[1])


def test_limits_and_ring_are_drawn(table):
    ax = plots.radar(table, limits=(30, 100), ring=50)
    assert ax.get_ylim() == (30, 100) and set(ax.lines[-1].get_ydata()) == {50}
    with pytest.raises(ValueError, match="run from 40 to 82"):
        plots.radar(table, limits=(50, 100))


def test_radar_needs_polar_axes(table):
    ax = plots.figure(subplot_kw={"projection": "polar"})[1]
    assert plots.radar(table, ax=ax, title="HM") is ax and not ax.figure.legends
    with pytest.raises(ValueError, match="polar"):
        plots.radar(table, ax=plots.figure()[1])


def test_radar_names_the_axis_that_is_wrong(table):
    with pytest.raises(ValueError, match="three spokes or more along 'dataset'"):
        plots.radar(table[:2])
    with pytest.raises(ValueError, match="'method' is missing"):
        plots.radar(table[:, 0])
    with pytest.raises(ValueError, match="'method' is \\['mmrlpp'\\]"):
        plots.radar(table.where(table["method"] != "mmrlpp"))
