"""What alignednorm measures of two branches that are trained together: the prompt field of single images, and what the
keys of prompts get of attention and of gradient.

run: trained with a method that has a class branch and a prompt branch (MMRL++, AlignedNorm).
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import xarray as xr

from ... import measures
from ...capturing.attention_tap import attention_tap
from ...capturing.capture import capture

FINAL = "image.final"


def frozen(model, images, limit: int) -> xr.DataArray:
    """(sample, joint) unit class features of the model that nobody adapted."""
    z = capture(model, images, FINAL, limit=limit, progress=False)[FINAL]
    return (z / measures.token_norms(z)).sel(branch="cls", drop=True)


def field(run, images, limit: int, anchor: xr.DataArray, base: xr.DataArray | None = None):
    """(table, f_c, u) of some images: the unit class features and u_f(x) of Eq. (4), both (sample, joint); a row per image with
    the length of u, its cosine with the mean field of other classes (of `base`, else of its own), the cosine of f_c with `anchor`,
    and by how much of its length u changes where r(x) is doubled by hand."""
    z = capture(run.model, images, FINAL, limit=limit, progress=False)[FINAL]
    z_c, z_p = (z.sel(branch=branch, drop=True) for branch in ("cls", "prompt"))
    weight = run.model.config.prompt_weight
    u = measures.prompt_field(z_p, z_c, weight)
    f_c = z_c / measures.token_norms(z_c)
    moved = measures.prompt_field(2 * z_p, z_c, weight) - u
    found = {
        "norm": measures.token_norms(u).values,
        "cosine": measures.field_agreement(u, base).values,
        "anchor": (f_c * anchor).sum("joint").values,
        "doubled": (measures.token_norms(moved) / measures.token_norms(u)).values,
        "concept": [images.concept(id) for id in u["id"].values],
    }
    return pd.DataFrame(found), f_c, u


def plane(base: xr.DataArray, *others: xr.DataArray) -> xr.DataArray:
    """Two unit vectors (axis, joint): the mean base field, and where all fields together vary most at a right angle to it."""
    first = base.values.mean(0) / np.linalg.norm(base.values.mean(0))
    both = np.concatenate([u.values for u in (base, *others)])
    rest = both - both.mean(0)
    rest = rest - np.outer(rest @ first, first)
    second = np.linalg.svd(rest, full_matrices=False)[2][0]
    return xr.DataArray(np.stack([first, second]), dims=("axis", "joint"))


def prompt_keys(run, images: torch.Tensor, labels: torch.Tensor) -> pd.DataFrame:
    """A row for each block with prompts and each head, means over images (image, 3, height, width): attention on prompts and its
    bounds (Lemma 1), the norm of the gradient of the cross-entropy with respect to prompt keys and its bound (Lemma 2, Eq. 21), the
    cosine of queries with prompt keys (root mean square) and that of random directions, an even share, r(x)."""
    method, calls = run.model, []
    config = method.config
    with attention_tap(calls.append, gradient=True):
        z = method.encode_image(images)
    calls = calls[config.first_block - method.vlm.image.depth - 1 :]
    branches = method.branch_logits(z, method.class_features().detach())
    loss = sum(
        weight * F.cross_entropy(logits, labels, reduction="sum")
        for weight, logits in zip((1 - config.prompt_weight, config.prompt_weight), branches)
    )
    grads = torch.autograd.grad(loss, [t for call in calls for t in (call.k, call.z)])
    r = (z["prompt"].norm(dim=-1) / z["cls"].norm(dim=-1)).mean().item()
    rows = []
    for block, (call, *of) in enumerate(zip(calls, grads[::2], grads[1::2]), start=config.first_block):
        found = heads(call, *of, config.tokens)
        rows.append(found.assign(block=block, r=r))
    return pd.concat(rows, ignore_index=True)


def heads(call, of_k: torch.Tensor, of_z: torch.Tensor, count: int) -> pd.DataFrame:
    """A row for each head of one block, whose tokens 1 to `count` are prompts."""
    n = call.k.shape[-2]
    at, others = slice(1, 1 + count), [0, *range(1 + count, n)]
    probs, q, k, v, z, of_z = (
        x.detach().cpu().numpy() for x in (call.probs, call.q, call.k, call.v, call.z, of_z)
    )
    gate, cosines = (
        f(q, k)[..., others, :][..., at] for f in (measures.attention_gate, measures.pair_cosines)
    )
    found = {
        "attention": probs[..., others, at].sum(-1).mean(-1),
        "key_gradient": of_k[..., at, :].norm(dim=-1).mean(dim=-1).cpu().numpy(),
        "bound": measures.key_gradient_bound(probs, q, v, z, of_z)[..., at].mean(-1),
        "gated": gate.sum(-1).mean(-1),
        "cosine": np.sqrt((cosines**2).mean((-2, -1))),
    }
    means = pd.DataFrame({name: x.mean(0) for name, x in found.items()}).rename_axis("head")
    limits = {"gated_over_n": means["gated"] / n, "even": count / n, "random_cosine": q.shape[-1] ** -0.5}
    return means.assign(**limits).reset_index()
