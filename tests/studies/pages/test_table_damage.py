"""Tables that nobody can use are found, and those that are right are not."""

import pytest

from vlmlab.studies.pages.table_damage import of_table


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,\n,2\n", ""),
        (b'a,b\n"x\ny",nanometre\n', ""),
        (b"", "t.csv has no row"),
        (b"a,b\n", "t.csv has no row"),
        (b"a,b\n1,2\n3\n", "t.csv, row 3: 1 cells under 2 names"),
        (b"a,b\n1,nan\n", "t.csv, row 2: b is nan; a missing value is an empty cell"),
        (b"a,b\n-inf,1\n", "t.csv, row 2: a is -inf"),
        (b"\x89PNG\r\n", "t.csv cannot be read: 'utf-8' codec"),
        (b'a\n"x', "t.csv cannot be read: unexpected end of data"),
    ],
)
def test_tables(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    found = of_table(path)
    assert found.startswith(words) and bool(found) == bool(words)
