"""What a figure says where one points at it: a text for each place of a curve, each cell and each bar."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

MOST = 1600  # values of one picture; with more there are none
Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels of a figure


@dataclasses.dataclass(frozen=True)
class Value:
    """A text for a place in a picture; left, top, width and height are shares of the picture's."""

    left: float
    top: float
    width: float
    height: float
    text: str


def values_of(figure: Figure) -> tuple[Value, ...]:
    """What there is to point at in a figure that was drawn: curves, cells of matrices and of attention, bars."""
    across, up = figure.bbox.size
    found = []
    for ax in [a for own in figure.axes for a in (own, *own.child_axes)]:
        for (left, low, right, high), text in (*curves(ax), *cells(ax), *bars(ax)):
            box = left / across, 1 - high / up, (right - left) / across, (high - low) / up
            found.append(Value(*map(float, box), text))
    return tuple(found) if len(found) <= MOST else ()


def curves(ax: Axes) -> Iterator[tuple[Box, str]]:
    """For each place along x the values of all curves that have a name; a leading _ hides a name from the legend alone."""
    lines = []
    for line in ax.lines:
        if len(line.get_xdata()) and not line.get_label().startswith("_child"):
            x, y = (np.asarray(values, float).tolist() for values in line.get_data())
            lines.append((line.get_label().lstrip("_"), dict(zip(x, y))))
    if ax.name == "polar":
        yield from spokes(ax, lines)
        return
    at = sorted({x for _, points in lines for x in points if np.isfinite(x)})
    if len(at) < 2:
        return
    places = ax.transData.transform(np.column_stack([at, np.full(len(at), ax.get_ylim()[0])]))[:, 0]
    middle = (places[1:] + places[:-1]) / 2
    edges = np.clip([places[0], *middle, places[-1]], ax.bbox.x0, ax.bbox.x1)
    edges[0], edges[-1] = (
        max(ax.bbox.x0, 2 * places[0] - edges[1]),
        min(ax.bbox.x1, 2 * places[-1] - edges[-2]),
    )
    for x, left, right in zip(at, edges[:-1], edges[1:]):
        said = [f"{name} {p[x]:.3g}" for name, p in lines if np.isfinite(p.get(x, np.nan))]
        if said:
            yield (
                (left, ax.bbox.y0, right, ax.bbox.y1),
                "\n".join([f"{ax.get_xlabel()} {x:g}".strip(), *said]),
            )


def spokes(ax: Axes, lines: Sequence[tuple[str, dict[float, float]]]) -> Iterator[tuple[Box, str]]:
    """The corners of the curves of a radar."""
    names = dict(zip(np.round(ax.xaxis.get_majorticklocs(), 6), ticks(ax.xaxis).values()))
    size = 0.03 * ax.bbox.width
    for name, points in lines:
        for angle, value in points.items():
            if (spoke := names.get(round(angle, 6))) is not None and np.isfinite(value):
                x, y = ax.transData.transform((angle, value))
                yield (x - size, y - size, x + size, y + size), f"{spoke}, {name} {value:.3g}"


def cells(ax: Axes) -> Iterator[tuple[Box, str]]:
    """The numbers of an image that is no picture."""
    for image in ax.images:
        values = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
        if values.ndim != 2:
            continue
        left, right, bottom, top = image.get_extent()
        rows, columns = values.shape
        x = ax.transData.transform(
            np.column_stack([np.linspace(left, right, columns + 1), np.full(columns + 1, top)])
        )
        y = ax.transData.transform(
            np.column_stack([np.full(rows + 1, left), np.linspace(top, bottom, rows + 1)])
        )
        down, across = called(ax.yaxis, rows, "row"), called(ax.xaxis, columns, "column")
        head = f"{ax.get_title()}: " if ax.get_title() and not ax.get_xlabel() else ""
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                box = x[column, 0], y[row + 1, 1], x[column + 1, 0], y[row, 1]
                yield box, f"{head}{down[row]}, {across[column]}: {value:.3g}"


def bars(ax: Axes) -> Iterator[tuple[Box, str]]:
    """Bars with names on their axis, or of a histogram; pointed at anywhere along them."""
    whole = ax.bbox.x0, ax.bbox.y0, ax.bbox.x1, ax.bbox.y1
    for container in ax.containers:
        flat = getattr(container, "orientation", None) == "horizontal"
        axis, names = (ax.yaxis, ticks(ax.yaxis)) if flat else (ax.xaxis, ticks(ax.xaxis))
        own = "" if container.get_label().startswith("_") else f", {container.get_label()}"
        for patch, value in zip(container.patches, getattr(container, "datavalues", ())):
            box = patch.get_bbox()
            first, last = box.intervaly if flat else box.intervalx
            name = names.get(round((first + last) / 2), f"{axis.get_label_text()} {first:.3g} to {last:.3g}")
            low, high = ax.transData.transform([(first, first), (last, last)])[:, int(flat)]
            place = (whole[0], low, whole[2], high) if flat else (low, whole[1], high, whole[3])
            yield place, f"{name}{own}: {value:.3g}"


def ticks(axis) -> dict[int, str]:
    """Place -> name, of an axis whose ticks are names."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return {}
    texts = [text.get_text() for text in axis.get_majorticklabels()]
    return {round(place): text for place, text in zip(axis.get_majorticklocs(), texts)}


def called(axis, count: int, otherwise: str) -> list[str]:
    """The names of so many cells along an axis: its ticks, with the numbers between them where these are numbers."""
    names, label = ticks(axis), axis.get_label_text()
    if not any(names.values()):
        return [f"{otherwise} {i + 1}" for i in range(count)]
    if len(names) < count and len(names) > 1:
        (a, first), *_, (b, last) = names.items()
        step = (float(last) - float(first)) / (b - a)
        names = {i: f"{float(first) + (i - a) * step:g}" for i in range(count)}
    label = label or (otherwise if names.get(0, "").isdigit() else "")
    return [f"{label} {names.get(i, i + 1)}".strip() for i in range(count)]
