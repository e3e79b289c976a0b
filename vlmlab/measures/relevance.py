"""Where in an image a score comes from: four maps made of attention and its gradients, and what they fall on.

They take arrays (layer, sample, head, query, token), as `attn.probs` and the gradients that
`vlmlab.capture.attention_grads` records, and return (sample, token): the row of the query at
place `at`, the class token by default. Labelled arrays stay labelled. To use the last layers only, select them before:
`chefer(g["image.attn.probs"].sel(layer=[11, 12]), ...)`.
"""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

DIMS = ("layer", "sample", "head", "query", "token")


def rollout(probs, at: int = 0):
    """R = Ã_L ⋯ Ã_1 with Ã_l = (mean_h A_l + I) / 2, rows summing to 1; returns row `at` of R.

    Half of every block is taken to be the skip connection. No gradient: the same map for every score.
    A token that a block does not have yet stays itself. Abnar & Zuidema, "Quantifying Attention Flow in
    Transformers", ACL 2020, arXiv 2005.00928.
    """
    a = as_maps(probs).mean(axis=2)
    flow = a + np.eye(a.shape[-1], dtype=a.dtype)
    flow /= flow.sum(axis=-1, keepdims=True)
    row = flow[-1, :, at]
    for step in flow[-2::-1]:  # a row times a matrix, from the last block down
        row = np.einsum("sq,sqt->st", row, step)
    return like(row, probs)


def chefer(probs, grads, at: int = 0):
    """R = (I + Ā_L) ⋯ (I + Ā_1) with Ā_l = mean_h (∇A_l ⊙ A_l)⁺; returns row `at` of R.

    The recursion R ← R + Ā_l R from R = I, for self-attention. Chefer, Gur & Wolf, "Generic
    Attention-model Explainability", ICCV 2021, arXiv 2103.15679. The entry of the query itself
    holds the 1 of the identity.
    """
    a, g = both(probs, grads)
    steps = np.maximum(a * g, 0).mean(axis=2)
    row = np.zeros(steps.shape[1:3], steps.dtype)
    row[:, at] = 1
    for step in steps[::-1]:
        row = row + np.einsum("sq,sqt->st", row, step)
    return like(row, probs)


def legrad(grads):
    """mean over layers, heads and queries of (∂s_l / ∂A_l)⁺.

    s_l is the score read from the mean of all tokens behind block l: use `attention_grads(..., each_layer=True)`. With the gradients of
    the final score it is the same formula for another quantity. Bousselham et al., "LeGrad", ICCV 2025,
    arXiv 2404.03214. There the map is scaled to [0, 1] afterwards; here it is not.
    """
    g = in_order(grads)
    queries = (~np.isnan(g)).any(axis=(2, 4)).sum(axis=-1).astype(g.dtype)  # those a block has
    sums = np.maximum(np.nan_to_num(g), 0).sum(axis=3).mean(axis=2)
    return like((sums / queries[..., None]).mean(axis=0), grads)


def grad_times_attention(probs, grads, at: int = 0):
    """mean over layers and heads of (A ⊙ (∂s / ∂A)⁺), row `at`.

    The product of Grad-SAM: Barkan et al., "Grad-SAM: Explaining Transformers via Gradient Self-Attention
    Maps", CIKM 2021, arXiv 2204.11073, read at one query instead of summed over queries.
    """
    a, g = both(probs, grads)
    return like((a * np.maximum(g, 0))[..., at, :].mean(axis=(0, 2)), probs)


def region_shares(relevance: xr.DataArray, masks: np.ndarray) -> xr.DataArray:
    """Share of a map's relevance that lies in each region, (sample, region), 0 to 1.

    relevance: (sample, token) of at least 0, of patches alone, with the coordinates row and col of their grid (from 1
    or 0). masks: bool (sample, region, height, width), whose sides the grid divides; a patch counts for a region by
    the share of its pixels that are in it. A map of ones gives the regions' shares of the image, chance. Raises
    ValueError for a map without a positive number, other sides, or another number of samples.
    """
    rows, cols = (np.unique(relevance[c], return_inverse=True)[1] for c in ("row", "col"))
    (down, across), shape = (rows.max() + 1, cols.max() + 1), np.shape(masks)
    if len(shape) != 4 or shape[0] != relevance.sizes["sample"] or shape[2] % down or shape[3] % across:
        raise ValueError(
            f"masks of shape {shape} for {relevance.sizes['sample']} maps of {down} x {across} patches; expected "
            f"(sample, region, height, width) with multiples of {down} and {across}"
        )
    map_ = relevance.transpose("sample", "token").values.astype(float)
    if (map_ < 0).any() or not (map_.sum(1) > 0).all():
        raise ValueError("a map has a negative number, or no relevance at all; its shares are not defined")
    covered = np.asarray(masks, float).reshape(*shape[:2], down, shape[2] // down, across, shape[3] // across)
    covered = covered.mean(axis=(3, 5))[:, :, rows, cols]
    shares = np.einsum("st,srt->sr", map_, covered) / map_.sum(1, keepdims=True)
    return xr.DataArray(shares, dims=("sample", "region"), name="region_share")


def in_order(x) -> np.ndarray:
    """(layer, sample, head, query, token), NaN where a block has no such token."""
    labelled = isinstance(x, xr.DataArray)
    if labelled and set(x.dims) == set(DIMS):
        x = x.transpose(*DIMS)
    array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
    if array.ndim != 5 or array.shape[-1] != array.shape[-2] or (labelled and x.dims != DIMS):
        raise ValueError(
            f"attention of shape {array.shape}; expected (layer, sample, head, query, token) "
            "with all queries and tokens"
        )
    return array.astype(np.promote_types(array.dtype, np.float32), copy=False)


def as_maps(x) -> np.ndarray:
    """The same with 0 where a block has no such token."""
    return np.nan_to_num(in_order(x))


def both(probs, grads) -> tuple[np.ndarray, np.ndarray]:
    a, g = as_maps(probs), as_maps(grads)
    if a.shape != g.shape:
        raise ValueError(f"probabilities {a.shape} and gradients {g.shape} must be of the same shape")
    return a, g


def like(out: np.ndarray, x):
    """(sample, token), with the labels of a labelled input, a tensor for a tensor."""
    if isinstance(x, xr.DataArray):
        first = x.transpose(*DIMS).isel(layer=0, head=0, query=0, drop=True)
        return first.copy(data=out).rename("relevance")
    return torch.from_numpy(out).to(x.device) if isinstance(x, Tensor) else out
