import numpy as np
import pytest
import xarray as xr

from vlmlab import measures
from vlmlab.measures.similarity import tiled_hsic


def explicit_hsic(k, l):
    """Song et al. (2012), Eq. (5), term by term in float64."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    one = np.ones(n)
    return (
        np.trace(k @ l)
        + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * one @ k @ l @ one
    ) / (n * (n - 3))


def explicit_cka(stack):
    grams = [z @ z.T for z in stack]
    h = np.array([[explicit_hsic(k, l) for l in grams] for k in grams])
    return h / np.sqrt(np.outer(np.diag(h), np.diag(h)))


def layers(n=50, widths=(6, 6, 6), seed=0):
    random = np.random.default_rng(seed)
    base = random.normal(size=(n, widths[0]))
    return np.stack(
        [
            base @ random.normal(size=(widths[0], w)) + i * random.normal(size=(n, w)) + 3
            for i, w in enumerate(widths)
        ]
    )


def record(values):
    return xr.DataArray(values, {"layer": np.arange(1, len(values) + 1)}, ("layer", "sample", "feature"))


@pytest.mark.parametrize("tile", [7, 25, 50, 512])
def test_equals_the_explicit_estimator_on_50_points(tile):
    values = layers()
    found = measures.cka(record(values), tile=tile)
    assert np.abs(found - explicit_cka(values)).max() < 1e-5
    assert np.abs(np.diag(found) - 1).max() < 1e-12
    assert found.dims == ("layer", "layer_other") and found.attrs["n"] == 50
    assert np.allclose(found, found.T)


def test_hsic_itself():
    values = layers()
    centred = values - values.mean(axis=1, keepdims=True)  # the estimator does not see the mean
    ours = tiled_hsic(list(centred), tile=16)
    for i, j in ((0, 0), (0, 2), (1, 2)):
        k, l = values[i] @ values[i].T, values[j] @ values[j].T
        assert ours[i, j] == pytest.approx(explicit_hsic(k, l), rel=1e-9)


def test_invariant_to_rotation_scale_shift_and_shuffling():
    values, random = layers(), np.random.default_rng(1)
    rotation = np.linalg.qr(random.normal(size=(6, 6)))[0]
    moved = 100 * values @ rotation + 5
    assert np.abs(measures.cka(record(moved)).values - measures.cka(record(values)).values).max() < 1e-5
    both = record(np.stack([values[1], moved[1]])[:, random.permutation(50)])
    assert np.abs(measures.cka(both) - 1).max() < 1e-5


def test_independent_layers_are_near_zero_where_the_biased_estimate_is_not():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 60, 200))
    found = measures.cka(record(np.stack([x, y]))).values[0, 1]
    centred = [z - z.mean(axis=0) for z in (x, y)]
    k, l = (z @ z.T for z in centred)
    biased = (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())
    assert abs(found) < 0.1 < 0.5 < biased


def test_two_models():
    a, b = layers(seed=0), layers(widths=(9, 9), seed=1)
    found = measures.cka(record(a), record(b))
    assert found.shape == (3, 2)
    one = explicit_cka([a[2], b[1]])[0, 1]
    assert float(found.sel(layer=3, layer_other=2)) == pytest.approx(one, abs=1e-5)


def test_takes_the_class_token_or_the_role_asked_for():
    values = layers()
    roles = ("token", ["prompt", "cls", "prompt"])
    tokens = np.stack([values + 0.1, values, values[::-1]], axis=2)
    tokens[:2, :, 0] = np.nan
    tokens[:2, :, 2] = np.nan
    x = xr.DataArray(tokens, {"layer": [1, 2, 3], "role": roles}, ("layer", "sample", "token", "feature"))
    assert np.allclose(measures.cka(x), measures.cka(record(values)), atol=1e-6)
    assert measures.cka(x).attrs["role"] == "cls"
    with pytest.raises(ValueError, match=r"layers \[1, 2\] hold NaN: they have no prompt token"):
        measures.cka(x, role="prompt")
    assert measures.cka(x.sel(layer=[3]), role="prompt").values == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (record(layers(n=3)), None, "at least 4 samples, got 3"),
        (record(layers(n=9)), record(layers(n=8)), "9 and 8 samples"),
        (record(layers())[0], None, "needs layer, sample"),
    ],
)
def test_errors(x, y, message):
    with pytest.raises(ValueError, match=message):
        measures.cka(x, y)


def test_a_leftover_axis_is_an_error_not_more_features():
    values = np.random.default_rng(0).normal(size=(3, 20, 2, 5))
    x = xr.DataArray(values, dims=("layer", "sample", "model", "feature"))
    with pytest.raises(ValueError, match="axis 'model'; choose one entry"):
        measures.cka(x)
    assert measures.cka(x.rename(model="head")).shape == (3, 3)
