"""CoOp's few-shot lists and base/new halves; test_coop_published.py has the published lists."""

import random

import pytest

from vlmlab.tasks import sampling


def test_classes_are_walked_in_order_of_appearance():
    labels = [7, 3, 7, 3, 7, 3, 0, 0, 0]
    stream = random.Random(5)
    expected = stream.sample([0, 2, 4], 2) + stream.sample([1, 3, 5], 2) + stream.sample([6, 7, 8], 2)
    assert sampling.few_shot(labels, [], 2, 5) == (expected, [])


def test_a_short_class_gives_all_and_draws_nothing():
    stream = random.Random(1)
    assert sampling.few_shot([0, 0, 1, 1, 1, 1], [], 3, 1)[0] == [0, 1, *stream.sample([2, 3, 4, 5], 3)]
    filled, _ = sampling.few_shot([0, 0, 1, 1, 1, 1], [], 3, 1, repeat=True)
    assert filled == [0, 1, 0, *random.Random(1).sample([2, 3, 4, 5], 3)]


@pytest.mark.parametrize(
    ("n", "shots", "possible"),
    [
        (4, 16, True),
        (3, 16, False),
        (3, 12, True),
        (1, 4, True),
        (1, 5, False),
        (16, 17, False),
        (17, 17, True),
    ],
)
def test_how_far_repetition_goes(n, shots, possible):
    if possible:
        drawn, _ = sampling.few_shot([0] * n, [], shots, 1, repeat=True)
        assert len(drawn) == shots and set(drawn) == set(range(n))
    else:
        with pytest.raises(ValueError, match=f"'cat' has {n} distinct.*{shots} shots"):
            sampling.few_shot([0] * n, [], shots, 1, repeat=True, classnames=["cat"])


def test_no_shots():
    with pytest.raises(ValueError, match="got 0"):
        sampling.few_shot([0], [], 0, 1)


@pytest.mark.parametrize(
    ("classes", "base"),
    [(10, 5), (37, 19), (47, 24), (100, 50), (101, 51), (102, 51), (196, 98), (397, 199), (1, 1)],
)
def test_base_is_the_larger_half(classes, base):
    halves = sampling.base_new([*reversed(range(classes)), 0])
    assert halves == (list(range(base)), list(range(base, classes)))
