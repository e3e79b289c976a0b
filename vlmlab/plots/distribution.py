"""Distributions side by side: violins with quartiles, whole ones or halves that compare two."""

import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from ..names_and_colours import AXES, BLUE, GREY, NAMES, colour, label, light, looks
from .checks import numbers, table
from .style import as_written, figure, legend, room

LETTER = 0.065  # inches across, of a name on the axis
VIOLIN = {"inner": "quart", "cut": 0, "linewidth": 0.6, "density_norm": "width", "saturation": 1}


@as_written
def distribution(
    frame: pd.DataFrame | xr.DataArray,
    value: str,
    group: str,
    by: str | None = None,
    ax: Axes | None = None,
    ylabel: str | None = None,
    colours: str | None = None,
) -> Axes:
    """Violins of the column `value` per `group`, quartiles inside, cut at the smallest and largest value.

    With `by`, a column of two values, each violin has one half per value; else methods, splits and roles
    have their colour. The columns of an array are its coordinates. For many groups see `ridge`.
    colours: with `by`, one name whose colour all violins have, or "group" for that of each group; the first half
    is full, the second light, and the legend says so in grey.
    Raises ValueError when a column is missing, a group has only NaN, or `by` does not have two values.
    """
    columns = tuple(filter(None, (group, by)))
    frame = numbers("distribution", table("distribution", frame, value, *columns), value, *columns)
    groups = list(dict.fromkeys(frame[group]))
    kinds = list(dict.fromkeys(frame[by])) if by else groups
    if by and len(kinds) != 2:
        raise ValueError(f"{by!r} has the values {kinds}; a split violin compares two")
    own, ax = ax is None, ax or figure(columns=2 if len(groups) > 4 else 1)[1]
    pair = {"split": True, "gap": 0.08} if by else {"legend": False}
    look = {"hue": by or group, "hue_order": kinds, "palette": _palette(kinds, bool(by))}
    sns.violinplot(frame, x=group, y=value, order=groups, ax=ax, **look, **pair, **VIOLIN)
    ax.set(xlabel=AXES.get(group, ""), ylabel=ylabel or value)
    names = [label(str(g)) for g in groups]
    wide = max(map(len, names)) * LETTER > room(ax) / len(names)
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if wide else {}
    ax.set_xticks(range(len(groups)), names, **slant)
    if by:
        handles, names = ax.get_legend_handles_labels()
        for handle, name in zip(handles, names, strict=True):
            handle.set_label(label(name))
        ax.get_legend().remove()
        if colours:
            _shade(ax, groups if colours == "group" else [colours] * len(groups))
            fills = zip((GREY, light(GREY)), kinds, strict=True)
            handles = [Patch(facecolor=c, edgecolor="0.2", linewidth=0.6, label=label(k)) for c, k in fills]
        legend(ax, handles=handles, alone=own)
    return ax


def _shade(ax: Axes, names: list[str]) -> None:
    """Give each violin the colour of its name, and its right half the light one."""
    for half in ax.findobj(PolyCollection):
        across = half.get_paths()[0].get_extents()
        at = round((across.x0 + across.x1) / 2)
        own = colour(str(names[at]))
        half.set_facecolor(own if across.x0 + across.x1 < 2 * at else light(own))


def _palette(kinds: list, differ: bool) -> dict:
    """Fixed colours of names; groups without any are all of one colour unless they have to differ."""
    if not differ and not any(k in NAMES for k in kinds):
        return dict.fromkeys(kinds, BLUE)
    return dict(zip(kinds, (look["color"] for look in looks(map(str, kinds)).values()), strict=True))
