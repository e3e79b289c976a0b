"""Tables of the gallery from CSVs made by hand: what stands where, what is compared, marked and said once."""

import csv
import io

import pytest

from vlmlab.studies.pages import gallery_table, number_texts
from vlmlab.studies.pages.gallery_table import apart, comparison


def rows_of(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


def grid(table: dict) -> dict[str, list[str | None]]:
    """Row -> its texts, gains included."""
    return {row["name"]: [cell and cell["value"] for _, cell in row["cells"]] for row in table["rows"]}


def best(table: dict) -> list[tuple[str, int]]:
    """(row, column) of what is marked."""
    cells = [(row["name"], i, cell) for row in table["rows"] for i, (_, cell) in enumerate(row["cells"])]
    return [(name, i) for name, i, cell in cells if cell and cell.get("best")]


TIDY = """method,task,split,shots,kind,mean,sd,n,note
zero_shot,average,base,16.0,measured,50,0,3,
zero_shot,average,new,16.0,measured,60,0,3,
zero_shot,average,hm,16.0,measured,54.5454,0,3,
zero_shot,average,mean_of_hm,16.0,measured,54,0,3,
coop,average,base,16.0,measured,70.126,1.5,3,
coop,average,new,16.0,measured,59,2,3,few images
coop,average,hm,16.0,measured,64.0833,2,3,
zero_shot,average,base,,published,69.3,,,
zero_shot,average,new,,published,74.22,,,rounded
zero_shot,average,hm,,published,71.7,,,
coop,average,base,,published,82.6,,,
coop,average,new,,published,63.2,,,rounded
coop,average,hm,,published,71.61,,,few images
delta,average,hm,16.0,measured,9.5,,,
"""


def test_a_whole_table():
    (found,) = comparison(rows_of(TIDY), ["absent", "zero_shot", "coop"], same=True)
    assert found["title"] == "" and found["folded"] is False and found["down"] == "method"
    assert found["kinds"] == {"measured": 3, "published": 3}
    splits = ("base", "new", "hm")
    assert found["columns"] == [(kind, split) for kind in ("measured", "published") for split in splits]
    assert grid(found) == {
        "zero_shot": ["50.00", "60.00", "54.55", "69.30", "74.22", "71.70", None, None, "−17.15"],
        "coop": ["70.13", "59.00", "64.08", "82.60", "63.20", "71.61", "+9.54", "−0.09", "−7.53"],
        "delta": [None, None, "9.50", None, None, None, None, None, None],
    }
    kinds = [kind for kind, _ in found["rows"][1]["cells"]]
    assert kinds == ["measured"] * 3 + ["published"] * 3 + ["measured", "published", "difference"]
    assert found["gain"] == {
        "over": "zero_shot",
        "column": "hm",
        "kinds": ["measured", "published", "difference"],
    }
    assert best(found) == [
        ("coop", 0),
        ("coop", 2),
    ]  # not of new ones, which zero_shot has by less than the spread
    cells = {row["name"]: [cell for _, cell in row["cells"]] for row in found["rows"]}
    assert [cell.get("spread") for cell in cells["coop"][:4]] == ["1.50", "2.00", "2.00", None]
    assert found["notes"] == ["rounded", "few images"] and found["without"] == "mean_of_hm"
    marks = {name: [cell and cell.get("mark") for cell in row] for name, row in cells.items()}
    assert marks["coop"][:6] == [None, 2, None, None, 1, 2] and marks["zero_shot"][4] == 1
    assert found["same"] == [("task", "average"), ("shots", "16")]  # one row has no number of seeds


@pytest.mark.parametrize(
    ("text", "reference", "gain"),
    [
        ("method,split,kind,mean\na,hm,measured,5\na,x,measured,1\nb,x,measured,3\n", ["a"], ("a", "hm")),
        ("method,task,kind,mean\na,average,measured,5\na,x,measured,1\nb,x,measured,3\n", ["a"], None),
        ("method,split,kind,mean\na,x,measured,5\na,average,measured,1\nb,x,measured,3\n", ["a"], ("a", "average")),
        ("method,split,kind,mean\na,x,measured,5\na,y,measured,1\nb,y,measured,3\n", ["a"], ("a", "y")),
        ("method,split,kind,mean\na,x,measured,5\na,y,measured,1\nb,x,measured,3\n", ["b"], None),
        ("method,split,kind,mean\na,x,measured,5\nb,x,measured,3\n", [], None),
        ("method,split,kind,mean\na,x,measured,5\na,y,measured,3\n", ["a"], None),  # one method alone
        ("method,metric,kind,mean\na,x,measured,5\nb,x,measured,3\n", ["a"], None),  # less may be better
        ("task,shots,kind,mean\na,4,measured,5\nb,4,measured,3\n", ["a"], None),  # no methods
        ("method,shots,kind,mean\na,1,measured,5\na,2,measured,5\nb,2,measured,3\n", ["a"], ("a", "2")),
    ],
)  # fmt: skip
def test_what_gains_are_formed_over(text, reference, gain):
    table = comparison(rows_of(text), reference)[0]
    assert (table["gain"] and (table["gain"]["over"], table["gain"]["column"])) == gain


def test_a_gain_needs_both_numbers():
    text = "method,split,kind,mean\na,x,measured,5\nb,x,measured,3\na,y,measured,2\nc,y,measured,2.5\n"
    (table,) = comparison(rows_of(text), ["a"])
    assert grid(table) == {
        "a": ["5.000", "2.000", None],
        "b": ["3.000", None, None],
        "c": [None, "2.500", "+0.50"],
    }


@pytest.mark.parametrize(
    ("a", "b", "above"),
    [
        ((10.1, 1, 3), (9, 1, 3), True),
        ((10, 1, 3), (9, 1, 3), False),  # as much as the spread is not more
        ((9, 1, 3), (10.1, 1, 3), False),
        ((10, 0, 2), (9.99, 0, 2), True),
        ((10, 0, 1), (9, 0, 3), False),  # one seed has no spread
        ((10, 0, 3), (9, 0, 1), False),
        ((10 + 2.65, 1, 2), (10, 3, 4), True),  # the square root of (1 * 1 + 3 * 9) / 4 is 2.6458
        ((10 + 2.64, 1, 2), (10, 3, 4), False),
        ((10 + 2.65, 3, 4), (10, 1, 2), True),
        ((10 + 2.64, 3, 4), (10, 1, 2), False),
    ],
)
def test_above_by_more_than_the_pooled_spread(a, b, above):
    assert apart(a, b) == above


@pytest.mark.parametrize(
    ("lines", "marked"),
    [
        ("a,x,5,1,3\nb,x,7,1,3\nc,x,1,1,3\n", [("b", 0)]),
        ("a,x,5,1,3\nb,x,7,1,3\nc,x,6.5,1,3\n", []),  # not above every other
        ("a,x,5,,3\nb,x,7,,3\n", [("b", 0)]),  # a spread that is not told is none
        ("a,x,5,1,\nb,x,7,1,\n", []),
        ("a,x,5,1,3\n", []),  # nothing to be better than
        ("a,x,5,1,3\nb,x,7,1,3\na,y,9,1,3\nb,y,7,1,3\n", [("a", 1), ("b", 0)]),
        ("a,x,5,1,3\nb,x,7,1,3\ndelta,x,99,1,3\n", [("b", 0)]),
    ],
)
def test_what_is_marked_best(lines, marked):
    (table,) = comparison(
        rows_of(
            f"method,split,mean,sd,n,kind\n{lines}".replace("\n", ",measured\n").replace(
                "kind,measured", "kind"
            )
        )
    )
    assert best(table) == marked


def test_columns_that_name_the_kind():
    text = "method,measured_mean,measured_sd,n,measured_note,published,published_note,planned_value,measured_value\n"
    (table,) = comparison(rows_of(f"{text}a,5.5,0.5,3,own,6.25,theirs,7,8\nb,4,1,3,,,,,\nc,,,,,,,1,\n"))
    assert table["columns"] == [("measured", ""), ("published", ""), ("planned", "")]
    assert grid(table) == {"a": ["5.500", "6.25", "7"], "b": ["4.000", None, None], "c": [None, None, "1"]}
    assert table["notes"] == ["own", "theirs"] and table["same"] == [("seeds", "3")]
    text = "method,measured_median,measured_q1,measured_q3,measured_mean\na,2,1,4,9\n"
    (row,) = comparison(rows_of(text))[0]["rows"]
    assert (row["cells"][0][1]["value"], row["cells"][0][1]["spread"]) == ("2.000", "1.000 to 4.000")


@pytest.mark.parametrize(
    ("lines", "places"),
    [
        ("x,16,measured,1 x,,published,2", ["1 2"]),
        ("x,16,measured,1 x,8,measured,3 x,,published,2", ["1", "3", "2"]),  # of which of them is not known
        ("x,16,measured,1 x,4,published,2", ["1", "2"]),  # says something else
        ("x,16,measured,1 y,,published,2", ["1", "2"]),
        ("x,16,measured,1 x,,published,2 x,,published,4", ["1 2", "4"]),
        ("x,,published,2 x,16,measured,1", ["1 2"]),  # whatever comes first
        ("x,16,measured,1 x,16,planned,2 x,16,published,3", ["1 2 3"]),
        ("x,16,measured,1 x,16,measured,2", ["1", "2"]),
        ("x,16,measured, x,,published,2", ["2"]),
    ],
)
def test_which_numbers_are_about_the_same(lines, places):
    text = "\n".join(["split,shots,kind,mean", *lines.split()])
    merged = gallery_table.merged(rows_of(text))
    assert [" ".join(n["value"] for n in numbers.values()) for _, numbers in merged] == places


@pytest.mark.parametrize(
    ("head", "lines", "layout"),
    [
        ("method,split,metric", "a,x,p b,y,q", ("split", "method", ["metric"])),
        ("method,metric,parameter", "a,x,p b,y,q", ("metric", "method", ["parameter"])),
        ("method,parameter,shots", "a,x,1 b,y,2", ("parameter", "method", ["shots"])),
        ("method,shots", "a,1 b,2", ("shots", "method", [])),
        ("method,split,shots", "a,x,1 b,x,1", ("split", "method", [])),  # none of them varies
        ("method,split,shots", "a,,1 b,,1", ("shots", "method", [])),
        ("method,other", "a,x b,y", (None, "method", ["other"])),
        ("split,other,last", "x,1,2 y,3,4", ("split", "other", ["last"])),
        ("method,split", "a,x a,y", ("split", "split", [])),
        ("method,other", "a,x a,x", (None, "method", [])),
        ("method,task,split", "a,t,source b,u,target", ("task", "method", [])),
        ("method,task,split", "a,t,test b,t,test a,u,test", ("task", "method", [])),
        ("method,task,split", "a,t,base b,u,new a,u,base", ("split", "method", ["task"])),
    ],
)
def test_what_stands_side_by_side_and_what_below_each_other(head, lines, layout):
    found = [(row, {}) for row in rows_of("\n".join([head, *lines.split()]))]
    assert gallery_table.layout(found) == layout


def test_averages_come_first_then_what_was_measured_and_only_the_first_is_open():
    text = """method,task,split,kind,mean
a,cars,new,published,5
b,cars,new,published,5
a,dogs,new,measured,1
b,dogs,new,measured,1
a,average,new,measured,3
b,average,base,measured,3
a,average,other,published,2
"""
    found = comparison(rows_of(text))
    assert [(t["title"], [*t["kinds"]], t["folded"]) for t in found] == [
        ("average", ["measured"], False),
        ("average", ["published"], False),
        ("dogs", ["measured"], True),
        ("cars", ["published"], True),
    ]


def test_the_average_is_the_last_column_of_its_kind():
    text = "method,task,kind,mean\n" + "".join(
        f"{m},{task},{kind},{v}\n"
        for kind in ("published", "measured")
        for v, task in enumerate(("average", "food", "pets"))
        for m in "ab"
    )
    tables = comparison(rows_of(text.replace("task,", "shots,")))
    assert tables[0]["columns"] == [
        (kind, name) for kind in ("measured", "published") for name in ("food", "pets", "average")
    ]


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ("a,x,measured a,x,published a,x,planned", [["measured", "published", "planned"]]),
        ("a,x,measured b,x,published", [["measured"], ["published"]]),  # no row in common
        ("a,x,measured a,y,published", [["measured"], ["published"]]),  # a column that the first has not
        ("a,x,measured a,y,measured a,y,published", [["measured", "published"]]),
        ("a,x,published b,x,planned a,x,planned", [["published", "planned"]]),
    ],
)
def test_kinds_share_a_table_where_they_share_rows_and_columns(lines, parts):
    cells = [line.split(",") for line in lines.split()]
    found = [({"method": m, "split": s}, {kind: {"value": "1"}}) for m, s, kind in cells]
    kinds = [gallery_table.kinds_of(part) for part in gallery_table.by_setting(found, "split", "method")]
    assert kinds == parts


def test_what_all_say_is_said_once_and_seeds_only_where_they_agree():
    head = "method,split,shots,dropped,kind,mean,n,note\n"
    (one,) = comparison(rows_of(f"{head}a,x,4.0,,measured,1,3,top-1\nb,x,4.0,,measured,1,2,top-1\n"))
    assert one["same"] == [("shots", "4"), ("measured", "top-1")] and one["notes"] == []
    (two,) = comparison(rows_of(f"{head}a,x,4.0,,measured,1,3,top-1\n"))
    assert two["notes"] == ["top-1"]  # one number shares it with none
    (other,) = comparison(rows_of(f"{head}a,x,4,,measured,1,3,top-1\nb,x,4,,measured,1,3,\n"))
    assert other["notes"] == ["top-1"] and other["same"] == [("shots", "4"), ("seeds", "3")]


def test_a_list_has_all_that_a_table_has():
    (found,) = comparison(rows_of("name,size,of\na,1.0,x\nb,2.5,y\n"), ["a"])
    assert found == {
        "title": "",
        "kinds": {},
        "down": "name",
        "same": [],
        "gain": None,
        "folded": False,
        "notes": [],
        "without": "",
        "columns": [("", "size"), ("", "of")],
        "rows": [
            {"name": "a", "cells": [("", {"value": "1"}), ("", {"value": "x"})]},
            {"name": "b", "cells": [("", {"value": "2.5"}), ("", {"value": "y"})]},
        ],
    }


def test_digits_are_those_of_the_column():
    text = (
        "method,metric,kind,mean,sd,n\na,top,measured,50.126,1.234,3.0\na,loss,measured,0.51234,0.01234,3\n"
    )
    (table,) = comparison(rows_of(f"{text}b,top,measured,9.5,1,3\nb,loss,measured,-0.2,0,3\n"))
    assert grid(table) == {"a": ["50.13", "0.5123"], "b": ["9.50", "−0.2000"]}
    first = table["rows"][0]["cells"][0][1]
    assert (first["spread"], first["n"], first["raw"], first["sd"]) == ("1.23", "3", "50.126", "1.234")


@pytest.mark.parametrize(
    ("values", "digits"),
    [(["10"], 2), (["9.99"], 3), (["1"], 3), (["0.99"], 4), (["-10", "0.1"], 2), (["0.1", "-1"], 3), (["x"], 4), ([], 4)],
)  # fmt: skip
def test_digits_of_measured_numbers(values, digits):
    assert (
        number_texts.decimals([*({"measured": {"value": v}} for v in values), {"published": {"value": "50"}}])
        == digits
    )


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        ("79.5", 2, "79.50"),
        ("-2.5", 2, "−2.50"),
        ("79.5", 3, "79.5"),
        ("79", 2, "79"),
        ("79.55", 2, "79.55"),
        ("77.7912345678", 3, "77.79"),
        ("77.791234", 3, "77.791234"),
        ("n/a", 2, "n/a"),
    ],
)
def test_stated_numbers_stay_as_they_are_printed(value, places, text):
    assert number_texts.stated({"value": value}, places) == {"value": text}


@pytest.mark.parametrize(
    ("text", "number", "short"),
    [("16.0", 16, "16"), ("1.05", 1.05, "1.05"), ("v2.0", None, "v2.0"), ("inf", None, "inf"), ("", None, ""), ("-1.0", -1, "-1")],
)  # fmt: skip
def test_numbers_in_texts(text, number, short):
    assert number_texts.to_float(text) == number and number_texts.whole(text) == short
    assert number_texts.raw({"raw": text}) == number
    assert number_texts.to_float(None) is None and number_texts.raw(None) is None
