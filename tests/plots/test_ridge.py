"""Ridges stack many groups in order, each with its median."""

import numpy as np
import pandas as pd
import pytest

from vlmlab import plots


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


def test_ridge_stacks_groups_from_the_top(frame):
    ax = plots.ridge(frame, "r", group="layer")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["1", "2", "3", "4"]
    feet = [body.get_paths()[0].vertices[:, 1].min() for body in ax.collections]
    assert feet == sorted(feet, reverse=True) and ax.get_ylabel() == "block"
    medians = [line.get_xdata()[0] for line in ax.lines]
    assert medians == pytest.approx(frame.groupby("layer")["r"].median().tolist())


def test_ridge_draws_a_group_of_one_number(frame):
    one = pd.concat([frame, pd.DataFrame({"layer": [5], "r": [0.5]})])
    assert len(plots.ridge(one, "r", group="layer", ax=plots.figure()[1]).collections) == 5


def test_errors_name_the_column(frame):
    with pytest.raises(ValueError, match="columns \\['block'\\]"):
        plots.ridge(frame, "r", group="block")
    with pytest.raises(ValueError, match="'r' is empty"):
        plots.ridge(frame[:0], "r", group="task")
    with pytest.raises(ValueError, match="only NaN where 'task' is \\['b'\\]"):
        plots.ridge(frame.assign(r=frame["r"].where(frame["task"] == "a")), "r", group="task")
