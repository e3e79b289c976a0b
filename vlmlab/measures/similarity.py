"""Similarity of representations, all layer pairs at once: CKA (linear, minibatch, RBF), SVCCA, RSA.

For more samples than fit in memory, or than Gram matrices are good for, see `RunningCKA`.
"""

import itertools
from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy.stats import rankdata
from sklearn.metrics import pairwise_distances

from .arrays import differ, held, layer_numbers, layers_by_samples


def cka(
    x: xr.DataArray, y: xr.DataArray | None = None, role: str | None = None, tile: int = 512
) -> xr.DataArray:
    """Linear CKA of every pair of layers, dims (layer, layer_other); 1 is equal up to rotation and scale.

    CKA_ij = HSIC(K_i, K_j) / sqrt(HSIC(K_i, K_i) HSIC(K_j, K_j)), K_i = X_i X_i^T (Kornblith et al. 2019),
    with the unbiased estimator of Song et al. (2012), K with a zero diagonal, n samples:
    HSIC(K, L) = [tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2 1'KL1 / (n-2)] / (n (n-3)).

    x: (layer, sample, feature), where layers may differ in width, or with a token axis, of which the mean over one
    role is taken: `role`, by default cls, or eos in text. y: layers of another model on the same samples; default x itself.
    tile: samples per tile; memory is layers * tile^2, the Gram matrices never exist as a whole.
    Attributes: n, role. Raises ValueError for fewer than 4 samples, NaN, or samples that do not match.
    """
    left, right, role = both_sides(x, y, role)
    hsic = tiled_hsic(stack_of(left, right), tile)
    return as_cka(hsic, left, right, "cka", role)


def minibatch_cka(
    x: xr.DataArray,
    y: xr.DataArray | None = None,
    role: str | None = None,
    batch: int = 256,
    seed: int | None = 0,
) -> xr.DataArray:
    """Linear CKA from the mean of the unbiased HSIC over batches (Nguyen et al. 2021), dims as `cka`.

    CKA_ij = mean_b HSIC_b(i, j) / sqrt(mean_b HSIC_b(i, i) mean_b HSIC_b(j, j)). With batches
    of 256 it is within 2e-3 of `cka`, takes a quarter of its time for 2,000 samples and a twelfth for 10,000
    (benchmarks/cka.py): for curves during training and a first look.

    Samples are shuffled by `seed`, all layers alike (None: in the order given). A last batch that is
    smaller would weigh as much as a full one, so it is left out. Attributes: n, role, batch, batches.
    """
    left, right, role = both_sides(x, y, role)
    n = left.shape[1]
    batch = min(batch, n)
    order = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    chosen = [order[start : start + batch] for start in range(0, n - batch + 1, batch)]
    raw = [held(v) for side in (left, right) if side is not None for v in side.values]
    # CKA sees neither origin nor scale: those of the first batch keep float32 accurate
    origins = [v[chosen[0]].mean(axis=0, dtype=np.result_type(v.dtype, np.float32)) for v in raw]
    scales = [float(np.abs(v[chosen[0]]).max()) or 1.0 for v in raw]

    def part(rows: np.ndarray) -> list[np.ndarray]:
        centred = [v[rows] - origin for v, origin in zip(raw, origins)]
        return [np.divide(z, s, out=z).astype(np.float32, copy=False) for z, s in zip(centred, scales)]

    hsic = np.mean([tiled_hsic(part(rows), batch) for rows in chosen], axis=0)
    return as_cka(hsic, left, right, "minibatch_cka", role).assign_attrs(batch=batch, batches=len(chosen))


def rbf_cka(
    x: xr.DataArray,
    y: xr.DataArray | None = None,
    role: str | None = None,
    width: float = 0.5,
    tile: int = 512,
) -> xr.DataArray:
    """CKA with a Gaussian kernel, K_ab = exp(-||x_a - x_b||^2 / (2 s^2)), dims and estimator as `cka`.

    s = width * median distance between the samples of that layer (Kornblith et al. 2019: 0.2, 0.4, 0.8; a
    large width comes near the linear form, a small one sees only close neighbours). The median is taken
    over at most 1,000 samples, evenly spaced. Invariant to rotation and isotropic scale.
    Attributes: n, role, width. Raises ValueError also when most samples of a layer are equal.
    """
    left, right, role = both_sides(x, y, role)
    stack = stack_of(left, right)
    spread = [2 * (width * median_distance(z)) ** 2 for z in stack]
    squares = [np.einsum("ij,ij->i", z, z) for z in stack]

    def gaussian(layer: int, gram: np.ndarray, rows: slice, columns: slice) -> None:
        gram *= -2
        gram += squares[layer][rows, None]
        gram += squares[layer][columns]
        np.maximum(gram, 0, out=gram)
        gram /= -np.float32(spread[layer])
        np.exp(gram, out=gram)
        gram -= np.float32(np.exp(-0.5 / width**2))  # HSIC does not see a constant, float32 does

    hsic = tiled_hsic(stack, tile, gaussian)
    return as_cka(hsic, left, right, "rbf_cka", role).assign_attrs(width=width)


def svcca(
    x: xr.DataArray, y: xr.DataArray | None = None, role: str | None = None, variance: float = 0.99
) -> xr.DataArray:
    """Mean canonical correlation of the main directions (Raghu et al. 2017), (layer, layer_other), 0 to 1.

    Each layer, centred, keeps the fewest singular directions with this share of its squared singular values;
    U_i: those left singular vectors. SVCCA_ij = mean of the singular values of U_i^T U_j, over the smaller
    number kept. Attributes: n, role, variance, kept and kept_other (directions per layer): with kept sums
    near n the value is high for unrelated layers too. Raises ValueError when a layer keeps n - 1 directions,
    where everything correlates perfectly.
    """
    left, right, role = both_sides(x, y, role)

    def main(z: np.ndarray) -> np.ndarray:
        z = z.astype(np.float64)
        u, s, _ = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
        share = np.cumsum(s**2) / max((s**2).sum(), 1e-300)
        kept = min(int(np.searchsorted(share, variance)) + 1, int((s > s[0] * 1e-6).sum()))
        if kept == 0:
            raise ValueError("a layer is the same for all samples, so it has no directions")
        if kept >= len(z) - 1:
            raise ValueError(
                f"{kept} directions kept of {len(z)} samples, so all layers would score 1; give "
                "more samples or a lower variance"
            )
        return u[:, :kept]

    ours = [main(normalised(left, i)) for i in range(len(left))]
    theirs = ours if right is None else [main(normalised(right, i)) for i in range(len(right))]
    values = [[np.linalg.svd(a.T @ b, compute_uv=False).clip(0, 1).mean() for b in theirs] for a in ours]
    kept = {"kept": [u.shape[1] for u in ours], "kept_other": [u.shape[1] for u in theirs]}
    return labelled(np.array(values), left, right, "svcca", role).assign_attrs(variance=variance, **kept)


def rsa(
    x: xr.DataArray, y: xr.DataArray | None = None, role: str | None = None, metric: str = "correlation"
) -> xr.DataArray:
    """Representational similarity (Kriegeskorte et al. 2008), dims (layer, layer_other), -1 to 1.

    Spearman correlation of the layers' dissimilarities d_ab over all pairs of samples a < b; d is 1 minus the
    Pearson correlation of two samples' features, or "cosine" or "euclidean" distance, which do not change
    under rotation. Memory: layers * n^2 / 2 ranks of 8 bytes. Attributes: n, role, metric.
    """
    if metric not in ("correlation", "cosine", "euclidean"):
        raise ValueError(f"metric {metric!r} is not one of correlation, cosine, euclidean")
    left, right, role = both_sides(x, y, role)
    pairs = np.triu_indices(left.shape[1], 1)

    def ranks(z: np.ndarray) -> np.ndarray:
        z = z.astype(np.float64)
        if metric == "correlation":
            z = z - z.mean(axis=1, keepdims=True)
        if metric != "euclidean" and not np.linalg.norm(z, axis=1).all():
            raise ValueError(f"some samples have constant features; their {metric} is not defined")
        return rankdata(pairwise_distances(z, metric=metric.replace("correlation", "cosine"))[pairs])

    raw = [held(z) for side in (left, right) if side is not None for z in side.values]
    found = [ranks(z) for z in raw]
    if not all(np.ptp(r) > 0 for r in found):
        raise ValueError(
            f"all pairs of {left.shape[1]} samples are equally far in a layer: there is no order to compare"
        )
    values = np.atleast_2d(np.corrcoef(found))
    if right is not None:
        values = values[: len(left), len(left) :]
    return labelled(values, left, right, "rsa", role).assign_attrs(metric=metric)


def both_sides(x: xr.DataArray, y: xr.DataArray | None, role: str | None):
    """x and y as (layer, sample, ..., feature), y may be None, and the role; ValueError when n differs."""
    left, role = layers_by_samples(x, role, ragged=True)
    right = None if y is None else layers_by_samples(y, role, ragged=True)[0]
    if right is not None and right.shape[1] != left.shape[1]:
        raise ValueError(f"{left.shape[1]} and {right.shape[1]} samples; the same samples are compared")
    for side in filter(lambda side: side is not None, (left, right)):
        check_layers(side)
    return left, right, role


def check_layers(x: xr.DataArray) -> None:
    """ValueError names the layers in which all samples are equal: no similarity is defined there."""
    same = [not differ(held(v)) for v in x.values]
    if any(same):
        raise ValueError(
            f"layers {layer_numbers(x)[same].tolist()} are the same for all {x.shape[1]} samples, as is a class token "
            "before the first block has seen the image; choose others with x.sel(layer=...)"
        )


def stack_of(*sides: xr.DataArray | None) -> list[np.ndarray]:
    """All layers of both sides, normalised."""
    return [normalised(side, i) for side in sides if side is not None for i in range(len(side))]


def as_cka(
    hsic: np.ndarray, left: xr.DataArray, right: xr.DataArray | None, name: str, role: str | None
) -> xr.DataArray:
    """CKA of the pairs (left, right) from the HSIC of all matrices, left ones first."""
    with np.errstate(invalid="ignore"):  # an unbiased self-similarity may be negative: pure noise, CKA is NaN
        size = np.sqrt(np.diag(hsic))
        values = hsic / size[:, None] / size
    values = values if right is None else values[: len(left), len(left) :]
    return labelled(values, left, right, name, role)


def labelled(
    values: np.ndarray, left: xr.DataArray, right: xr.DataArray | None, name: str, role: str | None
) -> xr.DataArray:
    """(layer, layer_other) with the layer numbers of both sides."""
    coords = {"layer": layer_numbers(left), "layer_other": layer_numbers(left if right is None else right)}
    return xr.DataArray(
        values, coords, ("layer", "layer_other"), name, {"n": left.sizes["sample"], "role": role or ""}
    )


def normalised(x: xr.DataArray, layer: int) -> np.ndarray:
    """One layer as (sample, feature) float32, centred and of mean squared norm 1: the same CKA.

    Without the common mean, float32 keeps what tells samples apart; float64 input is centred in float64.
    """
    v = held(x.values[layer])
    mean = v.mean(axis=0, dtype=np.result_type(v.dtype, np.float32))
    z = np.subtract(v, mean, out=np.empty(v.shape, np.float32), casting="same_kind")
    z *= np.float32(1 / max(np.linalg.norm(z) / np.sqrt(len(z)), 1e-30))
    return z


def median_distance(z: np.ndarray) -> float:
    """Median distance of distinct samples, on at most 1,000 of them."""
    some = z[np.linspace(0, len(z) - 1, min(len(z), 1000)).astype(int)]
    square = np.median(pairwise_distances(some, metric="sqeuclidean")[np.triu_indices(len(some), 1)])
    if not square > 1e-6:  # the mean squared norm is 1; below is float32 noise
        raise ValueError("most samples of a layer are equal, so a Gaussian kernel has no width")
    return float(np.sqrt(square))


def tiled_hsic(stack: list[np.ndarray], tile: int, kernel: Callable | None = None) -> np.ndarray:
    """Unbiased HSIC of all pairs of (sample, feature) matrices, (matrix, matrix), float64.

    Walks the upper triangle of the kernel matrices in tiles, all layers at once, and keeps only the
    products of tiles and one row sum per layer and sample. kernel(layer, gram, rows, columns) changes a tile
    of X X^T in place; default linear.
    """
    n, layers = len(stack[0]), len(stack)
    if n < 4:
        raise ValueError(f"unbiased HSIC needs at least 4 samples, got {n}")
    kind = stack[0].dtype
    edges = np.linspace(0, n, -(-n // tile) + 1).astype(int)  # equal tiles: BLAS is slow on narrow ones
    longest = int(np.diff(edges).max())
    room, ones = np.empty(layers * longest**2, kind), np.ones(longest, kind)
    products, row_sums = np.zeros((layers, layers)), np.zeros((layers, n))
    tiles = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
    for rows, columns in itertools.combinations_with_replacement(tiles, 2):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        block = room[: layers * height * width].reshape(layers, height, width)
        for layer, z in enumerate(stack):
            np.matmul(z[rows], z[columns].T, out=block[layer])  # on the diagonal BLAS does one half only
            if kernel:
                kernel(layer, block[layer], rows, columns)
        if rows is columns:
            block[:, np.arange(height), np.arange(height)] = 0
        else:
            row_sums[:, columns] += ones[:height] @ block
        row_sums[:, rows] += block @ ones[:width]
        flat = block.reshape(layers, -1)
        products += (1 if rows is columns else 2) * (flat @ flat.T)
    return unbiased_hsic(products, row_sums.sum(axis=1), row_sums @ row_sums.T, n)


def unbiased_hsic(products: np.ndarray, totals: np.ndarray, row_products: np.ndarray, n: int) -> np.ndarray:
    """Song et al. (2012) from tr(KL) and 1'KL1, both (matrix, matrix), and 1'K1 (matrix,); zero diagonals."""
    return (products + np.outer(totals, totals) / ((n - 1) * (n - 2)) - 2 / (n - 2) * row_products) / (
        n * (n - 3)
    )
