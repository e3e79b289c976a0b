"""A dot is the mean of its rows, its bar their spread, its place that of its group."""

import itertools

import numpy as np
import pandas as pd
import pytest

from vlmlab import plots


@pytest.fixture
def frame():
    tasks, methods = ("emoji/food", "emoji/animals"), ("mmrlpp", "aligned_norm")
    frame = pd.DataFrame(itertools.product(tasks, methods, (1, 3)), columns=["task", "method", "seed"])
    return frame.assign(value=np.arange(8.0) * frame["seed"])


def test_means_with_the_spread_of_their_rows(frame):
    ax = plots.dots(frame, "value", ylabel="uniformity")
    means = [c.lines[0].get_ydata().tolist() for c in ax.containers]
    assert means == [[1.5, 9.5], [5.5, 13.5]]
    bars = [segment[:, 1].tolist() for segment in ax.containers[0].lines[2][0].get_segments()]
    assert bars[0] == pytest.approx([1.5 - 4.5**0.5, 1.5 + 4.5**0.5])
    assert ax.get_ylabel() == "uniformity"
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["MMRL++", "AlignedNorm"]


def test_groups_stand_in_order_and_their_dots_do_not_cross(frame):
    ax = plots.dots(frame, "value")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["food", "animals"]
    first, second = (c.lines[0].get_xdata() for c in ax.containers)
    assert (first < second).all() and (np.abs(np.array([first, second]) - [0, 1]) < 0.5).all()


def test_a_group_that_a_method_lacks_has_no_dot(frame):
    ax = plots.dots(frame.iloc[:-2], "value")
    assert np.isnan(np.asarray(ax.containers[1].lines[0].get_ydata(), dtype=float)).tolist() == [False, True]


def test_dots_say_what_is_wrong(frame):
    with pytest.raises(ValueError, match="'split'"):
        plots.dots(frame, "value", by="split")
    with pytest.raises(ValueError, match="aligned_norm"):
        plots.dots(frame.assign(value=frame["value"].where(frame["method"] == "mmrlpp")), "value")
