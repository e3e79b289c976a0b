"""Violins compare two halves or stand alone."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from vlmlab import plots
from vlmlab.names_and_colours import GREY, light


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "task": ["a", "b"] * 20,
            "split": ["base"] * 20 + ["new"] * 20,
            "layer": [1, 2, 3, 4] * 10,
            "r": rng.random(40),
        }
    )


def test_distribution_compares_two(frame):
    ax = plots.distribution(frame, "r", group="task", by="split")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["base", "new"]
    with pytest.raises(ValueError, match="two"):
        plots.distribution(frame[frame["split"] == "new"], "r", group="task", by="split")


def test_on_given_axes_the_legend_is_theirs(frame):
    ax = plots.figure(columns=2)[1]
    assert plots.distribution(frame, "r", group="task", by="split", ax=ax) is ax
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["base", "new"]


def test_without_a_pair_violins_are_whole_and_methods_have_their_colours(frame):
    frame["method"] = frame["task"].map({"a": "mmrlpp", "b": "aligned_norm"})
    ax = plots.distribution(frame, "r", group="method")
    drawn = [to_hex(body.get_facecolor()[0]) for body in ax.collections]
    assert drawn == [plots.colour("mmrlpp"), plots.colour("aligned_norm")]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["MMRL++", "AlignedNorm"]
    assert ax.get_legend() is None
    assert len(plots.distribution(frame, "r", group="layer").collections) == 4


def test_groups_stand_in_the_order_of_the_table(frame):
    ax = plots.distribution(frame[::-1].assign(r=frame["layer"] + frame["r"] / 9), "r", group="layer")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["4", "3", "2", "1"]
    tops = [body.get_paths()[0].vertices[:, 1].max() for body in ax.collections]
    assert tops == sorted(tops, reverse=True)


def test_an_array_brings_its_coordinates_as_columns():
    r = xr.DataArray(
        np.arange(8.0), dims="sample", coords={"split": ("sample", ["new"] * 4 + ["base"] * 4)}, name="r"
    )
    ax = plots.distribution(r, "r", group="split")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["new", "base"]


def test_errors_name_the_column(frame):
    with pytest.raises(ValueError, match="columns \\['block'\\]"):
        plots.distribution(frame, "r", group="block")
    with pytest.raises(ValueError, match="'r' is empty"):
        plots.distribution(frame[:0], "r", group="task")
    with pytest.raises(ValueError, match="only NaN where 'task' is \\['b'\\]"):
        plots.distribution(frame.assign(r=frame["r"].where(frame["task"] == "a")), "r", group="task")


def test_names_that_would_meet_are_slanted(frame):
    def turned(count):
        many = pd.concat([frame.assign(task=f"a long name {i}") for i in range(count)])
        ax = plots.distribution(many, "r", group="task", by="split", ax=plots.figure(columns=2)[1])
        return {text.get_rotation() for text in ax.get_xticklabels()}

    assert turned(5) == {0} and turned(12) == {30}


@pytest.mark.parametrize(("group", "colours"), [("method", "group"), ("task", "aligned_norm")])
def test_halves_may_have_the_colour_of_a_method_full_and_light(group, colours):
    columns = itertools.product(["mmrlpp", "aligned_norm"], ["new", "base"], ["food", "travel"], range(4))
    frame = pd.DataFrame(columns, columns=["method", "split", "task", "r"])
    ax = plots.distribution(frame, "r", group=group, by="split", colours=colours)
    names = ["mmrlpp", "aligned_norm"] if colours == "group" else [colours] * 2
    drawn = sorted(ax.collections, key=lambda half: half.get_paths()[0].vertices[:, 0].mean())
    full = [plots.colour(name) for name in names]
    assert [to_hex(half.get_facecolor()[0]) for half in drawn] == [
        full[0],
        light(full[0]),
        full[1],
        light(full[1]),
    ]
    entries = ax.figure.legends[0]
    assert [t.get_text() for t in entries.get_texts()] == ["new", "base"]
    assert [to_hex(h.get_facecolor()) for h in entries.get_patches()] == [GREY, light(GREY)]
