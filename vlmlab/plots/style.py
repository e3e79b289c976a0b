"""One look for all figures: sizes in text columns, 6 pt or more, text that stays text in SVG and PDF."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

COLUMN = 3.35  # inches; two columns and the gap are 6.9
SMALL = 6.5  # points; for numbers inside a picture

_RC = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "vlmlab",
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "figure.titlesize": 9,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 2,
    "ytick.minor.size": 2,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.2,
    "font.size": 8,
    "font.family": "DejaVu Sans",
}


def use() -> None:
    """Set the style for the session: 8 pt sans serif, thin lines, text kept as text in SVG and PDF."""
    sns.set_theme(context="paper", style="ticks", rc=_RC)


def figure(
    columns: int = 1, height: float = 2.2, rows: int = 1, cols: int = 1, **kwargs
) -> tuple[Figure, Axes]:
    """A figure one or two text columns wide and `height` inches high, with rows x cols Axes."""
    use()
    width = COLUMN if columns == 1 else 6.9
    return plt.subplots(rows, cols, figsize=(width, height), layout="constrained", **kwargs)


def strip(ax: Axes, side: str, gap: float, size: float, **kwargs) -> Axes:
    """Axes along the top or right side of others, `gap` inches away and `size` inches wide.

    They follow their parent, and the layout counts them: inches do not change with the room that is left.
    """
    inches = ax.figure.dpi_scale_trans
    if side == "top":
        outside = blended_transform_factory(ax.transAxes, inches + ScaledTranslation(0, 1, ax.transAxes))
        return ax.inset_axes((0, gap, 1, size), transform=outside, **kwargs)
    outside = blended_transform_factory(inches + ScaledTranslation(1, 0, ax.transAxes), ax.transAxes)
    return ax.inset_axes((gap, 0, size, 1), transform=outside, **kwargs)


def legend(ax: Axes, where: str = "above", handles: list[Artist] | None = None, alone: bool = False) -> None:
    """A legend beside the Axes, where it covers nothing: "above", "below" (under the labels) or "right".

    Without handles it lists what the Axes has labels for; with none of those it draws nothing.
    alone: the Axes have a figure to themselves; the legend then is the figure's, and a title fits between.
    """
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    if not handles:
        return
    figure = ax.figure
    sample = 1.0 if all(h.get_linestyle() == "None" for h in handles) else 2.0  # a dot, or a line
    look = {"ncols": 1 if where == "right" else _columns(handles, sample, _room(ax) * (1 if alone else 0.8))}
    look |= {"handles": handles, "handlelength": sample, "handletextpad": 0.5, "columnspacing": 1.0}
    if alone:
        places = {"above": "upper left", "below": "lower center", "right": "right upper"}
        figure.legend(loc=f"outside {places[where]}", borderaxespad=0.4, **look)
        return
    labels = -28 / 72 if ax.get_xlabel() else -12 / 72 if len(ax.get_xticks()) else 0.0  # inches below
    place, anchor, down = {
        "above": ("lower right", (1, 1), 0.0),  # a title at the left stays free
        "below": ("upper center", (0.5, 0), labels),
        "right": ("upper left", (1, 1), 0.0),
    }[where]
    moved = ax.transAxes + ScaledTranslation(0, down, figure.dpi_scale_trans)
    ax.legend(loc=place, bbox_to_anchor=anchor, bbox_transform=moved, borderaxespad=0.4, **look)


def _room(ax: Axes) -> float:
    """Inches across that the layout gives to these Axes, with their labels."""
    place = ax.get_subplotspec()
    share = len(place.colspan) / place.get_gridspec().ncols if place else ax.get_position().width
    return ax.figure.bbox.width / ax.figure.dpi * share


def _columns(handles: list[Artist], sample: float, wide: float) -> int:
    """As many columns as fit into `wide` inches; a letter is about 0.6 of the font size."""
    size = mpl.rcParams["legend.fontsize"] / 72
    letters = [len(h.get_label()) for h in handles]
    for n in range(len(letters), 1, -1):
        columns = np.array_split(letters, n)  # as matplotlib fills them
        if size * sum(0.6 * max(c) + sample + 1.5 for c in columns) < wide:
            return n
    return 1
