"""Which thumbnails are asked for."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vlmlab.widgets import sheet

ROWS = pd.DataFrame(
    {
        "test": ["base", "base", "new", "new"],
        "sample": [0, 1, 0, 1],
        "id": ["a/cat.png", "a/dog.png", "b/owl+1", "b/owl"],
        "name": ["cat", "dog", "owl", "owl"],
        "predicted A": ["cat", "cat", "owl", "hen"],
        "probability A": [0.9, 0.6, 0.5, 0.8],
        "right A": [True, False, True, False],
        "margin A": [3.0, -1.0, 0.5, -2.0],
        "r A": [1.0, 0.8, 1.2, 0.9],
        "predicted B": ["dog", "dog", "owl", "owl"],
        "probability B": [0.9, 0.6, 0.5, 0.8],
        "right B": [False, True, True, True],
        "margin B": [-3.0, 1.0, 0.5, 2.0],
        "r B": [np.nan] * 4,
    }
)


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({}, [0, 1, 2, 3]),
        ({"text": "CAT"}, [0, 1]),  # a class and a prediction
        ({"text": "owl+"}, [2]),  # letters, no pattern
        ({"test": "new"}, [2, 3]),
        ({"name": "owl", "answer": "wrong"}, [3]),
        ({"answer": "right"}, [0, 2]),
        ({"answer": "only B"}, [1, 3]),
        ({"answer": "only A"}, [0]),
        ({"order": "low margin"}, [3, 1, 2, 0]),
        ({"order": "high r(x)", "test": "base"}, [0, 1]),
        ({"text": "nothing like it"}, []),
    ],
)
def test_filters(asked, numbers):
    assert sheet.found(ROWS, "A", **asked) == numbers


def test_missing_r_comes_last_and_changes_nothing():
    assert sheet.found(ROWS, "B", order="low r(x)") == [0, 1, 2, 3]


def test_what_is_told():
    assert sheet.told(ROWS.loc[1], ["A", "B"]) == "base, dog; A: cat 60% (wrong); B: dog 60% (right)"


def test_a_page_frames_the_chosen_one_and_marks_answers():
    small = lambda number: sheet.thumbnail(Image.new("RGB", (4000, 3000), "navy"))
    page = sheet.page(ROWS, [0, 1, 2, 3], "A", 1, small)
    assert page.shape == (sheet.ROWS * sheet.SIDE, sheet.COLUMNS * sheet.SIDE, 4)
    side = sheet.SIDE
    cells = [page[:side, i * side : (i + 1) * side] for i in range(5)]
    framed = [bool((cell[8, 1, :3] == sheet.CHOSEN).all()) for cell in cells]
    assert framed == [False, True, False, False, False]
    green, red = (
        [(cell[..., :3] == colour).all(-1).any() for cell in cells] for colour in (sheet.RIGHT, sheet.WRONG)
    )
    assert green == [True, False, True, False, False] and red == [False, True, False, True, False]
    assert not page[:, 4 * side :, 3].any()  # nothing where no image is
