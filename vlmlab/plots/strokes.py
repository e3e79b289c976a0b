"""What pictures with lines share: one line with markers and a band, hollow markers for published numbers."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..names_and_colours import GREY, OLIVE, YELLOW, label, looks
from .checks import check_array

MARKS = 16  # markers on a line; a longer one has some every few points


def line(ax: Axes, x, y, look: dict[str, str], name: str, edges: tuple | None = None) -> None:
    """One line with markers in the colour, marker and line style of its name, on a band (low, high)."""
    if edges is not None:
        ax.fill_between(x, *edges, color=look["color"], alpha=0.18, linewidth=0)
    edge = OLIVE if look["color"] == YELLOW else look["color"]
    every = -(-len(x) // MARKS)
    ax.plot(x, y, **look, markeredgecolor=edge, markeredgewidth=0.4, markevery=every, label=name)


def looks_of(data: xr.DataArray, published: xr.DataArray | None, by: str) -> dict[str, dict[str, str]]:
    """The looks of all names on the axis `by`, measured ones first."""
    both = [data] if published is None or by not in published.coords else [data, published]
    return looks(str(k) for array in both for k in array[by].values)


def hollow(
    ax: Axes,
    published: xr.DataArray,
    x: str,
    by: str,
    look: dict[str, dict[str, str]],
    measured: set[str],
) -> None:
    """Published numbers (x, by) as hollow markers in the colours of their names; missing ones are left out.

    The legend gets one entry "published", and one per name that was not measured.
    """
    check_array("published", published, (x, by))
    keys = [str(k) for k in published[by].values]
    for key, name in zip(published[by].values, keys, strict=True):
        y = published.sel({by: key}).dropna(x)
        there = None if name in measured else f"{label(name)}, published"
        ax.plot(y[x], y, **_empty(look[name]["color"], look[name]["marker"]), label=there)
    if measured & set(keys) and "published" not in ax.get_legend_handles_labels()[1]:
        ax.add_line(Line2D([], [], **_empty(GREY, "o"), label="published"))


def _empty(colour: str, marker: str) -> dict:
    return {
        "linestyle": "none",
        "marker": marker,
        "markersize": 5,
        "markerfacecolor": "white",
        "markeredgecolor": OLIVE if colour == YELLOW else colour,
        "markeredgewidth": 1.0,
        "zorder": 3,
    }
