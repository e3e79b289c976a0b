"""Attention of one token over the patches of its image."""

import numpy as np
import xarray as xr

from ..names_and_colours import label

ONE = ("cls", "distill")  # roles of a single token
Query = tuple[str, int]  # role and number within it


def queries(probs: xr.DataArray) -> dict[str, Query]:
    """What a list calls them -> the tokens that look, over all blocks."""
    found, rows, cols = {}, probs.coords.get("query_row"), probs.coords.get("query_col")
    for place, (role, index) in enumerate(
        zip(probs["query_role"].values.tolist(), probs["query_index"].values.tolist())
    ):
        text = label(role) if role in ONE else f"{role} {index + 1}"
        if role == "patch" and rows is not None:
            text = f"patch in row {int(rows[place]) + 1}, column {int(cols[place]) + 1}"
        found[text] = (role, int(index))
    return found


def of_query(probs: xr.DataArray, query: Query) -> xr.DataArray:
    """Whom one token looks at, (layer, head, token); NaN where there is no such token."""
    at = np.flatnonzero((probs["query_role"] == query[0]) & (probs["query_index"] == query[1]))
    return probs.isel(query=int(at[0])) if len(at) else probs.isel(query=0).where(False)


def weights_of(probs: xr.DataArray, query: Query, layer: int, head: int) -> xr.DataArray:
    """Whom one token looks at in one block, (token,): by one head from 1, or by the mean of all for 0.

    A model with fewer blocks gives its last.
    """
    p = of_query(probs, query).sel(layer=min(layer, int(probs["layer"].max())))
    return p.mean("head") if head == 0 else p.isel(head=min(head, p.sizes["head"]) - 1)


def brightest(probs: xr.DataArray, query: Query, head: int) -> float:
    """The largest weight on a patch in any block: one scale for all blocks."""
    p = of_query(probs, query)
    p = p.isel(token=p["role"].values == "patch")
    return float((p.mean("head") if head == 0 else p.isel(head=min(head, p.sizes["head"]) - 1)).max())


def as_grid(weights: xr.DataArray) -> xr.DataArray:
    """Patch weights (token,) as (row, column), numbered from 1."""
    w = weights.isel(token=weights["role"].values == "patch")
    rows, cols = int(w["row"].max()) + 1, int(w["col"].max()) + 1
    return xr.DataArray(
        np.asarray(w).reshape(rows, cols),
        {"row": np.arange(1, rows + 1), "column": np.arange(1, cols + 1)},
        ("row", "column"),
    )
