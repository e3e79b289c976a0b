"""What measures share: finding the feature axis and the tokens of a role in a labelled array."""

import numpy as np
import xarray as xr

from ..token_labels import is_role, roles_of

FEATURES = ("feature", "head_feature", "neuron", "joint")


def feature_dim(x: xr.DataArray) -> str | None:
    """The name of the feature axis, None when the array has none (norms, attention)."""
    return next((d for d in FEATURES if d in x.dims), None)


def of_role(x: xr.DataArray, role: str, dim: str = "token") -> xr.DataArray:
    """The tokens (or queries) of a role. Where the role depends on the sample (text), the others are NaN.

    Raises ValueError when there are none.
    """
    mask = is_role(x, role, dim=dim)
    return x.isel({dim: np.flatnonzero(mask.values)}) if mask.ndim == 1 else x.where(mask)


def by_role(parts: list[xr.DataArray], roles: list[str]) -> xr.DataArray:
    """One array per role put side by side along a last axis `role`."""
    return xr.concat(parts, xr.DataArray(roles, dims="role", name="role")).transpose(..., "role")


def as_samples(x: xr.DataArray | np.ndarray) -> xr.DataArray:
    """(sample, feature) from a plain matrix; a labelled array passes with its feature axis called feature.

    Raises ValueError for other shapes, missing axes or NaN.
    """
    if not isinstance(x, xr.DataArray):
        x = np.asarray(x)
        if x.ndim != 2:
            raise ValueError(f"a plain array must be (sample, feature), got shape {x.shape}")
        x = xr.DataArray(x, dims=("sample", "feature"))
    dim = feature_dim(x)
    if dim is None or "sample" not in x.dims:
        raise ValueError(
            f"dims {x.dims} have no sample and feature axes; pass vectors such as record['image.final']"
        )
    if not np.isfinite(x.values).all():
        raise ValueError(
            "the vectors hold NaN or infinity: tokens that some layers do not have (choose a role or layers "
            "first), or an overflow"
        )
    return x.rename({dim: "feature"}) if dim != "feature" else x


def differ(z: np.ndarray) -> np.ndarray:
    """(...,) whether samples (..., sample, feature) differ by more than the rounding of float32."""
    z = np.asarray(z, np.float64)
    return np.ptp(z, axis=-2).max(axis=-1) > 1e-6 * np.abs(z).max(axis=(-1, -2))


def labels_of(x: xr.DataArray, labels: np.ndarray | None) -> np.ndarray:
    """(sample,) class numbers, given or from the coordinate `label`; ValueError when neither fits."""
    if labels is None:
        if "label" not in x.coords:
            raise ValueError("the vectors carry no label coordinate; pass labels=")
        labels = x["label"].values
    labels = np.asarray(labels)
    if labels.shape != (x.sizes["sample"],):
        raise ValueError(f"{x.sizes['sample']} samples need as many labels, got shape {labels.shape}")
    return labels


def per_set(function, x: xr.DataArray) -> xr.DataArray:
    """Apply (sample, feature) -> number to every other index of x (layers, branches, tokens)."""
    return xr.apply_ufunc(function, x, input_core_dims=[["sample", "feature"]], vectorize=True)


def held(v: np.ndarray) -> np.ndarray:
    """A layer (sample, ...) as (sample, feature), without features that it does not have: NaN in all samples."""
    v = v.reshape(len(v), -1)
    absent = np.isnan(v[0]) if v.size else np.zeros(0, bool)
    absent = absent & np.isnan(v).all(axis=0) if absent.any() else absent
    return v[:, ~absent] if absent.any() else v


def layers_by_samples(
    x: xr.DataArray, role: str | None = None, ragged: bool = False
) -> tuple[xr.DataArray, str | None]:
    """(layer, sample, feature), with heads (layer, sample, head, feature), of one role, and that role; None
    without a token axis.

    With tokens the mean over those of `role` is taken, by default cls, or eos in text. ragged: layers may lack
    features, which `held` leaves out. Raises ValueError for missing or further axes, and for NaN: layers that do not
    have such a token.
    """
    dim = feature_dim(x)
    if dim is None or "sample" not in x.dims or "layer" not in x.dims:
        raise ValueError(
            f"dims {x.dims}; this measure needs layer, sample and a feature axis, such as "
            "record['image.resid.post']"
        )
    if "token" in x.dims:
        there = roles_of(x)
        role = role or next((r for r in ("cls", "eos") if r in there), there[0])
        x = of_role(x, role).mean("token", skipna=True)
    extra = [d for d in x.dims if d not in ("layer", "sample", dim)]
    if wrong := [d for d in extra if d != "head"]:
        raise ValueError(
            f"this measure cannot tell what to do with the axis {wrong[0]!r}; choose one entry "
            f"of it, for example with x.isel({wrong[0]}=0)"
        )
    x = x.transpose("layer", "sample", *extra, dim)
    there = [held(layer) if ragged else layer for layer in x.values]
    empty = [not layer.size or not np.isfinite(layer).all() for layer in there]
    if any(empty):
        missing = layer_numbers(x)[empty].tolist()
        raise ValueError(
            f"layers {missing} hold NaN: they have no {role or 'such'} token (or feature, or numbers that overflowed); "
            "choose others with x.sel(layer=...)"
        )
    return x, role


def layer_numbers(x: xr.DataArray) -> np.ndarray:
    """The coordinate `layer`, or 1, 2, ... without one."""
    return x["layer"].values if "layer" in x.coords else np.arange(1, x.sizes["layer"] + 1)
