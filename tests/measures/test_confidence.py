"""Calibration by hand, at its limits, and where nothing can be said."""

import numpy as np
import pytest

from vlmlab import measures


def test_by_hand():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.35, 0.65], [0.45, 0.55]])
    found = measures.calibration(probs, np.array([0, 1, 1, 0]), bins=5)
    assert found["count"].values.tolist() == [0, 0, 1, 2, 1]  # 0.8 is the upper edge of the fourth bin
    assert found["confidence"].values[2:] == pytest.approx([0.55, 0.725, 0.9])
    assert found["accuracy"].values[2:].tolist() == [0, 0.5, 1]
    assert np.isnan(found["accuracy"].values[:2]).all()
    assert found.attrs["error"] == pytest.approx((0.55 + 2 * 0.225 + 0.1) / 4)
    assert found.attrs["over"] == pytest.approx(0.725 - 0.5)


def test_a_model_that_answers_by_its_own_odds_is_calibrated():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), size=40_000)
    labels = (rng.random(len(probs))[:, None] > probs.cumsum(axis=1)).sum(axis=1)
    assert measures.calibration(probs, labels).attrs["error"] < 0.01
    sharper = probs**4 / (probs**4).sum(axis=1, keepdims=True)
    found = measures.calibration(sharper, labels).attrs
    assert found["error"] > 0.1 and found["over"] == pytest.approx(found["error"])


def test_certainty_stays_in_the_last_bin():
    found = measures.calibration(np.eye(2), np.array([0, 0]))
    assert found["count"].values.tolist() == [0] * 9 + [2] and found.attrs["error"] == 0.5


@pytest.mark.parametrize(
    ("probs", "labels", "error"),
    [
        ([[0.5, 0.5]], [0, 1], "as many labels"),
        ([[2.0, 1.0]], [0], "softmax"),
        (np.zeros((0, 2)), [], "as many labels"),
    ],
)
def test_what_cannot_be_is_named(probs, labels, error):
    with pytest.raises(ValueError, match=error):
        measures.calibration(np.array(probs), np.array(labels))
