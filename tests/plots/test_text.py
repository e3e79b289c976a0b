"""Names of classes are text: no mathematics, in any picture, on any Axes, in any script."""

import io
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.cbook import is_math_text
from matplotlib.text import Text

from vlmlab import plots
from vlmlab.plots.style import plain_text

NAMES = ["$5 bill or $10 bill", "ca$h_$", "a_b^2 {", "100 % $\\frac$"]
DRAW = np.random.default_rng(0)


def by(name, shape=(4, 3), dims=("method", "layer")):
    coords = {dims[0]: NAMES, dims[1]: np.arange(1, shape[1] + 1)}
    return xr.DataArray(DRAW.random(shape), coords, dims, name)


def points():
    return xr.DataArray(DRAW.random((20, 2)), {"label": ("sample", np.arange(20) % 4)}, ("sample", "axis"))


def frame():
    return pd.DataFrame({"v": DRAW.random(40), "task": NAMES * 10, "method": np.repeat(NAMES, 10)})


PICTURES = {
    "scatter": lambda ax: plots.scatter(points(), ax=ax, names=tuple(NAMES), title=NAMES[0]),
    "lines": lambda ax: plots.lines(by("x"), by="method", ax=ax, ylabel=NAMES[1]),
    "sweep": lambda ax: plots.sweep(by("x").rename(layer="a"), "a", ax=ax, marks={NAMES[0]: 2.0}),
    "matrix": lambda ax: plots.matrix(
        xr.DataArray(DRAW.random((4, 4)), {"a": NAMES, "b": NAMES}, ("a", "b")),
        ax=ax,
        title=NAMES[1],
        unit=NAMES[0],
    ),
    "dots": lambda ax: plots.dots(frame(), "v", ax=ax),
    "distribution": lambda ax: plots.distribution(frame(), "v", "task", ax=ax),
    "ridge": lambda ax: plots.ridge(frame(), "v", "task", ax=ax),
    "overlay": lambda ax: plots.overlay(
        np.zeros((8, 8, 3)), xr.DataArray(DRAW.random(16), dims="token"), ax=ax, title=NAMES[1]
    ),
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_names_are_printed_as_they_are(name, own):
    mpl.rcdefaults()
    ax = PICTURES[name](plt.subplots()[1] if own else None)
    plots.legend(ax)
    for kind in ("png", "svg"):
        ax.figure.savefig(io.BytesIO(), format=kind)
    texts = [t for t in ax.figure.findobj(Text) if "$" in t.get_text()]
    assert texts
    assert not [t.get_text() for t in texts if t.get_parse_math() and is_math_text(t.get_text())]
    plt.close("all")


def test_radar_and_overlays_in_a_grid():
    data = xr.DataArray(
        DRAW.random((4, 3)), {"dataset": NAMES, "method": ["a", "b", "$c$"]}, ("dataset", "method")
    )
    plots.radar(data).figure.savefig(io.BytesIO())
    heads = xr.DataArray(DRAW.random((3, 16)), {"head": ["$h$", "b_$", "c"]}, ("head", "token"))
    plots.overlay_grid(np.zeros((8, 8, 3)), heads).figure.savefig(io.BytesIO())
    plt.close("all")


def test_numbers_on_a_logarithmic_axis_stay_mathematics():
    data = xr.DataArray(
        DRAW.random((1, 12)), {"method": ["$m$"], "a": np.geomspace(1e-6, 1e5, 12)}, ("method", "a")
    )
    ax = plots.sweep(data, "a", log=True)
    ax.figure.savefig(io.BytesIO())
    ticks = [t for t in ax.get_xticklabels() if t.get_text()]
    assert ticks and all(t.get_parse_math() for t in ticks if "mathdefault" in t.get_text())


def test_an_axis_made_logarithmic_afterwards_has_its_numbers():
    x = xr.DataArray(
        [[0.001, 10.0], [0.1, 1000.0]], {"split": ("sample", ["base", "new"])}, ("sample", "axis")
    )
    ax = plots.scatter(x, by="split")
    ax.figure.canvas.draw()
    ax.set(xscale="log", yscale="log")
    ax.figure.canvas.draw()
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    written = [t for t in ticks if "mathdefault" in t.get_text()]
    assert written and all(t.get_parse_math() for t in written)
    plt.close("all")


def test_a_figure_of_ones_own_is_made_plain():
    fig, ax = plots.figure()
    ax.set_title("$5 or $10_")
    plain_text(fig)
    fig.savefig(io.BytesIO())
    plt.close("all")


def test_a_script_that_no_font_has_is_one_warning():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        ax = plots.scatter(points(), names=("\u732b\u54aa", "\u72d7", "\U0001f9ff", "\u1234"))
        ax.figure.savefig(io.BytesIO())
    told = [str(w.message) for w in seen if "letters" in str(w.message) or "Glyph" in str(w.message)]
    assert told and all("no font at hand has the letters" in text for text in told) and len(told) <= 2
    plt.close("all")
