"""The prompt field and how noise moves it (Ma et al., AlignedNorm, ICML 2026, Sections 4.1 and B).

z is a feature before L2 normalisation, f = z / ||z||; last axis joint (or another feature axis), the other
axes are free: samples, draws of the noise. For the keys of prompts, of which B.4 speaks, arrays are plain.
"""

import numpy as np
import xarray as xr

from .arrays import feature_dim, labels_of
from .norms import token_norms


def prompt_field(z_p: xr.DataArray, z_c: xr.DataArray, prompt_weight: float = 0.3) -> xr.DataArray:
    """u_f = a (f_p - f_c), Eq. (4): what the prompt branch adds to f_c; dims of z, no unit, at most 2a long.

    prompt_weight: a, the share of the prompt branch at fusion.
    """
    return (prompt_weight * (unit(z_p) - unit(z_c))).rename("field")


def field_agreement(field: xr.DataArray, shared: xr.DataArray | None = None) -> xr.DataArray:
    """cos(u(x), mean of u over samples of other classes), dims of `field` without joint, -1 to 1.

    1 for one field that all classes share, which is how AlignedNorm's Figure 1 draws it; this project's
    definition. shared: (sample, joint) of other classes than those of `field`, such as base for new; by
    default `field` itself without the class of x, as a class could agree with itself by being one. ValueError
    when these samples have no coordinate `label`.
    """
    dim, own = joint(field), shared is None
    shared = field if own else shared
    labels_of(shared, None)
    by_class = shared.groupby("label").sum()
    others = by_class.sum("label") - (by_class.sel(label=field["label"]) if own else 0)
    return ((field * others).sum(dim) / length(field) / length(others)).rename("agreement")


def field_bound(z_p: xr.DataArray, noise: xr.DataArray, prompt_weight: float = 0.3) -> xr.DataArray:
    """a^2 ||e||^2 / ||z_p||^2, the right side of Eq. (9) and (15) before the mean over e; dims without joint.

    The squared shift of the field, ||u_f(z_p + e) - u_f(z_p)||^2, is below it to first order in e. Exactly it
    is below 4 a^2 ||e||^2 / (||z_p|| + ||z_p + e||)^2 (Dunkl and Williams 1964), which is more where e
    makes the feature shorter.
    """
    return np.square(prompt_weight * length(noise) / length(z_p)).rename("field_bound")


def gradient_through_norm(g: xr.DataArray, z: xr.DataArray) -> xr.DataArray:
    """dL/dz = (I - f f^T) g / ||z|| with g = dL/df, Eq. (7); dims of g. It has no part along z."""
    dim, f = joint(z), unit(z)
    return ((g - (g * f).sum(dim) * f) / length(z)).rename("gradient")


def gradient_noise(gradient: xr.DataArray, dim: str = "draw") -> xr.DataArray:
    """E ||G - E G||^2 over `dim`, the left side of Eq. (8) for G = dL/dz; dims without `dim` and joint.

    ValueError below two draws, which have no noise.
    """
    if gradient.sizes.get(dim, 0) < 2:
        raise ValueError(f"noise is the spread over {dim!r}; dims {dict(gradient.sizes)} have fewer than two")
    return gradient.var(dim).sum(joint(gradient)).rename("noise")


def gradient_noise_bound(g: xr.DataArray, z: xr.DataArray, dim: str = "draw") -> xr.DataArray:
    """E [||xi||^2 / ||z||^2] with xi = g - E g, g = dL/df: the right side of Eq. (8).

    The paper derives it for z fixed while g is drawn. Where the draws (crops of one image) move z as well, it
    is no bound.
    """
    return np.square(length(g - g.mean(dim)) / length(z)).mean(dim).rename("noise_bound")


def key_gradient_bound(
    probs: np.ndarray, q: np.ndarray, v: np.ndarray, z: np.ndarray, grad_z: np.ndarray
) -> np.ndarray:
    """Largest possible ||dL/dk_t||, (..., head, token): Lemma 2, Eq. (21), summed over the queries.

    sum_i a_it ||q_i|| ||dL/dz_i|| (||v_t|| + ||z_i||) / sqrt(d). Plain arrays: probs a (..., query, token),
    the others (..., token, d); z is the output of attention, per head and before the output projection,
    grad_z the gradient of the loss with respect to it.
    """
    q_, v_, z_, g_ = (np.linalg.norm(x, axis=-1) for x in (q, v, z, grad_z))
    per_query = probs * (q_ * g_)[..., None] * (v_[..., None, :] + z_[..., None])
    return per_query.sum(axis=-2) / np.sqrt(q.shape[-1])


def attention_gate(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """exp(l_t - l_max), (..., query, token): attention lies between it and its N-th part (Lemma 1, Eq. 20).

    l = q k / sqrt(d), the largest over the N tokens. Plain arrays (..., token, d), without masks.
    """
    logits = q.astype(np.float64) @ np.swapaxes(k.astype(np.float64), -1, -2) / np.sqrt(q.shape[-1])
    return np.exp(logits - logits.max(axis=-1, keepdims=True))


def pair_cosines(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """cos(q_i, k_t), (..., query, token); of random directions their root mean square is 1 / sqrt(d) (Eq. 16)."""
    u, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    return u @ np.swapaxes(v, -1, -2)


def unit(z: xr.DataArray) -> xr.DataArray:
    """f = z / ||z||."""
    return z / length(z)


def length(z: xr.DataArray) -> xr.DataArray:
    """||z|| in float64; ValueError without a feature axis."""
    joint(z)
    return token_norms(z)


def joint(z: xr.DataArray) -> str:
    """The name of the feature axis; ValueError when there is none."""
    dim = feature_dim(z)
    if dim is None:
        raise ValueError(f"dims {z.dims} have no feature axis such as 'joint'; vectors are expected")
    return dim
