"""Points in the plane: embeddings coloured by class, or one measure against another."""

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from ..names_and_colours import CLASS_COLOURS, GREY, MARKERS, label, looks
from .checks import check_filled, table
from .style import as_written, figure, legend

FEW, MANY = 50, 300  # so many points can be large, of middle size
SHAPES = sorted(MARKERS, key="s".__eq__)  # the square last: small, it looks like a dot


@as_written
def scatter(
    xy: xr.DataArray | pd.DataFrame,
    ax: Axes | None = None,
    title: str = "",
    names: tuple[str, ...] | dict[str, dict[int, str]] | None = None,
    by: str = "label",
    marker: str | None = None,
    axis_labels: tuple[str, str] | None = None,
    columns: tuple[str, str] | None = None,
) -> Axes:
    """Points xy (sample, 2), coloured by the coordinate `by`, shaped by the coordinate `marker`.

    Or one point per row of a table, at the numbers in two of its `columns`; `by` and `marker` are columns
    too, and the points are drawn in random order (always the same), so that no group covers another.

    names: class names of a numeric `by`; they and the values of `marker` stand in a legend below the
    plot. {"base": {0: "bird"}, "new": {1: "bug"}} names them by their `marker` and number, each as it is drawn.
    Values that are words need none: methods, splits and roles have their colours and names.
    axis_labels: what the two axes are; without them there are no ticks, as a t-SNE has no units.
    Raises ValueError without the coordinates or columns, or when xy is not (sample, 2).
    """
    mixed = isinstance(xy, pd.DataFrame)
    if mixed:
        xy = _points(xy, columns or (), by, marker)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"scatter needs the dims (sample, 2), got {dict(xy.sizes)}")
    check_filled("scatter", xy)
    for coordinate in filter(None, (by, marker)):
        if coordinate not in xy.coords:
            there = list(xy.coords)
            raise ValueError(f"scatter needs a coordinate {coordinate!r} on the samples, got {there}")
    own, ax = ax is None, ax or figure(height=2.6)[1]
    colours, shapes = _colours(xy[by].values), _shapes(xy[marker].values) if marker else {None: "o"}
    size = 20 if len(xy) <= FEW else 12 if len(xy) <= MANY else 8
    fill = np.array([to_rgba(colours[k]) for k in xy[by].values.tolist()])
    for kind in [None] if mixed else colours:
        for second, shape in shapes.items():
            at = np.full(len(xy), True) if kind is None else xy[by].values == kind
            at = at if second is None else at & (xy[marker].values == second)
            ax.scatter(xy[at, 0], xy[at, 1], s=size, color=fill[at], marker=shape, linewidths=0, alpha=0.85)
    ax.set(title=title)
    if axis_labels:
        ax.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    else:
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
    legend(ax, "below", _entries(colours, shapes, names), alone=own)
    return ax


def _points(frame: pd.DataFrame, columns: tuple, by: str, marker: str | None) -> xr.DataArray:
    """(sample, axis) of two columns with the others as coordinates, shuffled."""
    if len(columns) != 2:
        raise ValueError(f"scatter of a table needs columns=(x, y), got {columns}")
    keys = [k for k in (by, marker) if k]
    frame = table("scatter", frame, *columns, *keys).sample(frac=1, random_state=0)
    words = {k: frame[k].to_numpy(str if frame[k].dtype.kind not in "iuf" else None) for k in keys}
    coords = {k: ("sample", v) for k, v in words.items()}
    return xr.DataArray(frame[list(columns)].to_numpy(float), coords, ("sample", "axis"))


def _entries(colours: dict, shapes: dict, names: tuple | dict | None) -> list[Line2D]:
    """Legend entries: colours that have a name as round dots, then the markers in grey; or both at once."""
    if isinstance(names, dict):
        return [_dot(n, colours[i], shapes[k]) for k, of in names.items() for i, n in of.items()]
    words = isinstance(next(iter(colours)), str)
    named = {label(k) if words else names[k]: c for k, c in colours.items()} if words or names else {}
    dots = [_dot(n, c, "o") for n, c in named.items()]
    return dots + [_dot(label(str(k)), GREY, m) for k, m in shapes.items() if k is not None]


def _colours(values: np.ndarray) -> dict:
    """Fixed colours of names; numbered classes take their own palette in order, beyond it hues."""
    kinds = np.unique(values).tolist()
    if isinstance(kinds[0], str):
        return {k: look["color"] for k, look in looks(dict.fromkeys(values.tolist())).items()}
    palette = CLASS_COLOURS if len(kinds) <= len(CLASS_COLOURS) else sns.color_palette("husl", len(kinds))
    return dict(zip(kinds, palette, strict=False))


def _shapes(values: np.ndarray) -> dict:
    """One filled marker per value, in order of appearance."""
    kinds = list(dict.fromkeys(values.tolist()))
    if len(kinds) > len(SHAPES):
        raise ValueError(f"scatter has {len(SHAPES)} markers, the second key {len(kinds)} values: {kinds}")
    return dict(zip(kinds, SHAPES, strict=False))


def _dot(name: str, colour, shape: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=shape, markersize=4, color=colour, label=name)
