"""Distances of label distributions, by SciPy and by hand."""

import numpy as np
import pytest
from scipy.spatial import distance
from scipy.stats import entropy

from vlmlab.scores.label_distribution import DISTANCES, distances, packed, softmax, unpacked

WANTED = {
    "chebyshev": distance.chebyshev,
    "clark": lambda d, g: np.sqrt((((d - g) / (d + g)) ** 2).sum()),
    "canberra": distance.canberra,
    "KL": entropy,
    "cosine": lambda d, g: 1 - distance.cosine(d, g),
    "intersection": lambda d, g: 1 - distance.cityblock(d, g) / 2,  # of distributions
}


@pytest.mark.parametrize("metric", WANTED)
def test_against_scipy(metric):
    rng = np.random.default_rng(0)
    true, guess = rng.dirichlet(np.ones(7), 20), rng.dirichlet(np.ones(7), 20)
    wanted = [WANTED[metric](d, g) for d, g in zip(true, guess, strict=True)]
    np.testing.assert_allclose(distances(true, guess)[metric], wanted, rtol=1e-12)


def test_by_hand():
    found = distances(np.array([[0.5, 0.5, 0]]), np.array([[0.25, 0.75, 0]]))
    assert found["chebyshev"] == 0.25 and found["intersection"] == 0.75
    assert found["clark"] == pytest.approx(np.sqrt((1 / 3) ** 2 + (1 / 5) ** 2))
    assert found["canberra"] == pytest.approx(1 / 3 + 1 / 5)
    assert found["KL"] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))


def test_equal_distributions_are_no_distance_apart():
    d = np.array([[1.0, 0, 0], [0.2, 0.3, 0.5]])
    found = distances(d, d)
    for metric in ("chebyshev", "clark", "canberra", "KL"):
        assert found[metric].tolist() == [0, 0]
    for metric in ("cosine", "intersection"):
        assert found[metric] == pytest.approx([1, 1])


def test_the_guess_of_large_logits_is_finite():
    guess = softmax(np.array([[100.0, 0, -100]], np.float32))
    assert guess.sum() == pytest.approx(1) and guess.min() > 0
    assert np.isfinite(distances(np.array([[0, 0, 1.0]]), guess)["KL"]).all()


def test_what_each_image_has_is_kept():
    values = np.random.default_rng(0).random(5)
    assert unpacked(packed(values), 5) == pytest.approx(values, rel=1e-7)
    with pytest.raises(ValueError, match="5 values are kept, expected one for each of 4 images"):
        unpacked(packed(values), 4)
    assert {*distances(np.ones((1, 1)), np.ones((1, 1)))} == {*DISTANCES}
