"""Rates against the numbers of the reference scheduler (closed form, 1e-12)."""

import pytest

from vlmlab.methods.schedule import learning_rates


def test_ten_epochs():
    wanted = [
        1e-5,
        1e-3,
        0.9755282581475769e-3,
        0.9045084971874737e-3,
        0.7938926261462366e-3,
        0.6545084971874737e-3,
        0.5e-3,
        0.34549150281252633e-3,
        0.20610737385376349e-3,
        0.09549150281252627e-3,
    ]
    assert learning_rates(10, 1e-3) == pytest.approx(wanted, abs=1e-12)


def test_five_epochs_end_above_a_third_of_the_rate():
    rates = learning_rates(5, 2e-3)
    wanted = [1e-5, 2e-3, 1.8090169943749475e-3, 1.3090169943749475e-3, 0.6909830056250525e-3]
    assert rates == pytest.approx(wanted, abs=1e-12)


def test_one_epoch_with_and_without_warm_up():
    assert learning_rates(1, 1e-3) == [1e-5]
    assert learning_rates(1, 1e-3, warmup_epochs=0) == [1e-3]


def test_without_warm_up_the_cosine_begins_at_once():
    wanted = [
        2e-3,
        1.8090169943749475e-3,
        1.3090169943749475e-3,
        0.6909830056250525e-3,
        0.1909830056250525e-3,
    ]
    assert learning_rates(5, 2e-3, warmup_epochs=0) == pytest.approx(wanted, abs=1e-12)
