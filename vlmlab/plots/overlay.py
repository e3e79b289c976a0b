"""Attention on the picture it belongs to: of one token, or of all heads or tokens as a grid."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ..names_and_colours import AXES, SKY, label
from .checks import check_array, check_filled
from .style import SMALL, as_written, figure

ONE = ("cls", "sos", "eos")  # roles of a single token


@as_written
def overlay(
    picture: np.ndarray,
    weights: xr.DataArray,
    ax: Axes | None = None,
    title: str = "",
    query: tuple[int, int] | None = None,
    vmax: float | None = None,
) -> Axes:
    """A picture (height, width, 3) under patch weights (token,).

    Patches stand where their coordinates row and col say, without them in order on a square grid; tokens
    of other roles are left out. query: (row, column) of the patch that looks, outlined; weights that keep
    the coordinates query_row and query_col of one query need not name it. vmax: the weight of the
    brightest colour.
    Raises ValueError when the weights form no grid, or are empty or only NaN.
    """
    return _overlay(picture, weights, ax or figure(height=1.6)[1], title, query, vmax)


def _overlay(
    picture: np.ndarray,
    weights: xr.DataArray,
    ax: Axes,
    title: str = "",
    query: tuple[int, int] | None = None,
    vmax: float | None = None,
) -> Axes:
    """`overlay` on given Axes."""
    grid = _grid(weights)
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)
    ax.imshow(picture, extent=extent)
    vmax = vmax or float(np.nanmax(grid)) or 1.0
    strength = np.nan_to_num(np.clip(grid / vmax, 0, 1))  # little weight leaves the picture as it is
    heat = {"cmap": "inferno", "alpha": 0.75 * strength, "vmin": 0, "vmax": vmax}
    ax.imshow(grid, extent=extent, interpolation="bilinear", **heat)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    row, col = query or _query(weights)
    if row >= 0:
        high, wide = height / grid.shape[0], width / grid.shape[1]
        box = Rectangle((col * wide, row * high), wide, high, fill=False, edgecolor=SKY, linewidth=1.4)
        ax.add_patch(box).set_clip_on(False)
    return ax


@as_written
def overlay_grid(
    picture: np.ndarray,
    weights: xr.DataArray,
    ax: Axes | None = None,
    title: str = "",
    vmax: float | None = None,
) -> Axes:
    """Overlays of all heads, blocks or queries: weights (head, token) or (query, head, token).

    One dim besides `token` is wrapped into a grid, two are its rows and columns. All share one colour
    scale from 0 to vmax, by default the largest weight on a patch; grids that are to be compared get the
    same vmax. The overlays are Axes inside the one returned.
    Raises ValueError without the dim `token`, or with more than two others.
    """
    others = [d for d in weights.dims if d != "token"]
    if "token" not in weights.dims or not 1 <= len(others) <= 2:
        raise ValueError(f"overlay_grid draws 'token' and one or two other dims, got {weights.dims}")
    weights = _patches(weights)
    check_filled("overlay_grid", weights)
    flat = weights.stack(panel=others, create_index=False).transpose("panel", "token")
    count, vmax = flat.sizes["panel"], vmax or float(weights.max())
    cols = weights.sizes[others[1]] if len(others) == 2 else _across(count)
    rows = -(-count // cols)
    ax = ax or figure(height=min(8.0, 0.4 + 3.2 * rows / cols))[1]
    ax.set_axis_off()
    ax.set_title(title)
    names = [[_name(weights, d, i) for i in range(weights.sizes[d])] for d in others]
    for i in range(count):
        row, col = divmod(i, cols)
        cell = ax.inset_axes((col / cols, 1 - (row + 1) / rows, 0.94 / cols, 0.88 / rows))
        _overlay(picture, flat.isel(panel=i), cell, vmax=vmax)
        top = names[0][i] if len(others) == 1 else names[1][col] if row == 0 else ""
        cell.set_title(top, fontsize=SMALL, pad=2)
        if len(others) == 2 and col == 0:
            cell.set_ylabel(names[0][row], fontsize=SMALL)
    return ax


def _across(count: int) -> int:
    """Columns for so many panels: one row up to five, else rows without a gap where there are any."""
    return count if count <= 5 else next((c for c in (4, 5, 3) if count % c == 0), 4)


def _patches(weights: xr.DataArray) -> xr.DataArray:
    return weights.isel(token=weights["role"].values == "patch") if "role" in weights.coords else weights


def _grid(weights: xr.DataArray) -> np.ndarray:
    """The patch weights as (rows, columns)."""
    check_array("overlay", weights, ("token",))
    weights = _patches(weights)
    check_filled("overlay", weights)
    w = np.asarray(weights, dtype=float)
    if {"row", "col"} <= set(weights.coords):
        row, col = weights["row"].values, weights["col"].values
        if row.ndim != 1:
            raise ValueError("overlay: every image has a grid of its own; choose one sample")
        grid = np.full((row.max() + 1, col.max() + 1), np.nan)
        grid[row, col] = w
        return grid
    side = round(len(w) ** 0.5)
    if side * side != len(w):
        raise ValueError(f"{len(w)} weights form no square grid; keep the tokens of role 'patch'")
    return w.reshape(side, side)


def _query(weights: xr.DataArray) -> tuple[int, int]:
    """Where the looking patch is, (-1, -1) when it is no patch or unknown."""
    if {"query_row", "query_col"} <= set(weights.coords) and not weights["query_row"].ndim:
        return int(weights["query_row"]), int(weights["query_col"])
    return -1, -1


def _name(weights: xr.DataArray, dim: str, i: int) -> str:
    """What stands beside a panel: "head 3", "block 12", "prompt 1", "patch 40"."""
    at = weights.isel({dim: i})
    if dim == "query" and "query_role" in at.coords:
        role = str(at["query_role"].item())
        return label(role) if role in ONE else f"{role} {int(at['query_index']) + 1}"
    number = at[dim].item() if dim in weights.coords else i + 1
    return f"{AXES.get(dim, dim)} {number}"
