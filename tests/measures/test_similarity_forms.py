"""The other forms of similarity, against explicit formulas on 50 points."""

import itertools
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr

from vlmlab import measures
from vlmlab.measures.similarity import tiled_hsic
from vlmlab.measures.similarity_running import RunningCKA


def layers(n=50, width=6, depth=3, seed=0):
    random = np.random.default_rng(seed)
    base = random.normal(size=(n, width))
    return np.stack(
        [
            base @ random.normal(size=(width, width)) + i * random.normal(size=(n, width)) + 3
            for i in range(depth)
        ]
    )


def record(values):
    return xr.DataArray(values, {"layer": np.arange(1, len(values) + 1)}, ("layer", "sample", "feature"))


def explicit_hsic(k, l):
    """Song et al. (2012), Eq. (5)."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    cross, total = (k @ l).sum(), k.sum() * l.sum()
    return (np.trace(k @ l) + total / ((n - 1) * (n - 2)) - 2 / (n - 2) * cross) / (n * (n - 3))


def cka_of(kernels):
    h = np.array([[explicit_hsic(k, l) for l in kernels] for k in kernels])
    return h / np.sqrt(np.outer(np.diag(h), np.diag(h)))


def test_the_estimator_is_the_u_statistic():
    """The mean over all distinct i, j, q, r of K_ij (L_ij + L_qr - 2 L_iq)."""
    x, y = layers(n=7, depth=2)
    k, l = x @ x.T, y @ y.T
    terms = [
        k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in itertools.permutations(range(7), 4)
    ]
    assert explicit_hsic(k, l) == pytest.approx(np.mean(terms), rel=1e-9)
    assert tiled_hsic([x, y], 3)[0, 1] == pytest.approx(np.mean(terms), rel=1e-9)


FORMS = {
    "minibatch": lambda x: measures.minibatch_cka(x, batch=16),
    "rbf": measures.rbf_cka,
    "svcca": lambda x: measures.svcca(x, variance=0.95),
    "rsa": lambda x: measures.rsa(x, metric="cosine"),
    "rsa euclidean": lambda x: measures.rsa(x, metric="euclidean"),
}


@pytest.mark.parametrize("form", FORMS)
def test_diagonal_symmetry_rotation_and_scale(form):
    values = layers()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    found = FORMS[form](record(values))
    assert found.dims == ("layer", "layer_other") and found.attrs["n"] == 50
    assert np.abs(np.diag(found) - 1).max() < 1e-9 and np.allclose(found, found.T)
    assert found.values[0, 2] < 0.98
    assert np.abs(FORMS[form](record(100 * values @ rotation)) - found).max() < 1e-4


@pytest.mark.parametrize("width", [0.2, 0.5, 5.0])
@pytest.mark.parametrize("tile", [7, 512])
def test_rbf_cka_equals_its_formula(width, tile):
    values = layers()
    kernels = [np.exp(-(cdist(z, z) ** 2) / (2 * (width * np.median(pdist(z))) ** 2)) for z in values]
    assert np.abs(measures.rbf_cka(record(values), width=width, tile=tile) - cka_of(kernels)).max() < 1e-4


def test_a_wide_rbf_is_nearly_linear():
    values = record(layers())
    assert np.abs(measures.rbf_cka(values, width=10) - measures.cka(values)).max() < 0.01
    assert np.abs(measures.rbf_cka(values, width=0.3) - measures.cka(values)).max() > 0.05


def test_minibatch_is_the_mean_over_batches_and_drops_the_rest():
    values = layers()
    found = measures.minibatch_cka(record(values), batch=16, seed=None)
    mean = np.mean(
        [
            [[explicit_hsic(k @ k.T, l @ l.T) for l in values[:, b : b + 16]] for k in values[:, b : b + 16]]
            for b in (0, 16, 32)
        ],
        axis=0,
    )
    expected = mean / np.sqrt(np.outer(np.diag(mean), np.diag(mean)))
    assert np.abs(found - expected).max() < 1e-5 and found.attrs["batches"] == 3
    assert np.allclose(found, measures.minibatch_cka(record(values[:, :48]), batch=16, seed=None), atol=1e-5)
    whole = measures.minibatch_cka(record(values), batch=999)
    assert whole.attrs["batch"] == 50 and np.allclose(whole, measures.cka(record(values)), atol=1e-5)


def test_minibatch_is_near_the_exact_value_and_shuffles_all_layers_alike():
    values = record(layers(n=1000))
    assert np.abs(measures.minibatch_cka(values, batch=100) - measures.cka(values)).max() < 0.02


@pytest.mark.parametrize("form", [measures.cka, lambda x: measures.minibatch_cka(x, batch=50)])
@pytest.mark.parametrize(
    ("kind", "offset", "error"), [("float16", 0, 5e-3), ("float32", 100, 1e-4), ("float64", 1e7, 1e-5)]
)
def test_precision_of_every_type(form, kind, offset, error):
    """The common mean goes off before anything is rounded to float32."""
    values = layers()
    found = form(record((values + offset).astype(kind)))
    assert np.abs(found - cka_of([z @ z.T for z in values])).max() < error


def test_minibatch_of_a_first_batch_of_zeros():
    values = layers(n=32)
    values[:, :16] = 0
    found = measures.minibatch_cka(record(values), batch=16, seed=None)
    assert np.abs(found - measures.cka(record(values[:, 16:]))).max() < 1e-5


@pytest.mark.parametrize(
    ("form", "most"),
    [(lambda x: measures.cka(x, tile=100), 1.7), (lambda x: measures.minibatch_cka(x, batch=100), 0.7)],
)
def test_gram_matrices_never_exist_as_a_whole(form, most):
    """Six of 600 x 600 would be 8.2 MiB; the tiles are 0.2, the centred layers 0.9 or one batch of them."""
    values = record(layers(n=600, width=64, depth=6).astype(np.float32))
    form(values)  # imports
    tracemalloc.start()
    form(values)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak < most


def test_svcca_by_its_formula():
    values = layers()
    x, y = values[0] - values[0].mean(0), values[2] - values[2].mean(0)
    found = measures.svcca(record(values[[0, 2]]), variance=1.0)
    # with all directions kept: canonical correlations as eigenvalues of the textbook matrix
    m = np.linalg.solve(x.T @ x, x.T @ y) @ np.linalg.solve(y.T @ y, y.T @ x)
    expected = np.sqrt(np.linalg.eigvals(m).real.clip(0)).mean()
    assert float(found[0, 1]) == pytest.approx(expected, abs=1e-5) and found.attrs["kept"] == [6, 6]


def test_svcca_keeps_the_share_of_variance_asked_for():
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 400, 4)) * [10, 10, 1, 0.01]  # shares 0.4975, 0.4975, 0.005, 0
    assert [measures.svcca(record(x), variance=v).attrs["kept"] for v in (0.4, 0.9, 0.99, 0.999)] == [
        [1],
        [2],
        [2],
        [3],
    ]


@pytest.mark.parametrize("metric", ["correlation", "cosine", "euclidean"])
def test_rsa_equals_scipy(metric):
    values = layers()
    expected = spearmanr(pdist(values[0], metric), pdist(values[1], metric)).statistic
    assert float(measures.rsa(record(values), metric=metric)[0, 1]) == pytest.approx(expected, abs=1e-9)


def test_two_models_for_every_form():
    a, b = record(layers()), record(layers(width=5, depth=2, seed=1))
    for form in (measures.minibatch_cka, measures.rbf_cka, measures.svcca, measures.rsa):
        assert form(a, b).shape == (3, 2)
        assert np.allclose(form(a, a), form(a), atol=1e-6)


@pytest.mark.parametrize("sizes", [(50,), (20, 20, 10), (1, 48, 1)])
def test_running_cka_is_cka(sizes):
    values, start, running = 1e3 + layers(), 0, RunningCKA()
    for size in sizes:
        running.add(record(values[:, start : start + size]))
        start += size
    assert np.abs(running.value() - cka_of([z @ z.T for z in layers()])).max() < 1e-3
    assert np.abs(running.value() - measures.cka(record(values))).max() < 1e-3
    assert np.abs(np.diag(running.value()) - 1).max() < 1e-9 and running.value().attrs["n"] == 50


def test_running_cka_to_float32_accuracy_and_goes_on_after_a_value():
    values, running = layers(), RunningCKA()
    running.add(record(values[:, :30]))
    assert np.abs(running.value() - measures.cka(record(values[:, :30]))).max() < 1e-5
    running.add(record(values[:, 30:]))
    assert np.abs(running.value() - cka_of([z @ z.T for z in values])).max() < 1e-5


def test_running_cka_takes_one_role():
    values = layers()
    tokens = xr.DataArray(
        np.stack([values, values[::-1]], axis=2),
        {"layer": [1, 2, 3], "role": ("token", ["cls", "patch"])},
        ("layer", "sample", "token", "feature"),
    )
    running = RunningCKA()
    running.add(tokens)
    assert running.value().attrs["role"] == "cls"
    assert np.abs(running.value() - measures.cka(record(values))).max() < 1e-5


def running_with_other_widths():
    running = RunningCKA()
    running.add(record(layers()))
    running.add(record(layers(width=5)))


def constant_layer(layer, noise=0.0):
    values = layers()
    values[layer] = 3.0 + noise * values[layer]
    return values


def running_with_a_constant():
    running = RunningCKA()
    running.add(record(constant_layer(2)))
    running.value()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.rsa(record(layers()), metric="cosin"), "not one of correlation, cosine, euclidean"),
        (lambda: measures.rsa(record(np.ones((1, 9, 4)) * np.arange(9)[:, None])), "constant features"),
        (lambda: measures.rsa(record(np.ones((1, 9, 4)))), r"layers \[1\] are the same for all 9"),
        (lambda: measures.rsa(record(layers(n=2))), "equally far in a layer"),
        (
            lambda: measures.svcca(record(layers(n=7)), variance=1.0),
            "of 7 samples, so all layers would score 1",
        ),
        (lambda: measures.svcca(record(np.ones((1, 9, 4)))), "the same for all 9 samples"),
        (lambda: measures.cka(record(constant_layer(1))), r"layers \[2\] are the same for all"),
        (
            lambda: measures.minibatch_cka(record(layers()), record(constant_layer(0))),
            r"layers \[1\] are the same",
        ),
        (lambda: measures.cka(record(constant_layer(1, noise=1e-7))), r"layers \[2\] are the same for all"),
        (running_with_a_constant, r"layers \[3\] are the same for all samples"),
        (
            lambda: measures.rbf_cka(record(np.eye(9)[None, :, :1] * np.ones(4))),
            "most samples of a layer are equal",
        ),
        (lambda: measures.minibatch_cka(record(layers()), batch=3), "at least 4 samples, got 3"),
        (lambda: measures.rbf_cka(record(layers()), record(layers(n=9))), "50 and 9 samples"),
        (lambda: RunningCKA().value(), "at least 4 samples, got 0"),
        (running_with_other_widths, "3 layers of width 5, those before had 3 of 6"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
