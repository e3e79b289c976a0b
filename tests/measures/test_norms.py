import numpy as np
import pytest
import xarray as xr

from vlmlab import measures


@pytest.fixture
def two_images():
    """Two layers, two images, CLS, two prompts (not in layer 1) and one patch, width 2."""
    x = np.array(
        [
            [[[3, 4], [9, 9], [9, 9], [0, 1]], [[6, 8], [9, 9], [9, 9], [0, 2]]],
            [[[0, 5], [1, 0], [0, 1], [2, 0]], [[5, 12], [3, 4], [-3, -4], [0, 0]]],
        ],
        dtype=np.float32,
    )
    x[0, :, 1:3] = np.nan
    return xr.DataArray(
        x,
        {
            "layer": [1, 2],
            "role": ("token", ["cls", "prompt", "prompt", "patch"]),
            "index": ("token", [0, 0, 1, 0]),
        },
        ("layer", "sample", "token", "feature"),
    )


def test_norm_by_role_by_hand(two_images):
    n = measures.norm_by_role(two_images)
    assert n.dims == ("layer", "sample", "role") and n["role"].values.tolist() == ["cls", "prompt", "patch"]
    assert n.sel(role="cls").values.tolist() == [[5, 10], [5, 13]]
    assert np.isnan(n.sel(role="prompt", layer=1)).all()
    assert n.sel(role="prompt", layer=2).values.tolist() == [1, 5]  # (1 + 1) / 2 and (5 + 5) / 2
    assert n.sel(role="patch").values.tolist() == [[1, 2], [2, 0]]


def test_norm_of_mean_by_hand(two_images):
    n = measures.norm_of_mean(two_images).sel(role="prompt", layer=2)
    assert np.allclose(n, [np.sqrt(0.5), 0])  # prompts that disagree cancel
    assert np.isnan(measures.norm_of_mean(two_images).sel(role="prompt", layer=1)).all()


def test_recorded_norms_pass(two_images):
    norms = measures.token_norms(two_images)
    assert norms.dims == ("layer", "sample", "token")
    assert measures.norm_by_role(norms).equals(measures.norm_by_role(two_images))
    with pytest.raises(ValueError, match="needs the tokens"):
        measures.norm_of_mean(norms)


def test_norms_do_not_overflow_in_float16():
    x = xr.DataArray(np.full((1, 4), 30000, np.float16), dims=("sample", "feature"))
    assert measures.token_norms(x).values == pytest.approx(60000, rel=1e-3)


def test_words_of_different_length():
    roles = [["sos", "word", "eos", "pad"], ["sos", "word", "word", "eos"]]
    x = xr.DataArray(
        np.arange(8, dtype=float).reshape(1, 2, 4, 1),
        {"layer": [1], "role": (("sample", "token"), roles)},
        ("layer", "sample", "token", "feature"),
    )
    n = measures.norm_by_role(x).sel(layer=1)
    assert n.sel(role="word").values.tolist() == [1, 5.5]
    assert n.sel(role="eos").values.tolist() == [2, 7]
    assert n.sel(role="pad").values[0] == 3 and np.isnan(n.sel(role="pad").values[1])


def test_norm_ratio_by_hand():
    z = xr.DataArray(
        [[[3, 4], [0, 10]], [[1, 0], [0, 0.5]]],
        {"branch": ["cls", "prompt"], "id": ("sample", ["a", "b"])},
        ("sample", "branch", "joint"),
    )
    for given in (z, z.to_dataset(name="image.final")):
        r = measures.norm_ratio(given)
        assert r.dims == ("sample",) and r.values.tolist() == [2, 0.5]
        assert r["id"].values.tolist() == ["a", "b"]
    assert measures.norm_ratio(np.array([[0, 10.0]]), np.array([[3, 4.0]])).values.tolist() == [2]
    with pytest.raises(ValueError, match="branches cls and prompt, got \\['cls'\\]"):
        measures.norm_ratio(z.isel(branch=[0]))
    with pytest.raises(ValueError, match="same samples"):
        measures.norm_ratio(np.ones((2, 3)), np.ones((1, 3)))


def test_effect_size_by_hand():
    # variances 1 (n = 3) and 4 (n = 2): pooled (2 * 1 + 1 * 4) / 3 = 2, difference 3 - 2
    d = measures.effect_size(np.array([1.0, 2, 3]), np.array([3 - 2**0.5, 3 + 2**0.5]))
    assert float(d) == pytest.approx(1 / 2**0.5)
    layers = measures.effect_size(
        xr.DataArray([[1.0, 2, 3]], dims=("layer", "sample")),
        xr.DataArray([[2.0, 3, 4]], dims=("layer", "sample")),
    )
    assert layers.dims == ("layer",) and layers.values.tolist() == [1]
    with pytest.raises(ValueError, match="two samples on each side, got 1 and 2"):
        measures.effect_size(np.ones(1), np.ones(2))


def test_unknown_measure_lists_what_there_is():
    with pytest.raises(AttributeError, match="it has token_norms"):
        measures.norm_ration  # noqa: B018


def test_ratios_and_differences_that_are_not_defined_are_errors():
    z = np.random.default_rng(0).random((5, 4))
    for bad in (0.0, np.nan, np.inf):
        class_features = z.copy()
        class_features[1] = bad
        with pytest.raises(ValueError, match=r"r\(x\) is not defined for 1 samples"):
            measures.norm_ratio(z, class_features)
    with pytest.raises(ValueError, match="the samples of each side are all equal"):
        measures.effect_size(np.ones(5), np.full(5, 2.0))
