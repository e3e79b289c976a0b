"""Arrows begin and end where the data say, in the colours of their names."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from vlmlab import plots


@pytest.fixture
def field():
    xy = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    start = xr.DataArray(xy, {"split": ("sample", ["base", "new", "base"])}, ("sample", "axis"))
    return start, start.copy(data=np.array([[3.0, 0.0], [0.0, 1.0], [0.0, -5.0]]))


def test_arrows_are_drawn_in_true_length(field):
    ax = plots.arrows(*field, axis_labels=("component 1", "component 2"), title="field")
    base, new = ax.collections
    assert base.U.tolist() == [3, 0] and base.V.tolist() == [0, -5] and new.V.tolist() == [1]
    assert base.scale == 1 and base.angles == base.scale_units == "xy" and ax.get_aspect() == 1
    assert [to_hex(c.get_facecolor()[0]) for c in (base, new)] == [plots.colour("base"), plots.colour("new")]
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    assert left < 0 and right > 3 and low < -3 and high > 2  # the ends are inside too
    assert ax.get_xlabel() == "component 1" and ax.get_title() == "field"
    assert [t.get_text() for t in ax.figure.legends[0].get_texts()] == ["base", "new"]


def test_arrows_say_what_is_wrong(field):
    start, step = field
    with pytest.raises(ValueError, match="'method'"):
        plots.arrows(start, step, by="method")
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2, 2\)"):
        plots.arrows(start, step[:2])
    with pytest.raises(ValueError, match="'sample' is empty"):
        plots.arrows(start[:0], step[:0])
