"""Where the maximum of a map lies."""

import numpy as np
import pytest

from vlmlab.scores.pointing import grown, hits


def mask(*pixels, size=8):
    found = np.zeros((size, size), bool)
    for y, x in pixels:
        found[y, x] = True
    return found


def peak(y, x, size=4):
    found = np.zeros((size, size))
    found[y, x] = 1
    return found


@pytest.mark.parametrize(
    ("heat", "at", "wanted"),
    [
        (peak(0, 0), (1, 1), 1),  # a cell of 2 x 2 pixels stands for the pixel at its centre
        (peak(0, 0), (0, 0), 0),
        (peak(3, 1), (7, 3), 1),
        (peak(1, 3), (7, 3), 0),  # rows and columns are not the same
        (peak(7, 2, size=8), (7, 2), 1),
        (np.ones((4, 4)), (1, 1), 1 / 16),  # a map that says nothing scores chance
        (peak(0, 0) + peak(3, 3), (1, 1), 1 / 2),
    ],
)
def test_hits(heat, at, wanted):
    assert hits(heat[None], [mask(at)]).tolist() == [wanted]


def test_a_map_that_is_not_square():
    heat = np.zeros((1, 2, 4))
    heat[0, 1, 3] = 1
    assert hits(heat, np.ones((1, 6, 8), bool)).tolist() == [1]
    assert hits(heat, [np.arange(48).reshape(6, 8) == 4 * 8 + 7]).tolist() == [1]


def test_tolerance_is_a_distance_in_pixels():
    one = mask((4, 4))
    assert grown(one, 0) is one and grown(one, 1).sum() == 5
    assert grown(one, 1.5).sum() == 9 and grown(one, 2).sum() == 13
    far = peak(4, 7, size=8)[None]
    assert [hits(far, [grown(one, t)]).item() for t in (0, 2, 3)] == [0, 0, 1]
