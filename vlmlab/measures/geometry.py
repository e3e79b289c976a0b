"""Geometry of feature sets: how spread, how clustered, and a map of them."""

import importlib.util

import numpy as np
import xarray as xr
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from .arrays import as_samples, differ, labels_of, per_set

Vectors = xr.DataArray | np.ndarray
BARNES_HUT_POINTS = 5000  # where openTSNE begins to pay


def unit(z: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64."""
    z = z.astype(np.float64)
    length = np.linalg.norm(z, axis=-1, keepdims=True)
    if not (length > 0).all():
        raise ValueError(f"{int((length == 0).sum())} vectors are zero and have no direction")
    return z / length


def uniformity(x: Vectors, t: float = 2.0) -> xr.DataArray:
    """U = ln mean_{i<j} exp(-t ||z_i - z_j||^2), z on the unit sphere (Wang & Isola 2020); in nats.

    At most 0, which means all vectors equal; at least -4t. Lower is more uniform. t = 2 is usual;
    AlignedNorm's Eq. (13) has t = 0.01, where the value lies in [-0.04, 0].
    """

    def one(z):
        z = unit(z)
        pairs = np.triu_indices(len(z), 1)
        exponent = -t * np.clip(2 - 2 * (z @ z.T)[pairs], 0, 4)
        top = exponent.max()
        return top + np.log(np.exp(exponent - top).mean())

    out = per_set(one, at_least(as_samples(x), 2)).rename("uniformity")
    return out.assign_attrs(t=t)


def with_same_class(x: Vectors, labels: np.ndarray | None) -> tuple[xr.DataArray, np.ndarray]:
    """The vectors and a (sample, sample) mask of the pairs i < j of one class."""
    x = at_least(as_samples(x), 2)
    labels = labels_of(x, labels)
    upper = np.triu(np.ones((len(labels),) * 2, bool), 1)
    return x, upper & (labels[:, None] == labels)


def tolerance_same_class(x: Vectors, labels: np.ndarray | None = None) -> xr.DataArray:
    """T = mean of cos(z_i, z_j) over pairs i < j of the same class, -1 to 1.

    What the sentences of Wang & Liu (2021) and AlignedNorm describe; it does not depend on the number of
    classes. labels: default the coordinate `label`.
    """
    x, same = with_same_class(x, labels)
    if not same.any():
        raise ValueError("no two samples share a class, so there is no pair to average")
    return per_set(lambda z: (unit(z) @ unit(z).T)[same].mean(), x).rename("tolerance_same_class")


def tolerance_all_pairs(x: Vectors, labels: np.ndarray | None = None) -> xr.DataArray:
    """T = mean over all pairs i < j of 1(y_i = y_j) cos(z_i, z_j) (AlignedNorm's Eq. 14, read literally).

    -1 to 1, no unit. The other reading times the share of same-class pairs: with k balanced classes about 1/k
    of it.
    """
    x, same = with_same_class(x, labels)
    pairs = len(same) * (len(same) - 1) / 2
    return per_set(lambda z: (unit(z) @ unit(z).T)[same].sum() / pairs, x).rename("tolerance_all_pairs")


def alignment(x: Vectors, y: Vectors, alpha: float = 2.0) -> xr.DataArray:
    """A = mean_i ||z_i - z'_i||^alpha of matching unit vectors (Wang & Isola 2020), 0 (best) to 2^alpha.

    x, y: the two views, for example image features and the text features of their classes.
    """
    x, y = as_samples(x), as_samples(y)
    if x.sizes != y.sizes:
        raise ValueError(f"the two sets must match, got {dict(x.sizes)} and {dict(y.sizes)}")

    def one(a, b):
        return (np.linalg.norm(unit(a) - unit(b), axis=1) ** alpha).mean()

    found = xr.apply_ufunc(one, x, y, input_core_dims=[["sample", "feature"]] * 2, vectorize=True)
    return found.rename("alignment").assign_attrs(alpha=alpha)


def pca(x: Vectors, fit: Vectors | None = None, components: int = 2) -> xr.DataArray:
    """Principal components (sample, axis) of vectors, in their unit: y = (x - mean) V (Pearson 1901).

    fit: the set whose mean and directions of largest variance are taken, by default x itself; several sets
    on one map need the same. Unlike on the maps of `tsne` and `umap`, distances and arrows keep their
    meaning: they are projections. Signs are arbitrary but fixed. Coordinates of the samples stay.
    Attributes: share, that of the variance of `fit` along each axis, and n. ValueError for several sets.
    """
    x, z = one_set(x)
    base = z if fit is None else one_set(fit)[1]
    if not 1 <= components <= min(base.shape) or base.shape[1] != z.shape[1]:
        raise ValueError(
            f"components={components} of {base.shape[0]} vectors of {base.shape[1]} features (for vectors of "
            f"{z.shape[1]}): it must be 1 to the smaller of both"
        )
    check_spread(base, "principal components")
    found = PCA(components).fit(base)
    coords = {k: v for k, v in x.coords.items() if v.dims == ("sample",)}
    return xr.DataArray(
        found.transform(z),
        coords,
        ("sample", "axis"),
        "pca",
        {"share": found.explained_variance_ratio_.tolist(), "n": len(z)},
    )


def tsne(x: Vectors, perplexity: float = 30.0, seed: int = 0, components: int = 50) -> xr.DataArray:
    """t-SNE map (sample, axis) of one set (van der Maaten & Hinton 2008), no unit.

    p_ij: Gaussian neighbourhoods of the given perplexity in feature space, q_ij ~ 1 / (1 + ||y_i - y_j||^2)
    on the map; the map minimises sum p ln(p / q). Only neighbourhoods mean something, not distances or the
    size of a cluster. First PCA to `components`, then scikit-learn's Barnes-Hut from a PCA start; above 5,000
    samples openTSNE where it is installed (`pip install openTSNE`), which is over twice as fast there.
    Coordinates of the samples stay. ValueError for equal vectors, fewer than 3, or no perplexity between 0 and
    their number.
    Attributes: method, seed, perplexity, components, n, and trust, the share of kept neighbourhoods
    (scikit-learn's trustworthiness with 15 neighbours, on at most 2,000 points; fewer neighbours in tiny
    sets). Print them under the picture.
    """
    x, z = one_set(x)
    if not 0 < perplexity < len(z):
        raise ValueError(f"perplexity {perplexity} must be above 0 and below the number of samples, {len(z)}")
    check_map(z, components)
    method, reduced = "scikit-learn", reduce(z, components, seed)
    if len(z) > BARNES_HUT_POINTS and importlib.util.find_spec("openTSNE"):
        import openTSNE

        method = "openTSNE"
        places = openTSNE.TSNE(perplexity=perplexity, initialization="pca", random_state=seed).fit(reduced)
    else:
        places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return as_map("tsne", x, z, np.asarray(places), seed).assign_attrs(
        method=method, perplexity=perplexity, components=reduced.shape[1]
    )


def umap(
    x: Vectors, neighbours: int = 15, min_dist: float = 0.1, seed: int = 0, components: int = 50
) -> xr.DataArray:
    """UMAP map (sample, axis) of one set (McInnes, Healy & Melville 2018), no unit.

    The fuzzy graph of each sample's nearest `neighbours`, laid out by cross-entropy; min_dist: how close two
    points of the map may come. As with `tsne`, distances between clusters mean little. First PCA to
    `components`, then umap-learn, which is not installed by default: `pip install umap-learn`.
    Attributes: seed, neighbours, min_dist, components, n, and trust as in `tsne`.
    Raises ImportError with that command, ValueError for too few samples.
    """
    x, z = one_set(x)
    if not 1 < neighbours < len(z):
        raise ValueError(f"neighbours={neighbours} must be above 1 and below the number of samples, {len(z)}")
    check_map(z, components)
    if not importlib.util.find_spec("umap"):
        raise ImportError(
            "UMAP needs the package umap-learn, which is not installed; run "
            '`pip install "umap-learn>=0.5.12"`, or use tsne'
        )
    from umap import UMAP

    reduced = reduce(z, components, seed)
    places = UMAP(n_neighbors=neighbours, min_dist=min_dist, random_state=seed, n_jobs=1).fit_transform(
        reduced
    )  # a seed means one thread
    return as_map("umap", x, z, places, seed).assign_attrs(
        neighbours=neighbours, min_dist=min_dist, components=reduced.shape[1]
    )


def one_set(x: Vectors) -> tuple[xr.DataArray, np.ndarray]:
    """The labelled vectors and (sample, feature) float64; ValueError when there are several sets."""
    x = as_samples(x)
    if x.ndim != 2:
        raise ValueError(f"a map is of one set; choose layer, branch or token first (dims {x.dims})")
    return x, x.transpose("sample", "feature").values.astype(np.float64)


def check_spread(z: np.ndarray, what: str) -> None:
    """ValueError when vectors (sample, feature) are all the same: there is no direction in which they differ."""
    if not differ(z):
        raise ValueError(
            f"the {len(z)} vectors are all equal, as is a class token before the first block has seen the image; "
            f"there are no {what}: choose another layer or token"
        )


def check_map(z: np.ndarray, components: int) -> None:
    """ValueError when vectors (sample, feature) have no map of two axes."""
    if len(z) < 3 or z.shape[1] < 2 or components < 2:
        raise ValueError(
            f"a map needs 3 vectors and 2 features and components at least, got {z.shape} and "
            f"components={components}"
        )
    check_spread(z, "neighbourhoods to map")


def reduce(z: np.ndarray, components: int, seed: int) -> np.ndarray:
    """The main directions of (sample, feature): quicker, and nearly the same neighbours."""
    return PCA(min(components, *z.shape), random_state=seed).fit_transform(z)


def as_map(name: str, x: xr.DataArray, z: np.ndarray, places: np.ndarray, seed: int) -> xr.DataArray:
    """(sample, axis) with the coordinates of the samples and how far its neighbourhoods can be trusted."""
    some = np.random.default_rng(seed).permutation(len(z))[:2000]
    trust = trustworthiness(z[some], places[some], n_neighbors=min(15, (len(some) - 1) // 2))
    coords = {k: v for k, v in x.coords.items() if v.dims == ("sample",)}
    return xr.DataArray(
        places, coords, ("sample", "axis"), name, {"seed": seed, "n": len(z), "trust": float(trust)}
    )


def silhouette(x: Vectors, labels: np.ndarray | None = None) -> xr.DataArray:
    """Mean of (b - a) / max(a, b) with cosine distance, -1 to 1; 1 is well separated (Rousseeuw 1987).

    a: mean distance to the own class, b: to the nearest other class.
    """
    x = at_least(as_samples(x), 3)
    labels = labels_of(x, labels)
    if not 2 <= len(np.unique(labels)) < len(labels):
        raise ValueError(
            f"{len(labels)} samples of {len(np.unique(labels))} classes; a silhouette needs two classes and one of "
            "more than one sample"
        )
    return per_set(lambda z: silhouette_score(z, labels, metric="cosine"), x).rename("silhouette")


def knn_accuracy(x: Vectors, labels: np.ndarray | None = None, k: int = 5) -> xr.DataArray:
    """Share of samples whose k nearest others vote for their class, leave one out; 0 to 1.

    mean_i 1(argmax_c #{j in near_i: y_j = c} = y_i), near by cosine; votes count alike, unlike in
    the weighted evaluation of Wu et al. (2018).
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1")
    x = at_least(as_samples(x), k + 1)
    labels = labels_of(x, labels)

    classes, number = np.unique(labels, return_inverse=True)

    def one(z):
        near = NearestNeighbors(n_neighbors=k, metric="cosine").fit(z).kneighbors(return_distance=False)
        votes = (number[near][:, :, None] == np.arange(len(classes))).sum(axis=1)
        return (votes.argmax(axis=1) == number).mean()  # a tie goes to the first class

    return per_set(one, x).rename("knn_accuracy").assign_attrs(k=k)


def at_least(x: xr.DataArray, n: int) -> xr.DataArray:
    """x, or ValueError when it has too few samples."""
    if x.sizes["sample"] < n:
        raise ValueError(f"{x.sizes['sample']} samples; at least {n} are needed")
    return x


def modality_gap(x: Vectors, y: Vectors) -> xr.DataArray:
    """G = ||mean_i z_i - mean_j w_j||_2 of unit vectors z of x, w of y (Liang et al. 2022), 0 to 2.

    In units of the sphere's radius. x, y: image and text features in one joint space; their numbers may
    differ.
    """
    x, y = as_samples(x), as_samples(y).rename(sample="other")
    if x.sizes["feature"] != y.sizes["feature"]:
        raise ValueError(
            f"the two sets need one space, got {x.sizes['feature']} and {y.sizes['feature']} features"
        )
    y = y.drop_vars([c for c in y.coords if "other" in y[c].dims])

    def one(a, b):
        return np.linalg.norm(unit(a).mean(axis=0) - unit(b).mean(axis=0))

    return xr.apply_ufunc(
        one, x, y, input_core_dims=[["sample", "feature"], ["other", "feature"]], vectorize=True
    ).rename("modality_gap")


def effective_rank(x: Vectors, centre: bool = False) -> xr.DataArray:
    """exp(- sum_k p_k ln p_k), p_k = s_k / sum s, s the singular values of (sample, feature).

    The number of directions in use, 1 to min(sample, feature) (Roy & Vetterli 2007). centre: take the mean
    vector off first, which otherwise is one large direction of its own.
    """

    def one(z):
        z = z.astype(np.float64)
        s = np.linalg.svd(z - z.mean(axis=0) if centre else z, compute_uv=False)
        if not s[0] > 1e-12 * max(np.abs(z).max(), 1e-300):
            raise ValueError(f"all vectors are {'equal' if centre else 'zero'}; they span no direction")
        p = s[s > 0] / s.sum()
        return np.exp(-(p * np.log(p)).sum())

    return per_set(one, at_least(as_samples(x), 2)).rename("effective_rank").assign_attrs(centre=centre)
