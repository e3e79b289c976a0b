"""Heat maps of (query, key) or (layer, layer) arrays with labelled blocks."""

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from ..names_and_colours import AXES, GREY, label
from .checks import check_filled
from .style import SMALL, as_written, figure, strip

MISSING = "#dddddd"
BAR, GAP, CURVE = 0.1, 0.06, 0.4  # inches


@as_written
def matrix(
    data: xr.DataArray,
    ax: Axes | None = None,
    title: str = "",
    unit: str = "",
    vmin: float | None = 0.0,
    vmax: float | None = None,
    colorbar: bool = True,
    cmap: str = "viridis",
    marginals: bool = False,
    annotate: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    roles: tuple[str, str] | None = None,
) -> Axes:
    """A 2-d array as an image, first dim downwards; cells without a number are light grey.

    Ticks carry the coordinates of the two dims, so blocks have their numbers. Cell (i, j) is at x = j,
    y = i. `marginals` puts the mean of each row to the right and of each column on top. `annotate` writes
    each number in this format (".2f"); up to about ten columns per text column stay readable. xlabel, ylabel: what stands along the
    axes instead of the names of the dims; "" for nothing. roles: the coordinates along the two dims whose
    values, such as the roles of tokens, name the axes in place of numbers, with a line where one ends.

    Raises ValueError unless data is 2-d, on an empty axis, on only NaN and without the coordinates `roles`.
    """
    if data.ndim != 2:
        raise ValueError(f"matrix draws 2-d arrays, got dims {data.dims}")
    check_filled("matrix", data)
    if lacks := [name for name in roles or () if name not in data.coords]:
        raise ValueError(f"matrix needs the coordinate {lacks[0]!r}, got {list(data.coords)}")
    ax = ax or figure(height=2.6)[1]
    colours = mpl.colormaps[cmap].with_extremes(bad=MISSING)
    values, (down, across) = np.asarray(data, dtype=float), data.dims
    image = ax.imshow(values, cmap=colours, vmin=vmin, vmax=vmax, interpolation="nearest", aspect="equal")
    xlabel, ylabel = (AXES.get(d, d) if own is None else own for d, own in ((across, xlabel), (down, ylabel)))
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    for axis, dim, names in zip((ax.yaxis, ax.xaxis), data.dims, roles or (None, None), strict=True):
        if names is None:
            _ticks(axis, data, dim)
        else:
            _blocks(ax, axis, data[names].values)
    ax.spines[:].set_visible(False)
    if annotate:
        _numbers(ax, image, annotate)
    if marginals:
        _marginals(ax, data)
    if colorbar:
        _bar(ax, image, unit, GAP + marginals * (CURVE + GAP))
    return ax


def _bar(ax: Axes, image: AxesImage, unit: str, away: float) -> None:
    """A colour bar as high as the matrix, so many inches to its right."""
    bar = ax.figure.colorbar(image, cax=strip(ax, "right", away, BAR))
    bar.set_label(unit)
    bar.outline.set_visible(False)


def _ticks(axis, data: xr.DataArray, dim: str) -> None:
    """Names: one tick each, slanted when long. Numbers: as many as fit. No coordinate: positions."""
    if dim not in data.coords:
        return axis.set_major_locator(MaxNLocator(6, integer=True))
    values = data[dim].values
    if values.dtype.kind in "iuf":
        step = max(1, -(-len(values) // 7))
        axis.set_ticks(range(0, len(values), step), [f"{v:g}" for v in values[::step]])
        return None
    names = [str(v) for v in values]
    axis.set_ticks(range(len(names)), names)
    if axis.axis_name == "x" and sum(map(len, names)) > 30:
        axis.set_tick_params(rotation=45)
        for text in axis.get_ticklabels():
            text.set(ha="right", rotation_mode="anchor")
    return None


def _blocks(ax: Axes, axis, names: np.ndarray) -> None:
    """One tick in the middle of each run of equal names, and a line behind each run."""
    ends = [i for i in range(1, len(names) + 1) if i == len(names) or names[i] != names[i - 1]]
    starts = [0, *ends[:-1]]
    middles = [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)]
    slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if axis is ax.xaxis else {}
    axis.set_ticks(middles, [label(str(names[i])) for i in starts], **slant)
    for end in ends[:-1]:
        (ax.axvline if axis is ax.xaxis else ax.axhline)(end - 0.5, color="white", linewidth=0.8)


def _numbers(ax: Axes, image: AxesImage, form: str) -> None:
    """Each number in its cell, dark on light and light on dark."""
    for (i, j), value in np.ndenumerate(image.get_array()):
        if np.ma.is_masked(value) or not np.isfinite(value):
            continue
        red, green, blue, _ = image.to_rgba(value)
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45
        text = format(float(value), form).replace("-", "−")
        ax.text(j, i, text, ha="center", va="center", fontsize=SMALL, color="black" if dark else "white")


def _marginals(ax: Axes, data: xr.DataArray) -> None:
    """Curves of the row means at the right and the column means on top, on axes that follow the matrix."""
    rows, columns = data.dims
    top = strip(ax, "top", GAP, CURVE, sharex=ax)
    right = strip(ax, "right", GAP, CURVE, sharey=ax)
    of_columns, of_rows = data.mean(rows), data.mean(columns)
    top.plot(range(data.sizes[columns]), of_columns, color=GREY, linewidth=1.0)
    right.plot(of_rows, range(data.sizes[rows]), color=GREY, linewidth=1.0)
    top.tick_params(labelbottom=False, bottom=False, labelsize=SMALL)
    right.tick_params(labelleft=False, left=False, labelsize=SMALL)
    right.tick_params(axis="x", rotation=90)
    for axis, curve in ((top.yaxis, of_columns), (right.xaxis, of_rows)):
        axis.set_major_locator(MaxNLocator(2))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
        if float(curve.max() - curve.min()) <= 1e-3 * float(abs(curve).max()):  # constant but for rounding
            axis.set_view_interval(0.9 * float(curve.mean()), 1.1 * float(curve.mean()), ignore=True)
    top.set_ylabel("mean", fontsize=SMALL)
    right.set_xlabel("mean", fontsize=SMALL)
