"""A metric against one parameter: what a setting does, and where its chosen and published values lie."""

from collections.abc import Mapping
from itertools import cycle

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..names_and_colours import AXES, DASHDOT, DASHED, DOTTED, GREY, label
from .checks import band, check_array, check_keys
from .marks import hollow, line, looks_of
from .style import as_written, figure, legend

TICKS = 8  # values of the parameter that still get a tick each


@as_written
def sweep(
    data: xr.DataArray,
    x: str,
    by: str = "method",
    spread: xr.DataArray | None = None,
    ax: Axes | None = None,
    log: bool = False,
    marks: Mapping[str, float] | None = None,
    published: xr.DataArray | None = None,
    ylabel: str | None = None,
) -> Axes:
    """One line per value of `by` through the values of the parameter `x` that it was measured at.

    spread, published: as for `lines`. marks: vertical lines, {"default": 0.1, "published": 0.05}.
    log: a logarithmic axis; a sweep that includes 0 is linear up to its smallest positive value.
    Raises ValueError when data has other dims than x and by, a line without a number, or a value below
    0 on a logarithmic axis.
    """
    check_array("sweep", data, (x, by))
    check_keys("sweep", data, by)
    own, ax = ax is None, ax or figure(height=2.4)[1]
    data = data.sortby(x)
    _axis(ax, data[x], log)
    keys, looks = [str(k) for k in data[by].values], looks_of(data, published, by)
    for key, name in zip(data[by].values, keys, strict=True):
        y = data.sel({by: key}).dropna(x)
        edges = None if spread is None else band(y, spread.sel({by: key, x: y[x]}))
        line(ax, y[x], y, looks[name], label(name), edges)
    for (name, value), dash in zip((marks or {}).items(), cycle((DOTTED, DASHED, DASHDOT)), strict=False):
        ax.axvline(value, color=GREY, linewidth=1.0, linestyle=dash, zorder=0, label=f"{name}: {value:g}")
    if published is not None:
        hollow(ax, published, x, by, looks, set(keys))
    ax.set(xlabel=AXES.get(x, x), ylabel=ylabel or data.name or "")
    if own:
        legend(ax, alone=True)
    return ax


def _axis(ax: Axes, values: xr.DataArray, log: bool) -> None:
    """The scale, with a tick at every value while they are few."""
    low, positive = float(values.min()), values.values[values.values > 0]
    if log and (low < 0 or not len(positive)):
        raise ValueError(f"sweep: {values.name!r} goes down to {low:g}; a logarithmic axis starts at 0")
    if log and low == 0:
        ax.set_xscale("symlog", linthresh=float(positive.min()))
    elif log:
        ax.set_xscale("log")
    if len(values) <= TICKS:
        ax.xaxis.set_major_locator(FixedLocator(values.values.astype(float)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
