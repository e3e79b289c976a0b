"""Sections are read by their type hints; an error names the field, what it must be, what it is."""

from typing import Literal

import pytest

from vlmlab import schema
from vlmlab.schema import Wrong, convert


class Inner(schema.Section):
    size: schema.Count = 1


class Example(schema.Section):
    id: schema.Name
    kind: Literal["figure", "table"] = "figure"
    rate: schema.Amount | None = None
    seeds: schema.Wholes = (1,)
    flag: bool = False
    inner: schema.described(Inner, "a table of size") = Inner()

    def __post_init__(self):
        if self.flag and self.kind == "table":
            raise Wrong("flag", "does not go with tables")


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        ({"id": "a/b"}, "id", "must be a name of at most 100 letters, digits, - and _; it is 'a/b'"),
        ({"id": "é"}, "id", "must be a name"),
        ({"id": "a\n"}, "id", "must be a name"),
        ({"kind": "table"}, "id", "is missing; needed are id"),
        ({"id": "a", "knd": 1}, "knd", "unknown field (did you mean kind?); legal are id, kind, rate"),
        ({"id": "a", "colour": 1}, "colour", "unknown field; legal are id, kind"),
        ({"id": "a", "kind": "plot"}, "kind", "must be one of figure, table; it is 'plot'"),
        ({"id": "a", "rate": float("nan")}, "rate", "must be a number above 0; it is nan"),
        ({"id": "a", "rate": float("inf")}, "rate", "must be a number above 0; it is inf"),
        ({"id": "a", "rate": "1"}, "rate", "must be a number above 0; it is '1'"),
        (
            {"id": "a", "seeds": [1, True]},
            "seeds",
            "must be a list of whole numbers, not empty; it is [1, True] ([1]:",
        ),
        ({"id": "a", "seeds": []}, "seeds", "must be a list of whole numbers, not empty; it is []"),
        ({"id": "a", "flag": 1}, "flag", "must be true or false; it is 1"),
        ({"id": "a", "inner": {"size": 0}}, "inner", "must be a table of size; it is {'size': 0} (size: "),
        ({"id": "a", "inner": {"sise": 2}}, "inner", "must be a table of size; it is {'sise': 2}"),
        ({"id": "a", "flag": True, "kind": "table"}, "flag", "does not go with tables"),
        ([1], "", "must be a table with the fields id, kind, rate, seeds, flag, inner; it is [1]"),
    ],
)
def test_what_is_wrong_is_named(raw, field, words):
    with pytest.raises(Wrong) as caught:
        convert(raw, Example)
    assert caught.value.field == field and words in str(caught.value), str(caught.value)


def test_what_is_right_is_typed():
    found = convert({"id": "a-b_1", "rate": 2, "seeds": [0, 3], "inner": {"size": 2}}, Example)
    assert (found.id, found.rate, found.seeds, found.inner.size) == ("a-b_1", 2.0, (0, 3), 2)
    assert type(found.rate) is float and found.kind == "figure"
