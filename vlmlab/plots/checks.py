"""What every picture asks of its data: the right axes, something on them, and not only NaN."""

import numpy as np
import pandas as pd
import xarray as xr


def check_array(who: str, data: xr.DataArray, dims: tuple[str, ...]) -> None:
    """`data` has exactly these dims, in any order, all of them filled. ValueError names the axis."""
    if set(data.dims) != set(dims):
        missing, extra = set(dims) - set(data.dims), set(data.dims) - set(dims)
        todo = [f"{d!r} is missing" for d in sorted(missing)] + [f"reduce {d!r} first" for d in sorted(extra)]
        raise ValueError(f"{who} needs the dims {dims}, got {data.dims}: {', '.join(todo)}")
    check_filled(who, data)


def check_filled(who: str, data: xr.DataArray) -> None:
    """No axis of length 0, not only NaN. ValueError names the axis."""
    for dim, size in data.sizes.items():
        if size == 0:
            raise ValueError(f"{who}: the axis {dim!r} is empty; the selection before it kept nothing")
    if not np.isfinite(np.asarray(data, dtype=float)).any():
        raise ValueError(f"{who}: only NaN along the axes {', '.join(map(repr, data.dims))}")


def check_keys(who: str, data: xr.DataArray, by: str) -> None:
    """Every value of the axis `by` has a number. ValueError names the ones that have none."""
    others = [d for d in data.dims if d != by]
    empty = data[by].values[~np.isfinite(data.astype(float)).any(others).values].tolist()
    if empty:
        raise ValueError(f"{who}: only NaN along {others[0]!r} where {by!r} is {empty}; drop them first")


def table(who: str, data: pd.DataFrame | xr.DataArray | xr.Dataset, *columns: str) -> pd.DataFrame:
    """The data as a table that has these columns and rows; the first names the numbers of an array."""
    frame = data
    if isinstance(data, xr.DataArray | xr.Dataset):
        frame = (data.to_dataset(name=columns[0]) if isinstance(data, xr.DataArray) else data).to_dataframe()
        frame = frame.reset_index()
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise ValueError(f"{who} needs the columns {missing}, the table has {list(frame.columns)}")
    if frame.empty:
        raise ValueError(f"{who}: the column {columns[0]!r} is empty; the table has no rows")
    return frame


def numbers(who: str, frame: pd.DataFrame, value: str, *groups: str) -> pd.DataFrame:
    """The rows whose `value` is a number. ValueError names a group that has none."""
    kept = frame[frame[value].notna()]
    for column in groups:
        lost = sorted(set(frame[column]) - set(kept[column]), key=str)
        if lost:
            raise ValueError(f"{who}: {value!r} has only NaN where {column!r} is {lost}; drop them first")
    return kept


def band(y: xr.DataArray, spread: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Lower and upper edge around y: y +- spread, or the two values along `bound` (low, high) as they are."""
    if "bound" not in spread.dims:
        return y - spread, y + spread
    if spread.sizes["bound"] != 2:
        raise ValueError(f"the axis 'bound' of a spread is (low, high), got {spread.sizes['bound']} values")
    return spread.isel(bound=0), spread.isel(bound=1)
