"""Vectors in the plane: where points are, and where something moves them."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ..names_and_colours import label, looks
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
) -> Axes:
    """An arrow in true length from each point `start` (sample, 2) along `step` (sample, 2).

    Coloured by the coordinate `by` of `start`: splits, methods and roles have their colours.
    The legend stands above Axes made here; for given Axes call `legend(ax)` or matplotlib's own.
    Raises ValueError without the coordinate, or when start and step are not of one shape (sample, 2).
    """
    if start.ndim != 2 or start.shape[1] != 2 or start.shape != step.shape:
        raise ValueError(f"arrows needs start and step (sample, 2), got {start.shape} and {step.shape}")
    if by not in start.coords:
        raise ValueError(f"arrows needs a coordinate {by!r} on the samples, got {list(start.coords)}")
    check_filled("arrows", start)
    own, ax = ax is None, ax or figure(height=3.0)[1]
    kinds = list(dict.fromkeys(map(str, start[by].values)))
    ends = np.concatenate([start.values, start.values + step.values])
    for kind, look in looks(kinds).items():
        at = start[by].values == kind
        one = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.004}
        ax.quiver(*start.values[at].T, *step.values[at].T, color=look["color"], label=label(kind), **one)
    ax.update_datalim(ends)  # a quiver counts only where its arrows begin
    ax.autoscale_view()
    ax.set(aspect="equal", title=title, xlabel=axis_labels[0], ylabel=axis_labels[1])
    if own:
        legend(ax, alone=True)
    return ax
