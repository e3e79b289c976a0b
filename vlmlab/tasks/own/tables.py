"""A table of images: one row per image (or per text of an image), in CSV or parquet; and CoOp's split files.

    path     of the image, relative to the table's folder, to `images/` there, or to `root`
    label    the class: its name, or whole numbers from 0 that a column `name` may call
    text     a caption
    split    train, val or test
    pixels   in place of path: the image itself, whole numbers row by row, as in FER2013

Where there is no label, all other columns are soft labels, a class each, whose numbers (shares or votes) are divided
by their sum.
"""

import csv
import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from .. import split_files
from .columns import COLUMNS, base_of, listed, plain
from .listing import Listing, few


def list_csv(path: Path, root: Path) -> Listing:
    """A text table, separated by commas, semicolons, tabs or spaces, in UTF-8."""
    return listed(path, root, read_csv(path))


def list_parquet(path: Path, root: Path) -> Listing:
    try:
        table = pd.read_parquet(path)
    except Exception as e:  # Arrow has its own classes for what damaged files raise
        raise ValueError(f"{path} is not a readable parquet file ({' '.join(str(e).split())[:200]})") from e
    table = table.reset_index(drop=not any(table.index.names))  # pandas keeps a named index as a column
    table.columns = [str(column) for column in table.columns]
    return listed(path, root, table.apply(lambda column: column.map(as_text)))


def list_split(path: Path, root: Path) -> Listing:
    """A split file of CoOp."""
    rows = split_files.read(path, "A table of your own may be CSV or parquet")
    names = split_files.names_of(rows, path)
    flat = [(image, label, part) for part, found in rows.items() for image, label, _ in found]
    paths, labels, parts = map(list, zip(*flat))
    return Listing(path, "a split file as CoOp's", base_of(path, root, paths[0]), paths, parts, names, labels)


def as_text(value: object) -> str:
    """A cell of a typed table as a CSV would hold it; whole floats as whole numbers."""
    if value is None or value is pd.NA or value != value:
        return ""
    if isinstance(value, (list, tuple, dict, bytes, np.ndarray)):
        raise ValueError(
            f"a cell holds {type(value).__name__}; the columns hold texts and numbers, images are files"
        )
    return str(int(value)) if isinstance(value, (float, np.floating)) and value == int(value) else str(value)


def read_csv(path: Path) -> pd.DataFrame:
    """The cells of a CSV as text. ValueError for what is none: binary, in another encoding, uneven, without rows."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4096]:
        raise ValueError(f"{path} is no text in UTF-8 (UTF-16 or binary); save it as CSV in UTF-8")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is no text in UTF-8 ({e}); save it as CSV in UTF-8") from None
    found = separator(path, text)
    cells = {
        "sep": r"\s+" if found == " " else found,
        "dtype": str,
        "keep_default_na": False,
        "index_col": False,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the first
            return pd.read_csv(io.StringIO(text), **cells).fillna("")
    except (ValueError, csv.Error, pd.errors.ParserWarning) as e:
        raise ValueError(f"{path} is no table: {' '.join(str(e).split())}") from None


def separator(path: Path, text: str) -> str:
    """The separator by which the first line has a column of paths."""
    heads = {sep: next(csv.reader(io.StringIO(text), delimiter=sep), []) for sep in ",;\t "}
    for sep, head in heads.items():
        if any(COLUMNS.get(plain(column)) in ("path", "pixels") for column in head):
            return sep
    found = max(heads.values(), key=len)
    raise ValueError(
        f"{path} has no column path in its first line, but {few(map(repr, found)) or 'nothing'}; a table has the "
        "columns path and label (or text), perhaps split"
    )
