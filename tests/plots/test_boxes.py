"""Boxes and arrows: every box is drawn where it says, and a link needs two boxes."""

import pandas as pd
import pytest

from vlmlab import plots

FRAME = pd.DataFrame(
    [("a", 0, 0, "first", "teacher"), ("b", 1, 0, "second_$x$", "student"), ("c", 1, 1, "third", "student")],
    columns=["name", "column", "row", "text", "group"],
)


def test_boxes_stand_at_their_places_with_their_words():
    ax = plots.boxes(FRAME, [("a", "b"), ("b", "c")])
    texts = {t.get_text(): t.get_position() for t in ax.texts if t.get_text()}
    assert texts == {"first": (0, 0), "second_$x$": (1, 0), "third": (1, 1)}
    assert len(ax.patches) == 3 and ax.yaxis_inverted()
    assert sum(1 for t in ax.texts if hasattr(t, "arrow_patch")) == 2


def test_a_link_to_nothing_and_a_name_twice_are_refused():
    with pytest.raises(ValueError, match="leads to 'd'"):
        plots.boxes(FRAME, [("a", "d")])
    with pytest.raises(ValueError, match="'a' is there twice"):
        plots.boxes(pd.concat([FRAME, FRAME[:1]]))
