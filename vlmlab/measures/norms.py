"""Norms of tokens and features: what AlignedNorm looks at."""

import numpy as np
import xarray as xr

from ..token_labels import roles_of
from .arrays import by_role, feature_dim, of_role


def token_norms(x: xr.DataArray) -> xr.DataArray:
    """||x_t||_2 per token, in the units of the residual stream; dims of x without the feature axis.

    What capture's reducer `norms` recorded passes as it is. A feature that a layer does not have, in networks whose
    layers differ in width, counts for nothing.
    """
    dim = feature_dim(x)
    if dim is None:
        return x

    def length(v):  # sums in float64: squares overflow in float16
        return np.sqrt(np.einsum("...i,...i->...", v, v, dtype=np.float64))

    n = xr.apply_ufunc(length, x, input_core_dims=[[dim]])
    if "layer" in x.dims and n.isnull().any():
        absent = x.isnull().all([d for d in x.dims if d not in ("layer", dim)])
        absent &= ~absent.all(dim)  # else it lacks these tokens
        n = xr.apply_ufunc(length, x.where(~absent, 0), input_core_dims=[[dim]]) if absent.any() else n
    return n.rename("norm")


def norm_by_role(x: xr.DataArray) -> xr.DataArray:
    """mean_{t in role} ||x_t||_2, dims (layer, sample, role), in the units of the residual stream.

    NaN where a layer has no such token.

    The class and prompt curves of AlignedNorm's Figure 3(b) are the mean of this over samples.
    x: residual-stream tokens or their recorded norms.
    """
    n = token_norms(x)
    parts = [of_role(n, role).mean("token") for role in roles_of(x)]
    return by_role(parts, roles_of(x)).rename("norm")


def norm_of_mean(x: xr.DataArray) -> xr.DataArray:
    """||mean_{t in role} x_t||_2, dims (layer, sample, role): the prompt norm in AlignedNorm's token loss.

    In the units of the residual stream; at most `norm_by_role` and equal to it when the tokens agree.
    """
    if feature_dim(x) is None:
        raise ValueError(
            f"dims {x.dims} have no feature axis; the norm of a mean needs the tokens, "
            "not their norms (keep=mean('prompt') in capture is enough)"
        )
    parts = [token_norms(of_role(x, role).mean("token", skipna=True)) for role in roles_of(x)]
    return by_role(parts, roles_of(x)).rename("norm")


def norm_ratio(
    z_p: xr.Dataset | xr.DataArray | np.ndarray, z_c: xr.DataArray | np.ndarray | None = None
) -> xr.DataArray:
    """r(x) = ||z_p||_2 / ||z_c||_2, dims (sample,), no unit; 1 is perfect alignment (AlignedNorm, Section 3).

    Either the two un-normalised feature arrays (sample, joint), or one record with `image.final` that
    has the branches prompt and cls, or that variable itself.
    """
    if z_c is None:
        both = z_p["image.final"] if isinstance(z_p, xr.Dataset) else z_p
        there = both["branch"].values.tolist() if "branch" in getattr(both, "coords", {}) else []
        if not {"cls", "prompt"} <= set(there):
            raise ValueError(
                f"r(x) needs the branches cls and prompt, got {there or 'none'}: capture "
                "image.final of a method with a prompt branch, or pass both arrays"
            )
        z_p, z_c = both.sel(branch="prompt", drop=True), both.sel(branch="cls", drop=True)
    z_p, z_c = (
        z if isinstance(z, xr.DataArray) else xr.DataArray(np.asarray(z), dims=("sample", "joint"))
        for z in (z_p, z_c)
    )
    if z_p.shape != z_c.shape:
        raise ValueError(f"z_p has shape {z_p.shape}, z_c {z_c.shape}; the same samples are needed")
    length, below = token_norms(z_p), token_norms(z_c)
    if not (np.isfinite(length).all() and np.isfinite(below).all() and (below > 0).all()):
        lost = int((~(np.isfinite(length) & (below > 0) & np.isfinite(below))).sum())
        raise ValueError(
            f"r(x) is not defined for {lost} samples: a class feature of length 0, or NaN or infinity"
        )
    return (length / below).rename("r")


def effect_size(
    base: xr.DataArray | np.ndarray, new: xr.DataArray | np.ndarray, dim: str = "sample"
) -> xr.DataArray:
    """Cohen's d = (mean(new) - mean(base)) / s, s^2 the pooled variance; in standard deviations (Cohen 1988).

    Positive when new is larger. The sets may differ in size; other dims (layer) stay. Raises ValueError
    below two samples, and when no sample of either side differs from the others.
    """
    base, new = (
        x if isinstance(x, xr.DataArray) else xr.DataArray(np.asarray(x), dims=(dim,)) for x in (base, new)
    )
    n, m = base.sizes[dim], new.sizes[dim]
    if min(n, m) < 2:
        raise ValueError(f"an effect size needs two samples on each side, got {n} and {m}")
    pooled = ((n - 1) * base.var(dim, ddof=1) + (m - 1) * new.var(dim, ddof=1)) / (n + m - 2)
    if not (pooled > 0).any():
        raise ValueError("the samples of each side are all equal (or NaN), so their difference has no scale")
    return ((new.mean(dim) - base.mean(dim)) / np.sqrt(pooled.where(pooled > 0))).rename("d")
