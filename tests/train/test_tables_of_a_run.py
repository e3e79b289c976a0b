"""Measured rows as a terminal shows them."""

import pandas as pd
import pytest

from vlmlab.train.run import COLUMNS
from vlmlab.train.tables import WHAT, Scores, number, records, table

ROW = dict(
    study="adhoc", method="mmrlpp", variant="", task="emoji/food", protocol="base_to_new", shots=16, seed=1
)
ROW |= dict(rule="unified", metric="balanced_accuracy", n=1200, key="27169d7f05ab40cb", test="a" * 16)


def scores(*changes):
    return Scores([ROW | {"split": "base", "value": 12.3456} | change for change in changes], columns=COLUMNS)


def test_no_column_is_left_out_and_what_is_the_same_is_said_once():
    head, columns, first, second = repr(scores({}, {"split": "new", "value": 0.0123456})).splitlines()
    assert head == "study adhoc, method mmrlpp, task emoji/food, protocol base_to_new, shots 16, seed 1"
    assert columns.split() == ["split", "rule", "metric", "value", "n"]
    assert first.split() == ["base", "unified", "balanced_accuracy", "12.35", "1200"]
    assert second.split()[3] == "0.01235"


def test_what_differs_has_a_column():
    text = table(scores({}, {"seed": 2, "shots": None}))
    assert text.splitlines()[1].split()[:3] == ["shots", "seed", "split"]
    assert "variant" not in text and "nan" not in text.lower()


def test_a_session_gets_the_ends_of_a_long_one():
    lines = repr(scores(*({"seed": i} for i in range(500)))).splitlines()
    assert len(lines) == 61 and "..." in lines and lines[-1].split()[0] == "499"


def test_what_is_made_of_it_is_an_ordinary_frame():
    frame = scores({}, {"split": "new"})
    assert (
        type(frame[frame["split"] == "new"]) is pd.DataFrame
        and type(pd.concat([frame, frame])) is pd.DataFrame
    )
    assert "Columns: [study" in repr(Scores(columns=COLUMNS))
    assert repr(Scores({"a": [1]})) == repr(pd.DataFrame({"a": [1]}))


def test_plain_values_for_json():
    (row,) = records(scores({"shots": None}))
    assert row["shots"] is None and row["value"] == 12.3456 and type(row["n"]) is int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((100.0, "100.00"), (9.87654, "9.877"), (-54.321, "-54.32"), (0.0, "0")),
        *((10.0, "10.00"), (10.567, "10.57"), (9.99, "9.99"), (-10.0, "-10.00"), (-9.99, "-9.99")),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("rows", "shown"), [(58, None), (59, (28, 30))])
def test_sixty_lines_are_shown_whole_and_more_by_their_ends(rows, shown):
    """With the two lines above the rows."""
    frame = scores(*({"seed": i} for i in range(rows)))
    lines, whole = repr(frame).splitlines(), table(frame).splitlines()
    assert len(whole) == rows + 2
    assert lines == (whole if shown is None else [*whole[: 2 + shown[0]], "...", *whole[-shown[1] :]])


def test_one_row_and_further_columns():
    text = repr(Scores(scores({"shots": 16.0}).assign(lr=0.5, other="x"))).splitlines()
    assert text[0].endswith("shots 16, seed 1") and text[1].split() == ["lr", "other", "split", *WHAT[1:]]
    assert text[2].split() == ["0.5", "x", "base", "unified", "balanced_accuracy", "12.35", "1200"]
    part = scores({}, {"seed": 2})[["study", "seed", *WHAT]].iloc[1:]  # its rows begin at 1
    assert table(part).splitlines()[0] == "study adhoc, seed 2"
    assert table(part[list(WHAT)]).splitlines()[0].split() == list(WHAT)
    few = Scores({name: ["a"] if name in WHAT[:3] else [20.0] for name in WHAT})
    assert repr(few).splitlines() == table(few).splitlines()
    assert table(few).splitlines()[1].split() == ["a", "a", "a", "20.00", "20"]


def test_lists_stay_lists_in_json():
    given = {"a": [1, None], "b": float("nan"), "c": pd.NA, "d": "x", "e": True}
    assert records(pd.DataFrame([given])) == [{"a": [1, None], "b": None, "c": None, "d": "x", "e": True}]
