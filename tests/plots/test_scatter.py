"""Points are coloured by one key and shaped by another; the legend covers none of them."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from vlmlab import plots
from vlmlab.names_and_colours import PALETTE


@pytest.fixture
def xy():
    return xr.DataArray(
        np.random.default_rng(0).normal(size=(6, 2)),
        dims=("sample", "axis"),
        coords={"label": ("sample", [0, 0, 1, 1, 2, 2]), "split": ("sample", ["base", "new"] * 3)},
    )


def test_scatter_colours_by_class(xy):
    ax = plots.scatter(xy, names=("bug", "plant", "bird"), title="map")
    assert len(ax.collections) == 3 and not len(ax.get_xticks())
    assert np.array_equal(ax.collections[1].get_offsets(), xy[2:4])
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["bug", "plant", "bird"]
    assert not plots.scatter(xy).figure.legends


def test_a_second_key_sets_the_marker(xy):
    ax = plots.scatter(xy, marker="split", names=("bug", "plant", "bird"))
    assert len(ax.collections) == 6 and sum(len(c.get_offsets()) for c in ax.collections) == 6
    shapes = {len(c.get_paths()[0].vertices) for c in ax.collections}
    assert len(shapes) == 2
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()][3:] == ["base", "new"]


def test_words_have_their_own_colours_and_axes_their_labels(xy):
    xy = xy.assign_coords(method=("sample", ["mmrlpp", "aligned_norm"] * 3))
    ax = plots.scatter(xy, by="method", axis_labels=("uniformity", "tolerance"))
    drawn = [to_hex(c.get_facecolor()[0]) for c in ax.collections]
    assert drawn == [plots.colour("mmrlpp"), plots.colour("aligned_norm")]
    assert ax.get_xlabel() == "uniformity" and len(ax.get_xticks())


@pytest.mark.parametrize("labels", [None, ("uniformity", "tolerance")])
@pytest.mark.parametrize("alone", [True, False])
def test_the_legend_lies_below_the_points(xy, alone, labels):
    given = None if alone else plots.figure(columns=2, cols=2)[1][0]
    ax = plots.scatter(xy, ax=given, names=("bug", "plant", "bird"), axis_labels=labels)
    ax.figure.canvas.draw()
    legend = ax.figure.legends[0] if alone else ax.get_legend()
    assert legend.get_window_extent().y1 <= ax.get_window_extent().y0 + 1
    if labels:
        assert legend.get_window_extent().y1 <= ax.xaxis.label.get_window_extent().y0 + 1


def test_many_long_class_names_stand_in_columns_within_the_width_of_their_axes():
    xy = xr.DataArray(np.zeros((13, 2)), dims=("sample", "axis"), coords={"label": ("sample", range(13))})
    ax = plots.figure(columns=2, height=3, cols=3)[1][1]
    plots.scatter(xy, ax=ax, names=[f"household item {c}" for c in "abcdefghijklm"])
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert box.width <= ax.figure.bbox.width / 3 and box.height < ax.figure.bbox.height / 2


def test_many_classes_still_differ():
    xy = xr.DataArray(np.zeros((15, 2)), dims=("sample", "axis"), coords={"label": ("sample", range(15))})
    assert len({tuple(c.get_facecolor()[0]) for c in plots.scatter(xy).collections}) == 15


def test_scatter_says_what_is_wrong(xy):
    with pytest.raises(ValueError, match="'label'"):
        plots.scatter(xy.drop_vars("label"))
    with pytest.raises(ValueError, match="'method'"):
        plots.scatter(xy, marker="method")
    with pytest.raises(ValueError, match="\\(sample, 2\\)"):
        plots.scatter(xy[:, 0])
    with pytest.raises(ValueError, match="'sample' is empty"):
        plots.scatter(xy[:0])
    with pytest.raises(ValueError, match="9 markers"):
        wide = xr.concat([xy, xy], "sample").assign_coords(id=("sample", range(12)))
        plots.scatter(wide, marker="id")


def test_two_columns_of_a_table_in_mixed_order():
    methods = ["mmrlpp"] * 20 + ["aligned_norm"] * 20
    frame = pd.DataFrame({"x": range(40), "y": range(40, 80), "method": methods})
    ax = plots.scatter(frame, columns=("x", "y"), by="method", axis_labels=("x", "y"))
    (dots,) = ax.collections
    drawn = dots.get_offsets()
    assert sorted(drawn[:, 0]) == list(range(40)) and np.array_equal(drawn[:, 1], drawn[:, 0] + 40)
    colours = [to_hex(c) for c in dots.get_facecolor()]
    assert colours == [plots.colour("mmrlpp" if x < 20 else "aligned_norm") for x in drawn[:, 0]]
    assert 2 < sum(a != b for a, b in itertools.pairwise(colours))  # neither group lies on the other
    again = plots.scatter(frame, columns=("x", "y"), by="method", axis_labels=("x", "y"))
    assert np.array_equal(again.collections[0].get_offsets(), drawn)
    with pytest.raises(ValueError, match="columns"):
        plots.scatter(frame, by="method")
    with pytest.raises(ValueError, match="'z'"):
        plots.scatter(frame, columns=("x", "z"), by="method")


def test_classes_keep_their_colours_and_markers_in_the_legend_and_look_like_no_method(xy):
    names = {"base": {0: "bug", 2: "bird"}, "new": {1: "plant"}}
    ax = plots.scatter(xy, marker="split", names=names)
    entries = ax.figure.legends[0]
    assert [t.get_text() for t in entries.get_texts()] == ["bug", "bird", "plant"]
    drawn = {to_hex(c.get_facecolor()[0]) for c in ax.collections}
    looks = [(h.get_color(), h.get_marker()) for h in entries.legend_handles]
    assert {colour for colour, _ in looks} == drawn and not drawn & set(PALETTE)
    assert looks[0][1] == looks[1][1] != looks[2][1]
