"""Where attention goes. All take `attn.probs` as capture records it: (layer, sample, head, query, token)."""

import numpy as np
import xarray as xr

from ..token_labels import roles_of
from .arrays import by_role, of_role
from .norms import norm_by_role, token_norms


def mass(probs: xr.DataArray, query: str | None = None) -> xr.DataArray:
    """Share of attention that each role receives, dims (layer, sample, head, role); roles sum to 1.

    mass_R = mean_{q} sum_{t in R} p_qt over all queries, or only those of role `query`: mass(p, "cls") is
    what the class token spends on patches, prompts and itself, as Clark et al. (2019) count for the special
    tokens of BERT. What `cls_row` kept has just that query.
    """
    if "query" in probs.dims:
        probs = probs if query is None else of_role(probs, query, dim="query")
    elif query is not None:
        raise ValueError(f"dims {probs.dims} have no query axis; capture chose the row, leave query out")
    there = roles_of(probs)
    parts = [of_role(probs, role).sum("token", min_count=1) for role in there]
    received = by_role(parts, there)
    return (received.mean("query") if "query" in received.dims else received).rename("mass")


def entropy(probs: xr.DataArray) -> xr.DataArray:
    """H_q = - sum_t p_qt ln p_qt in nats, dims of probs without token; from 0 to ln(tokens).

    Low: the head looks at few tokens (Clark et al. 2019). NaN for queries that a layer does not have.
    """
    p = probs.astype(np.float64)
    terms = xr.where(p > 0, p * np.log(p.where(p > 0, 1)), p)  # 0 ln 0 = 0, NaN stays NaN
    return (-terms.sum("token", min_count=1)).rename("entropy")


def row_sum_error(probs: xr.DataArray) -> xr.DataArray:
    """max |1 - sum_t p_qt| over samples, heads and queries that exist, dims (layer,), no unit.

    A check of the record: near 1e-7 in float32, 1e-3 in float16.
    """
    error = np.abs(probs.astype(np.float64).sum("token", min_count=1) - 1)
    return error.max([d for d in error.dims if d != "layer"]).rename("row_sum_error")


def distance(probs: xr.DataArray) -> xr.DataArray:
    """Mean distance of patches from the patches they attend to, dims (layer, sample, head), in patches.

    D = mean_q sum_t p_qt |xy_q - xy_t| / sum_t p_qt over patches q, t; xy: (row, column) on the grid
    (Dosovitskiy et al. 2021, Figure 7). Attention to other tokens has no distance and is left out.
    0 looks at itself only; times the patch size it is in pixels.
    Raises ValueError without query axis or grid.
    """
    if "query" not in probs.dims:
        raise ValueError(f"dims {probs.dims} have no query axis; keep all rows in capture (keep=None)")
    p = of_role(of_role(probs, "patch"), "patch", dim="query")
    if not {"row", "col", "query_row", "query_col"} <= set(p.coords):
        raise ValueError("the patches have no row and col; they do not form a square grid")
    far = np.hypot(p["query_row"] - p["row"], p["query_col"] - p["col"])
    far = far.drop_vars(list(far.coords))
    p = p.drop_vars([c for c in p.coords if c not in ("layer", "sample", "head")])
    share = p.sum("token", min_count=1)
    moved = xr.dot(p.fillna(0), far, dim="token")
    return (moved / share.where(share > 0)).mean("query").rename("distance")


def head_similarity(probs: xr.DataArray) -> xr.DataArray:
    """Mean cosine of the attention rows of two heads, dims (layer, head, head_other), 0 to 1.

    S_gh = mean over samples and queries of <p_g, p_h> / (||p_g|| ||p_h||): the cosine of DeepViT (Zhou et al.
    2021) between heads instead of layers. 1: the heads look at the same tokens; the diagonal is 1.
    """
    p = probs.astype(np.float64)
    p = p / np.sqrt(np.square(p).sum("token", min_count=1))
    there = p.notnull().any("token")
    other = p.fillna(0).rename(head="head_other")
    cosine = xr.dot(p.fillna(0), other, dim="token").where(there)
    over = [d for d in cosine.dims if d not in ("layer", "head", "head_other")]
    return cosine.mean(over).transpose("layer", "head", "head_other").rename("head_similarity")


def coupling(probs: xr.DataArray, a: str = "prompt", b: str = "patch") -> xr.DataArray:
    """Attention that two roles spend on each other, dims (layer, sample, head, direction), 0 to 1.

    C_{a>b} = mean_{q in a} sum_{t in b} p_qt, "prompt>patch" is what prompts read from the image,
    "patch>prompt" what the image reads from prompts; an off-diagonal block of `mass`, this project's
    definition. Compare with |b| / tokens, which is uniform attention. NaN where a layer lacks a role.
    """
    parts = [mass(probs, one).sel(role=two, drop=True) for one, two in ((a, b), (b, a))]
    directions = xr.DataArray([f"{a}>{b}", f"{b}>{a}"], dims="direction", name="direction")
    return xr.concat(parts, directions).transpose(..., "direction").rename("coupling")


def key_norms(k: xr.DataArray) -> xr.DataArray:
    """mean_{t in role} ||k_t||_2 per head, dims (layer, sample, head, role), in the units of the keys.

    k: `attn.k`, (layer, sample, head, token, head_feature). In a pre-LN block k = W LN(x) + b, and
    LN(c x) = LN(x): the length of a token in the residual stream cannot reach its key. So a long prompt draws
    attention only if its key is long or points at the query; put `norm_by_role` of `resid.pre` beside this
    and `key_cosines`.
    """
    if "head" not in k.dims:
        raise ValueError(f"dims {k.dims} have no head; keys are record['image.attn.k']")
    return norm_by_role(k).rename("key_norm")


def key_cosines(q: xr.DataArray, k: xr.DataArray, query: str = "cls") -> xr.DataArray:
    """mean_{i in query} mean_{t in role} cos(q_i, k_t), dims (layer, sample, head, role), -1 to 1.

    The direction part of the attention logit q_i k_t / sqrt(d) = ||q_i|| ||k_t|| cos / sqrt(d); no unit
    (Vaswani et al. 2017).
    q, k: `attn.q`, `attn.k` of one record; query: the role that looks. The mean of cosines of all pairs is
    the product of the mean unit vectors, so no (query, token) array is made.
    """
    return products(unit_tokens(q), unit_tokens(k), query).rename("key_cosine")


def key_logits(q: xr.DataArray, k: xr.DataArray, query: str = "cls") -> xr.DataArray:
    """mean_{i in query} mean_{t in role} q_i k_t / sqrt(d), dims (layer, sample, head, role), in nats.

    d: features of a head (Vaswani et al. 2017). Softmax sees differences only: role R draws exp(difference)
    times the attention per token. Arguments as `key_cosines`. Masks are not looked at: in a causal text tower
    eos has a logit for pad too, but never attends to it.
    """
    scale = np.sqrt(k.sizes.get("head_feature", 1))
    return (products(q.astype(np.float64), k.astype(np.float64), query) / scale).rename("key_logit")


def products(q: xr.DataArray, k: xr.DataArray, query: str) -> xr.DataArray:
    """<mean of the queries of a role, mean of the keys of each role> over head_feature."""
    for name, x in (("q", q), ("k", k)):
        if not {"head", "token", "head_feature"} <= set(x.dims):
            raise ValueError(
                f"{name} has dims {x.dims}; expected attn.{name} with head, token and head_feature"
            )
    looks = of_role(q, query).mean("token")
    there = roles_of(k)
    parts = [(looks * of_role(k, role).mean("token")).sum("head_feature", skipna=False) for role in there]
    return by_role(parts, there)


def unit_tokens(x: xr.DataArray) -> xr.DataArray:
    """Vectors of length 1 along head_feature; NaN for those of length 0."""
    length = token_norms(x)
    return x / length.where(length > 0)
