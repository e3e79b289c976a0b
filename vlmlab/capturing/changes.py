"""What an `edit` may put at a site: nothing (`ablate`), or what a record holds (`patch`)."""

import functools

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .edit import SiteEdit
from .now import NOW
from .reducers import Table


def ablate(*roles: str, values: str | xr.DataArray | np.ndarray | Tensor = "mean") -> SiteEdit:
    """Edit that takes the information out of the tokens of these roles (none named: of all tokens).

    values: what stands there instead. "mean": the token's mean over the samples of the batch, so the result
    depends on the batch; "zero": zeros; a record's array as in `patch`: its mean over samples, which does
    not. Zero tokens still receive attention: their key is what the norm's and the projection's biases give.
    ValueError when a block has no token of a role, or for "mean" of a batch of one, which changes nothing.
    """
    if isinstance(values, str) and values not in ("mean", "zero"):
        raise ValueError(f"values {values!r} must be 'mean', 'zero' or an array")

    def function(x: Tensor, table: Table) -> Tensor:
        chosen = mask_of(table, x, roles)
        if not isinstance(values, str):
            found, tokens = rows_of(values, table)
            return placed(x, table, found.mean(axis=0, keepdims=True), tokens, chosen)
        if values == "mean" and len(x) == 1:
            raise ValueError(
                f"the mean over one sample is that sample: ablating {table.site} would change "
                "nothing; give a larger batch, values='zero' or values=record[site]"
            )
        return torch.where(chosen[..., None], x.mean(dim=0, keepdim=True) if values == "mean" else 0.0, x)

    return function


def patch(values: xr.DataArray | np.ndarray | Tensor, *roles: str) -> SiteEdit:
    """Edit that puts recorded values in: `patch(acts["image.resid.post"])`.

    values: a record's array, with or without dim layer (the edited block's is taken), whose tokens go to
    the tokens with the same role and index while all others stay as they are; or a plain array (sample,
    token, feature) with all tokens. One sample goes to all; otherwise samples are matched by position:
    inside `capture` with those of its data, elsewhere with those of the batch. roles: only these.
    ValueError for a missing block or token, NaN, or another number of samples.
    """

    def function(x: Tensor, table: Table) -> Tensor:
        found, tokens = rows_of(values, table)
        return placed(x, table, rows_for(found, len(x), table), tokens, mask_of(table, x, roles))

    return function


def mask_of(table: Table, x: Tensor, roles: tuple[str, ...]) -> Tensor:
    """(sample or 1, token) true at the tokens of these roles, at all when none is named."""
    if not roles:
        return torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
    there = {role for role, _ in table.axis.tokens}
    there |= set(table.roles["token"].names) if "token" in table.roles else set()
    if lacking := set(roles) - there:
        raise ValueError(
            f"{table.site}[{table.layer}] has no token of role {lacking.pop()!r}; it has "
            f"{', '.join(sorted(there))}; name blocks in brackets"
        )
    return functools.reduce(torch.logical_or, (table.mask(role, x) for role in roles))


def rows_of(values, table: Table) -> tuple[np.ndarray, list | None]:
    """(sample, token, feature) of the edited block, and its tokens (None: in the order of the model's)."""
    if not isinstance(values, xr.DataArray):
        values = values.detach().float().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        return values, None
    if "layer" in values.dims:
        if table.layer not in values["layer"]:
            raise ValueError(
                f"the values to put into {table.site}[{table.layer}] are of blocks "
                f"{values['layer'].values.tolist()}"
            )
        values = values.sel(layer=table.layer)
        if "token" in values.dims:  # those that only other blocks have
            values = values.dropna("token", how="all")
    if "sample" not in values.dims:
        values = values.expand_dims("sample")
    if set(values.dims) != {"sample", "token", "feature"} or "role" not in values.coords:
        raise ValueError(
            f"the values to put into {table.site}[{table.layer}] have dims {values.dims}; "
            "expected sample, token (with role and index) and feature, as captured"
        )
    role, index, here = values["role"].values, values["index"].values.tolist(), set(table.axis.tokens)
    if role.ndim == 1:
        tokens = list(zip(role.tolist(), index))
    else:  # by sample, in a run of words
        labels = zip(role[0].tolist(), index)
        tokens = [("word", i) if (r, i) not in here or r == "word" else (r, i) for r, i in labels]
    return values.transpose("sample", "token", "feature").values, tokens


def rows_for(found: np.ndarray, batch: int, table: Table) -> np.ndarray:
    """The rows of this batch."""
    expected = batch if NOW.first is None else NOW.total
    if len(found) not in (1, expected):
        raise ValueError(
            f"{len(found)} samples are to be put into {table.site}[{table.layer}], but the "
            f"model runs {expected}; give as many, or one for all"
        )
    if len(found) == 1 or NOW.first is None:
        return found
    return found[NOW.first : NOW.first + batch]


def placed(x: Tensor, table: Table, found: np.ndarray, tokens: list | None, chosen: Tensor) -> Tensor:
    """x with the found values at their tokens where `chosen`."""
    here = {token: place for place, token in enumerate(table.axis.tokens)}
    where = f"{table.site}[{table.layer}]"
    if found.ndim != 3 or found.shape[2] != x.shape[2] or (tokens is None and found.shape[1] != x.shape[1]):
        raise ValueError(
            f"values of shape {found.shape} do not fit {where}, (sample, token, feature) = {tuple(x.shape)}"
        )
    if tokens is not None and (lost := [t for t in tokens if t not in here]):
        raise ValueError(f"{where} has no token {lost[0][0]}[{lost[0][1]}] to put values at")
    places = list(range(x.shape[1])) if tokens is None else [here[t] for t in tokens]
    put = torch.as_tensor(np.array(found)).to(x)
    mask = chosen[:, places, None].expand(len(x), len(places), 1)
    if (put.isnan().any(dim=-1, keepdim=True) & mask).any():
        raise ValueError(
            f"the values to put into {where} hold NaN: tokens that the record did not keep "
            "there; choose others with roles"
        )
    x = x.clone()
    x[:, places] = torch.where(mask, put, x[:, places])
    return x
