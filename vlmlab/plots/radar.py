"""Radar: one polygon per method, one spoke per data set."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..names_and_colours import GREY, label, looks
from .checks import band, check_array, check_keys
from .marks import line
from .style import SMALL, as_written, figure, legend


@as_written
def radar(
    data: xr.DataArray,
    spokes: str = "dataset",
    by: str = "method",
    spread: xr.DataArray | None = None,
    ax: Axes | None = None,
    limits: tuple[float, float] | None = None,
    ring: float | None = None,
    title: str = "",
) -> Axes:
    """One polygon per value of `by` over the values of `spokes`, clockwise from the top, all on one scale.

    spread: same dims, a band of +- that size; with a further dim `bound` (low, high), the band itself.
    limits: value at the centre and at the rim; by default 0 and the round number above the largest one.
    ring: a reference value, drawn as a circle. A missing number leaves its polygon open and unfilled.
    Raises ValueError on other dims, fewer than three spokes, a polygon without a number, numbers beyond
    the limits, or Axes that are not polar (make them with `figure(subplot_kw={"projection": "polar"})`).
    """
    check_array("radar", data, (spokes, by))
    check_keys("radar", data, by)
    names, keys = ([str(v) for v in data[dim].values] for dim in (spokes, by))
    if len(names) < 3:
        raise ValueError(f"radar needs three spokes or more along {spokes!r}, got {names}")
    own, ax = ax is None, ax or figure(height=3.0, subplot_kw={"projection": "polar"})[1]
    if ax.name != "polar":
        how = "figure(subplot_kw={'projection': 'polar'})"
        raise ValueError(f"radar needs polar Axes, got {ax.name}; make them with {how}")
    angles = np.linspace(0, 2 * np.pi, len(names) + 1)
    for key, name in zip(data[by].values, keys, strict=True):
        y = data.sel({by: key})
        edges = None if spread is None else band(y, spread.sel({by: key}))
        _polygon(ax, angles, y, looks(keys)[name], label(name), edges)
    if ring is not None:
        ax.plot(np.linspace(0, 2 * np.pi, 181), np.full(181, ring), color=GREY, linewidth=0.8)
    _spokes(ax, angles[:-1], names, _limits(ax, data, limits))
    ax.set_title(title)
    if own:
        legend(ax, "below", alone=True)
    return ax


def _polygon(ax: Axes, angles: np.ndarray, y: xr.DataArray, look: dict, name: str, edges) -> None:
    """A closed line on its band, or filled when it has none and misses nothing."""
    line(ax, angles, _closed(y), look, name, edges and tuple(map(_closed, edges)))
    if edges is None and np.isfinite(_closed(y)).all():
        ax.fill(angles, _closed(y), color=look["color"], alpha=0.07, linewidth=0)


def _closed(y: xr.DataArray) -> np.ndarray:
    values = np.asarray(y, dtype=float)
    return np.append(values, values[0])


def _limits(ax: Axes, data: xr.DataArray, limits: tuple[float, float] | None) -> tuple[float, float]:
    """The limits, checked against the data: beyond the centre a line would come out on the other side."""
    low, high = float(data.min()), float(data.max())
    largest = max(float(np.nanmax(drawn.get_ydata())) for drawn in ax.lines)
    limits = limits or (0.0, float(MaxNLocator(4).tick_values(0, largest)[-1]))
    if low < limits[0] or high > limits[1]:
        raise ValueError(f"radar: the data run from {low:g} to {high:g}, beyond the limits {limits}")
    return limits


def _spokes(ax: Axes, angles: np.ndarray, names: list[str], limits: tuple[float, float]) -> None:
    """Names outside the rim on their own side of it, values between the first two spokes."""
    ax.set(theta_zero_location="N", theta_direction=-1, ylim=limits)
    ax.set_xticks(angles, names)
    for text, angle in zip(ax.get_xticklabels(), angles, strict=True):
        side = np.sin(angle)
        text.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    ax.tick_params(axis="x", pad=-1)
    rings = MaxNLocator(4).tick_values(*limits)
    ax.set_yticks(rings[(rings > limits[0]) & (rings <= limits[1])])
    ax.set_rlabel_position(np.degrees(angles[1] / 2))
    ax.tick_params(axis="y", labelsize=SMALL)
    ax.grid(linewidth=0.4, color="#cccccc")
    ax.spines["polar"].set(linewidth=0.4, color="#cccccc", visible=True)
