import importlib.util

import numpy as np
import pytest
import xarray as xr

from vlmlab import measures
from vlmlab.measures import geometry

CROSS = np.array([[1.0, 0], [0, 2], [-3, 0], [0, -1]])  # right angles; lengths do not matter


@pytest.mark.parametrize("t", [2.0, 0.01])
def test_uniformity_by_hand(t):
    # of six pairs four have squared distance 2 and two have 4
    expected = np.log((4 * np.exp(-2 * t) + 2 * np.exp(-4 * t)) / 6)
    u = measures.uniformity(CROSS, t=t)
    assert float(u) == pytest.approx(expected, rel=1e-9) and u.attrs["t"] == t
    assert -4 * t <= float(u) <= 0


def test_uniformity_of_equal_vectors_is_zero_and_of_spread_ones_is_low():
    assert float(measures.uniformity(np.ones((5, 3)))) == pytest.approx(0, abs=1e-9)
    random = np.random.default_rng(0).normal(size=(300, 64))
    assert float(measures.uniformity(random)) < float(measures.uniformity(random + 2)) < 0


def test_both_tolerances_by_hand():
    x, labels = np.array([[1.0, 0], [1, 1], [0, 1], [0, -2]]), np.array([0, 0, 1, 1])
    half = 0.5**0.5  # cosine of the first pair; the second pair has -1
    assert float(measures.tolerance_same_class(x, labels)) == pytest.approx((half - 1) / 2)
    assert float(measures.tolerance_all_pairs(x, labels)) == pytest.approx((half - 1) / 6)
    carried = xr.DataArray(x, {"label": ("sample", labels)}, ("sample", "joint"))
    assert float(measures.tolerance_same_class(carried)) == pytest.approx((half - 1) / 2)


def test_the_literal_tolerance_shrinks_with_the_number_of_classes():
    x = np.ones((40, 3))
    for classes in (2, 4):
        labels = np.arange(40) % classes
        assert float(measures.tolerance_same_class(x, labels)) == pytest.approx(1)
        assert float(measures.tolerance_all_pairs(x, labels)) == pytest.approx((40 / classes - 1) / 39)


def test_alignment_by_hand():
    x, y = np.array([[1.0, 0], [2, 0]]), np.array([[3.0, 0], [0, 1]])
    assert float(measures.alignment(x, y)) == pytest.approx((0 + 2) / 2)
    assert float(measures.alignment(x, y, alpha=1)) == pytest.approx(2**0.5 / 2)
    layers = xr.DataArray(np.stack([x, y]), dims=("layer", "sample", "feature"))
    layers = layers.transpose("feature", "layer", "sample")
    assert np.allclose(measures.alignment(layers, layers.isel(layer=[0, 0])), [0, 1])


def test_measures_go_over_layers_and_branches():
    both = np.stack([CROSS, CROSS + 9])
    x = xr.DataArray(both, {"branch": ["cls", "prompt"]}, ("branch", "sample", "joint"))
    u = measures.uniformity(x.transpose("sample", "branch", "joint"))
    assert u.dims == ("branch",)
    assert float(u.sel(branch="cls")) == pytest.approx(float(measures.uniformity(CROSS)))


@pytest.fixture
def clusters():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    x = 10 * np.eye(3, 80)[labels] + random.normal(size=(60, 80))
    ids = [f"i{i}" for i in range(60)]
    return xr.DataArray(x, {"label": ("sample", labels), "id": ("sample", ids)}, ("sample", "joint"))


def test_separability(clusters):
    shuffled = np.random.default_rng(1).permutation(clusters["label"].values)
    assert float(measures.knn_accuracy(clusters)) == 1
    assert float(measures.knn_accuracy(clusters, shuffled)) < 0.6
    assert float(measures.silhouette(clusters)) > 0.4 > 0.05 > float(measures.silhouette(clusters, shuffled))


def test_knn_leaves_the_sample_itself_out():
    x, labels = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]]), np.array([0, 1, 0, 1])
    assert float(measures.knn_accuracy(x, labels, k=1)) == 0
    assert float(measures.knn_accuracy(x, np.array([0, 0, 7, 7]), k=1)) == 1


def test_tsne_keeps_clusters_seed_and_labels(clusters):
    places = measures.tsne(clusters, perplexity=10, seed=3)
    assert places.dims == ("sample", "axis") and places.shape == (60, 2)
    assert places["id"].values[0] == "i0" and places.attrs["seed"] == 3
    assert places.attrs["method"] == "scikit-learn" and places.attrs["components"] == 50
    assert 0.6 < places.attrs["trust"] <= 1
    assert measures.tsne(clusters, perplexity=10, seed=3).equals(places)
    centres = [places.values[20 * c : 20 * c + 20].mean(0) for c in range(3)]
    spread = max(places.values[:20].std(0))
    assert min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 3 * spread


def test_tsne_takes_open_tsne_for_many_points(clusters, monkeypatch):
    pytest.importorskip("openTSNE")
    monkeypatch.setattr(geometry, "BARNES_HUT_POINTS", 59)
    places = measures.tsne(clusters, perplexity=10, seed=3)
    assert places.attrs["method"] == "openTSNE" and places.attrs["trust"] > 0.6
    assert float(measures.knn_accuracy(places.values - places.values.mean(0), clusters["label"].values)) > 0.9


def test_umap_keeps_clusters_seed_and_labels(clusters):
    pytest.importorskip("umap")
    places = measures.umap(clusters, neighbours=10, seed=3)
    assert places.dims == ("sample", "axis") and places.shape == (60, 2) and places["id"].values[0] == "i0"
    assert 0.6 < places.attrs["trust"] <= 1 and places.attrs["components"] == 50
    assert measures.umap(clusters, neighbours=10, seed=3).equals(places)
    centres = [places.values[20 * c : 20 * c + 20].mean(0) for c in range(3)]
    spread = max(places.values[:20].std(0))
    assert min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 3 * spread


def test_without_umap_the_error_says_what_to_run(clusters, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "umap" else there(name))
    with pytest.raises(ImportError, match='run `pip install "umap-learn>='):
        measures.umap(clusters)


def test_trust_is_that_of_the_map_and_not_of_the_method(clusters):
    places = measures.tsne(clusters, perplexity=10)
    shuffled = np.random.default_rng(0).permutation(places.values)
    worse = geometry.as_map("tsne", clusters, clusters.values, shuffled, seed=0)
    assert worse.attrs["trust"] < 0.6 < places.attrs["trust"]


def test_modality_gap_by_hand():
    x, y = np.array([[2.0, 0], [0, 3]]), np.array([[-1.0, 0]])
    assert float(measures.modality_gap(x, y)) == pytest.approx(np.hypot(1.5, 0.5))
    assert float(measures.modality_gap(CROSS, 5 * CROSS)) == pytest.approx(0, abs=1e-12)
    assert float(measures.modality_gap(np.ones((3, 2)), -np.ones((2, 2)))) == pytest.approx(2)


def test_effective_rank_by_hand():
    assert float(measures.effective_rank(np.eye(5)[:, :4] * 7)) == pytest.approx(4)
    p = np.array([3, 1]) / 4  # singular values 3 and 1
    found = measures.effective_rank(np.array([[3.0, 0], [0, 1]]))
    assert float(found) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    line = np.array([[1.0, 5], [2, 5], [3, 5]])
    assert float(measures.effective_rank(line, centre=True)) == pytest.approx(1, abs=1e-6)
    assert float(measures.effective_rank(line)) > 1.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.modality_gap(CROSS, np.ones((2, 3))), "one space, got 2 and 3"),
        (lambda: measures.effective_rank(np.zeros((3, 2))), "all vectors are zero"),
        (lambda: measures.effective_rank(np.full((3, 2), 0.1), centre=True), "all vectors are equal"),
        (lambda: measures.uniformity(np.zeros((3, 2))), "3 vectors are zero"),
        (lambda: measures.uniformity(CROSS[:1]), "at least 2 are needed"),
        (lambda: measures.uniformity(np.ones(3)), r"must be \(sample, feature\)"),
        (lambda: measures.uniformity(np.full((3, 2), np.nan)), "hold NaN"),
        (lambda: measures.tolerance_same_class(CROSS), "no label coordinate"),
        (lambda: measures.tolerance_same_class(CROSS, np.arange(4)), "no two samples share a class"),
        (lambda: measures.tolerance_same_class(CROSS, np.arange(3)), "as many labels"),
        (lambda: measures.alignment(CROSS, CROSS[:2]), "must match"),
        (lambda: measures.tsne(CROSS), "must be above 0 and below the number of samples, 4"),
        (lambda: measures.tsne(np.ones((2, 9, 3))), r"must be \(sample, feature\)"),
        (
            lambda: measures.umap(xr.DataArray(np.ones((2, 9, 3)), dims=("layer", "sample", "feature"))),
            "a map is of one set",
        ),
        (lambda: measures.umap(CROSS), "neighbours=15 must be above 1 and below the number of samples, 4"),
        (lambda: measures.knn_accuracy(CROSS, np.arange(4), k=4), "at least 5"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pca_keeps_arrows_and_finds_the_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(40, 2)) * (5, 1)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    x = xr.DataArray(flat @ basis + 7, {"label": ("sample", np.arange(40) % 2)}, ("sample", "joint"))
    places = measures.pca(x)
    assert places.dims == ("sample", "axis") and places["label"].equals(x["label"].rename("label"))
    assert sum(places.attrs["share"]) == pytest.approx(1) and places.attrs["share"][0] > 0.9
    far = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert np.allclose(np.linalg.norm(places.values[:, None] - places.values[None], axis=-1), far)
    moved = measures.pca(x + basis[0], fit=x) - measures.pca(x, fit=x)
    assert np.allclose(moved, moved[0]) and np.linalg.norm(moved[0]) == pytest.approx(1)
    with pytest.raises(ValueError, match="one set"):
        measures.pca(x.expand_dims("layer"))


SAME = np.full((60, 8), 2.5)
NOISE = SAME * (1 + 1e-8 * np.random.default_rng(0).random((60, 8)))
POINTS = np.random.default_rng(0).random((60, 8))


@pytest.mark.parametrize("z", [SAME, NOISE, np.zeros((60, 8))], ids=["equal", "rounding", "zeros"])
@pytest.mark.parametrize("name", ["tsne", "umap", "pca"])
def test_equal_vectors_have_no_map(name, z):
    with pytest.raises(ValueError, match="the 60 vectors are all equal"):
        getattr(measures, name)(z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.tsne(POINTS[:1], perplexity=0.5), "3 vectors and 2 features"),
        (lambda: measures.tsne(POINTS[:2], perplexity=1), "3 vectors and 2 features"),
        (lambda: measures.tsne(POINTS[:, :1]), "3 vectors and 2 features"),
        (lambda: measures.tsne(POINTS, components=1), "components=1"),
        (lambda: measures.tsne(POINTS, perplexity=60), "perplexity 60 must be above 0 and below"),
        (lambda: measures.tsne(POINTS, perplexity=-1), "perplexity -1 must be above 0"),
        (lambda: measures.tsne(POINTS, perplexity=float("nan")), "perplexity nan must be"),
        (lambda: measures.tsne(np.where(POINTS > 0.9, np.nan, POINTS)), "NaN or infinity"),
        (lambda: measures.uniformity(np.where(POINTS > 0.9, np.inf, POINTS)), "NaN or infinity"),
        (lambda: measures.pca(POINTS, components=9), "components=9 of 60 vectors of 8"),
        (lambda: measures.pca(POINTS[:1]), "components=2 of 1 vectors"),
        (lambda: measures.silhouette(POINTS, np.zeros(60)), "60 samples of 1 classes"),
        (lambda: measures.silhouette(POINTS, np.arange(60)), "60 samples of 60 classes"),
        (lambda: measures.knn_accuracy(POINTS, np.arange(60), k=0), "k=0 must be at least 1"),
        (
            lambda: measures.calibration(np.full((4, 2), 0.5), np.array([0, 1, 2, 0])),
            "whole numbers from 0 to 1",
        ),
        (lambda: measures.calibration(np.full((4, 2), 0.5), np.zeros(4, int), bins=0), "bins=0"),
    ],
)
def test_what_has_no_answer_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_few_distinct_vectors_have_a_map():
    """Duplicates are no fault: two heaps."""
    found = measures.tsne(np.repeat(POINTS[:2], 20, axis=0), perplexity=5)
    assert np.isfinite(found).all()
