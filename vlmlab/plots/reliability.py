"""Reliability diagram: how often a model is right when it is this sure."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..names_and_colours import GREY, label, looks
from .checks import table
from .marks import line
from .style import SMALL, as_written, figure, legend, strip


@as_written
def reliability(
    bins: pd.DataFrame | xr.Dataset,
    by: str | None = "method",
    ece: Mapping[str, float] | float | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Accuracy against mean confidence of bins, with the number of samples of each bin on top.

    bins: one row per bin (and per value of `by`; None for a single model) with the columns confidence and
    accuracy (0 to 1) and count (samples); bins without samples are left out. ece: expected calibration
    error per value of `by`, or one number; it is printed, not computed here.
    Raises ValueError when a column is missing, numbers lie outside 0 to 1, or nothing is left.
    """
    bins = _filled(table("reliability", bins, "accuracy", "confidence", "count", *filter(None, (by,))))
    own, ax = ax is None, ax or figure(height=3.0)[1]
    top = strip(ax, "top", 0.08, 0.4, sharex=ax)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    groups = dict(list(bins.groupby(by, sort=False))) if by else {"black": bins}
    errors = ece if isinstance(ece, Mapping) else dict.fromkeys(groups, ece)
    for (key, rows), look in zip(groups.items(), looks(map(str, groups)).values(), strict=True):
        rows = rows.sort_values("confidence")
        error = [] if errors.get(key) is None else [f"ECE {errors[key]:.3f}"]
        name = ", ".join([label(str(key))] * bool(by) + error)
        line(ax, rows["confidence"], rows["accuracy"], look, name or "accuracy")
        top.vlines(rows["confidence"], 0, rows["count"], color=look["color"], linewidth=2.5, alpha=0.7)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title, xlabel="confidence", ylabel="accuracy")
    _counts(top)
    if own:
        legend(ax, "below", alone=True)
    return ax


def _filled(bins: pd.DataFrame) -> pd.DataFrame:
    """The bins that hold samples, all with numbers from 0 to 1."""
    kept = bins[bins["count"] > 0]
    if kept.empty:
        raise ValueError("reliability: the column 'count' is 0 in every bin; there are no samples")
    for column in ("confidence", "accuracy"):
        if not kept[column].between(0, 1).all():
            raise ValueError(f"reliability: the column {column!r} must lie in 0 to 1 in bins with samples")
    return kept


def _counts(top: Axes) -> None:
    top.set_ylabel("samples", fontsize=SMALL)
    top.set_ylim(bottom=0)
    top.yaxis.set_major_locator(MaxNLocator(2, integer=True, prune="lower"))
    top.tick_params(labelbottom=False, bottom=False, labelsize=SMALL)
