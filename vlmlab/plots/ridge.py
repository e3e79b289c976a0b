"""Ridges: one density per group, stacked with overlap; for many groups in order, such as blocks."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from ..names_and_colours import AXES, label
from .checks import numbers, table
from .style import as_written, figure

OVERLAP = 1.5  # height of a ridge, in distances between two


@as_written
def ridge(
    frame: pd.DataFrame | xr.DataArray,
    value: str,
    group: str,
    ax: Axes | None = None,
    xlabel: str | None = None,
    cmap: str = "viridis",
) -> Axes:
    """Densities of the column `value`, one ridge per `group`, the first on top; a line marks the median.

    Every ridge is as high as the others: their widths compare, their heights do not.
    Raises ValueError when a column is missing or a group has only NaN.
    """
    frame = numbers("ridge", table("ridge", frame, value, group), value, group)
    groups = list(dict.fromkeys(frame[group]))
    ax = ax or figure(height=0.7 + 0.18 * len(groups))[1]
    places = np.arange(len(groups))[::-1]
    parts = ax.violinplot(
        [frame.loc[frame[group] == g, value].to_numpy(dtype=float) for g in groups],
        positions=places,
        orientation="horizontal",
        side="high",
        widths=2 * OVERLAP,
        showextrema=False,
    )
    for i, body in enumerate(parts["bodies"]):
        share = 0.85 * i / max(1, len(groups) - 1)  # the end of the map is too pale for white paper
        body.set(facecolor=mpl.colormaps[cmap](share), edgecolor="white", linewidth=0.7, alpha=1)
        body.set_zorder(2 + i)
        _median(ax, body, float(np.median(frame.loc[frame[group] == groups[i], value])))
    ax.set_yticks(places, [label(str(g)) for g in groups])
    ax.set(xlabel=xlabel or value, ylabel=AXES.get(group, group))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.margins(y=0.01)
    return ax


def _median(ax: Axes, body: PolyCollection, median: float) -> None:
    """A line from the foot of a ridge to its curve, in front of this ridge and behind the next."""
    corners = body.get_paths()[0].vertices
    foot = corners[:, 1].min()
    curve = corners[corners[:, 1] > foot]
    curve = curve[curve[:, 0].argsort()]
    top = np.interp(median, curve[:, 0], curve[:, 1])
    ax.plot([median, median], [foot, top], color="white", linewidth=1.2, zorder=body.get_zorder() + 0.5)
