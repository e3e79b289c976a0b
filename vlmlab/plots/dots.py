"""Means with their spread side by side: one dot per method in every group."""

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from ..names_and_colours import AXES, label, looks
from .checks import numbers, table
from .style import as_written, figure, legend

SPREAD = 0.6  # of the room of a group that its dots take
LONG = 30  # letters along the axis from which on names are slanted


@as_written
def dots(
    frame: pd.DataFrame | xr.DataArray,
    value: str,
    group: str = "task",
    by: str = "method",
    ax: Axes | None = None,
    ylabel: str | None = None,
) -> Axes:
    """Mean of the column `value` in every `group`, one dot per value of `by`, +- standard deviation.

    Both are over the rows of that group and `by`, usually seeds; a single row has no bar. Groups and dots
    stand in the order of the table.
    The legend stands above Axes made here; for given Axes call `legend(ax)` or matplotlib's own.
    Raises ValueError when a column is missing, or a group or a value of `by` has only NaN.
    """
    frame = numbers("dots", table("dots", frame, value, group, by), value, group, by)
    groups, kinds = (list(dict.fromkeys(frame[c])) for c in (group, by))
    own, ax = ax is None, ax or figure(columns=2 if len(groups) > 4 else 1)[1]
    found = frame.groupby([by, group])[value].agg(["mean", "std"])
    looked = looks(map(str, kinds))
    for i, kind in enumerate(kinds):
        here = found.loc[kind].reindex(groups)
        x = [at + SPREAD * ((i + 0.5) / len(kinds) - 0.5) for at in range(len(groups))]
        look = looked[str(kind)] | {"linestyle": "none", "markersize": 4, "capsize": 2, "elinewidth": 0.8}
        line, *_ = ax.errorbar(x, here["mean"], here["std"], **look)
        line.set_label(label(str(kind)))  # the dot alone stands in legends
    for edge in range(1, len(groups)):
        ax.axvline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
    names = [label(str(g)) for g in groups]
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, names)) > LONG else {}
    ax.set_xticks(range(len(groups)), names, **slant)
    ax.tick_params(axis="x", length=0)
    ax.set(xlim=(-0.5, len(groups) - 0.5), xlabel=AXES.get(group, ""), ylabel=ylabel or value)
    if own:
        legend(ax, alone=True)
    return ax
