"""AUC and average precision by hand, and by their definition over all pairs."""

import numpy as np
import pytest

from vlmlab.scores.language_loss import per_token
from vlmlab.scores.ranking import auc, average_precision


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    true, score = rng.random(40) < 0.4, rng.integers(0, 6, 40)
    pairs = [(a > b) + (a == b) / 2 for a in score[true] for b in score[~true]]
    assert auc(true, score) == pytest.approx(np.mean(pairs))
    assert auc(true, -score) == pytest.approx(1 - np.mean(pairs))
    assert auc(true, np.zeros(40)) == 0.5


def test_average_precision_by_hand():
    true = np.array([True, False, True, False, True])
    assert average_precision(true, np.array([5, 4, 3, 2, 1])) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(true, np.zeros(5)) == pytest.approx(3 / 5)


def test_loss_per_token_weighs_long_texts_more():
    assert per_token(np.array([-2.0, -9.0]), np.array([1, 3])) == pytest.approx(11 / 4)
