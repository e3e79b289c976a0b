"""Lines over blocks, epochs or shots, with a band for the spread and hollow markers for published numbers."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..names_and_colours import AXES, label, looks
from .checks import band, check_array, check_keys
from .marks import hollow, line, looks_of
from .style import as_written, figure, legend


@as_written
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
