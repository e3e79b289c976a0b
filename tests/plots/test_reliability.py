"""A reliability diagram draws bins that it is given and prints an error that it is given."""

import pandas as pd
import pytest
import xarray as xr

from vlmlab import plots


@pytest.fixture
def bins():
    return pd.DataFrame(
        {
            "method": ["mmrlpp"] * 3 + ["aligned_norm"] * 2,
            "confidence": [0.9, 0.3, None, 0.4, 0.8],
            "accuracy": [0.7, 0.2, None, 0.5, 0.75],
            "count": [30, 10, 0, 15, 25],
        }
    )


def test_bins_become_curves_and_counts(bins):
    ax = plots.reliability(bins, ece={"mmrlpp": 0.15, "aligned_norm": 0.07}, title="animals")
    _, first, second = ax.lines
    assert first.get_xdata().tolist() == [0.3, 0.9] and first.get_ydata().tolist() == [0.2, 0.7]
    assert second.get_color() == plots.colour("aligned_norm")
    counts = [[path.vertices[1, 1] for path in part.get_paths()] for part in ax.child_axes[0].collections]
    assert counts == [[10, 30], [15, 25]]
    names = [t.get_text() for t in ax.figure.legends[0].get_texts()]
    assert names == ["MMRL++, ECE 0.150", "AlignedNorm, ECE 0.070"]


def test_without_an_error_none_is_printed(bins):
    one = bins[bins["method"] == "mmrlpp"]
    assert plots.reliability(bins).lines[1].get_label() == "MMRL++"
    assert plots.reliability(one, by=None, ece=0.15).lines[1].get_label() == "ECE 0.150"
    ax = plots.figure()[1]
    assert plots.reliability(one, by=None, ax=ax) is ax and not ax.figure.legends


def test_labelled_bins_are_drawn_as_a_table_is(bins):
    labelled = xr.Dataset.from_dataframe(bins.assign(bin=[0, 1, 2, 0, 1]).set_index(["bin", "method"]))
    drawn = {line.get_color(): sorted(line.get_ydata()) for line in plots.reliability(labelled).lines[1:]}
    assert drawn == {plots.colour("mmrlpp"): [0.2, 0.7], plots.colour("aligned_norm"): [0.5, 0.75]}


def test_reliability_names_the_column_that_is_wrong(bins):
    with pytest.raises(ValueError, match="'count'"):
        plots.reliability(bins.drop(columns="count"))
    with pytest.raises(ValueError, match="'accuracy' must lie in 0 to 1"):
        plots.reliability(bins.assign(accuracy=100 * bins["accuracy"]))
    with pytest.raises(ValueError, match="'count' is 0"):
        plots.reliability(bins.assign(count=0))
