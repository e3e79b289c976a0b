"""Vectors in the plane: where points are, and where something moves them."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ..names_and_colours import MARKERS, colour, label, looks
from .checks import check_filled
from .style import as_written, figure, legend


@as_written
def arrows(
    start: xr.DataArray,
    step: xr.DataArray,
    ax: Axes | None = None,
    by: str = "split",
    title: str = "",
    axis_labels: tuple[str, str] = ("", ""),
    marks: xr.DataArray | None = None,
) -> Axes:
    """An arrow in true length from each point `start` (sample, 2) along `step` (sample, 2).

    Coloured by the coordinate `by` of `start`: splits, methods and roles have their colours. marks: points
    among them, such as classes, (sample, 2) with the coordinates `by` and `name`; up to nine, each with a
    marker of its own that the legend explains, as names beside them would lie on the arrows.
    The legend stands above Axes made here; for given Axes call `legend(ax)` or matplotlib's own.
    Raises ValueError without a coordinate, when start and step are not of one shape (sample, 2), or for
    more marks.
    """
    if start.ndim != 2 or start.shape[1] != 2 or start.shape != step.shape:
        raise ValueError(f"arrows needs start and step (sample, 2), got {start.shape} and {step.shape}")
    for points, keys in ((start, [by]), (marks, [by, "name"])):
        if points is not None and (lacks := [key for key in keys if key not in points.coords]):
            there = list(points.coords)
            raise ValueError(f"arrows needs a coordinate {lacks[0]!r} on the samples, got {there}")
    check_filled("arrows", start)
    own, ax = ax is None, ax or figure(height=3.0)[1]
    kinds = list(dict.fromkeys(map(str, start[by].values)))
    ends = np.concatenate([start.values, start.values + step.values])
    for kind, look in looks(kinds).items():
        at = start[by].values == kind
        one = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004}
        ax.quiver(*start.values[at].T, *step.values[at].T, color=look["color"], label=label(kind), **one)
    if marks is not None:
        _marks(ax, marks, by)
    ax.update_datalim(ends)  # a quiver counts only where its arrows begin
    ax.autoscale_view()
    ax.set(aspect="equal", title=title, xlabel=axis_labels[0], ylabel=axis_labels[1])
    if own:
        legend(ax, alone=True)
    return ax


def _marks(ax: Axes, marks: xr.DataArray, by: str) -> None:
    """Points in front of the arrows, one marker each."""
    if len(marks) > len(MARKERS):
        raise ValueError(f"arrows has {len(MARKERS)} markers, got {len(marks)} marks; choose some")
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 6, "linestyle": "none"}
    for (x, y), name, kind, shape in zip(marks.values, marks["name"].values, marks[by].values, MARKERS):
        ax.plot(x, y, marker=shape, color=colour(str(kind)), label=label(str(name)), zorder=3, **edge)
