"""Boxes with words in columns, and arrows between them: how a system is put together."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from ..names_and_colours import GREY, light, looks
from .checks import table
from .style import SMALL, as_written, figure

WIDE, HIGH = 0.84, 0.74  # of the room of a place


@as_written
def boxes(
    frame: pd.DataFrame, links: list[tuple[str, str]] = (), ax: Axes | None = None, title: str = ""
) -> Axes:
    """A box per row of a table with the columns name, column, row (numbers, from the left and from the top), text and
    group, which colours it; an arrow per link, two names.

    Raises ValueError for a column that is missing, a name that is there twice, or a link to a box that there is not.
    """
    frame = table("boxes", frame, "name", "column", "row", "text", "group")
    if frame["name"].duplicated().any():
        raise ValueError(f"boxes: {frame['name'][frame['name'].duplicated()].iloc[0]!r} is there twice")
    at = {r.name: (float(r.column), float(r.row)) for r in frame.itertuples(index=False)}
    if lost := [name for link in links for name in link if name not in at]:
        raise ValueError(f"boxes: a link leads to {lost[0]!r}; there are {', '.join(at)}")
    ax = ax or figure(columns=2, height=3.0)[1]
    colours = looks(dict.fromkeys(frame["group"]))
    for r in frame.itertuples(index=False):
        colour = colours[r.group]["color"]
        corner = (r.column - WIDE / 2, r.row - HIGH / 2)
        look = {"boxstyle": "round,pad=0.02", "facecolor": light(light(colour)), "edgecolor": colour}
        ax.add_patch(FancyBboxPatch(corner, WIDE, HIGH, linewidth=0.8, **look))
        ax.text(r.column, r.row, r.text, ha="center", va="center", fontsize=SMALL)
    for start, end in links:
        _arrow(ax, at[start], at[end])
    columns, rows = (frame[c].astype(float) for c in ("column", "row"))
    ax.set(xlim=(columns.min() - 0.55, columns.max() + 0.55), ylim=(rows.max() + 0.55, rows.min() - 0.55))
    ax.set_axis_off()
    ax.set_title(title, loc="left")
    return ax


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From the side of one box to the side of another: across columns, or down where both are in one."""
    (x, y), (u, v) = start, end
    if x == u:
        step = 1 if v > y else -1
        tail, head = (x, y + step * (HIGH / 2 + 0.02)), (u, v - step * (HIGH / 2 + 0.02))
    else:
        step = 1 if u > x else -1
        tail, head = (x + step * (WIDE / 2 + 0.02), y), (u - step * (WIDE / 2 + 0.02), v)
    ax.annotate(
        "",
        head,
        tail,
        arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
    )
