"""Lines over blocks, epochs or shots, with a band for the spread and hollow markers for published numbers."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..names_and_colours import AXES, GREY, OLIVE, YELLOW, label, looks
from .checks import band, check_array, check_keys
from .style import figure, legend

MARKS = 16  # markers on a line; a longer one has some every few points


def lines(
    data: xr.DataArray,
    x: str = "layer",
    by: str = "role",
    spread: xr.DataArray | None = None,
    ax: Axes | None = None,
    style: str | None = None,
    prefix: str = "",
    ylabel: str | None = None,
    colours: str | None = None,
    published: xr.DataArray | None = None,
) -> Axes:
    """One line per value of `by` along `x`, which breaks where a number is missing.

    spread: same dims, a band of +- that size; with a further dim `bound` (low, high), the band itself.
    published: same dims; hollow markers, neither joined by a line nor part of a band.
    `style` is one line style and `colours` one colour for all lines, instead of those of each name.
    The legend stands above Axes made here; for given Axes call `legend(ax)` or matplotlib's own.
    Raises ValueError when data has other dims than x and by, or a line without a single number.
    """
    check_array("lines", data, (x, by))
    check_keys("lines", data, by)
    own, ax = ax is None, ax or figure(height=2.1 + 0.06 * data.sizes[by])[1]
    keys = data[by].values
    look = looks_of(data, published, by) | (looks([colours]) if colours else {})
    for key, name in zip(keys, map(str, keys), strict=True):
        kind = look[name] | ({"color": look[colours]["color"]} if colours else {})
        kind |= {"linestyle": style} if style else {}
        y = data.sel({by: key})
        edges = None if spread is None else band(y, spread.sel({by: key}))
        line(ax, data[x], y, kind, f"{prefix}{label(name)}", edges)
    ax.set(xlabel=AXES.get(x, x), ylabel=ylabel or data.name or "")
    locator = ax.xaxis.get_major_locator()
    if isinstance(locator, MaxNLocator) and np.issubdtype(data[x].dtype, np.integer):
        locator.set_params(integer=True)
    if published is not None:
        hollow(ax, published, x, by, look, set(map(str, keys)))
    if own:
        legend(ax, alone=True)
    return ax


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
