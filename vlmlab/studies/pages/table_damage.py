"""Tables that nobody can use, found when a notebook has written them."""

import csv
from pathlib import Path

LARGEST = 50_000_000  # bytes: figures in git are smaller, and a page that shows more is none


def read(path: Path):
    """A CSV as a DataFrame, also one from elsewhere. FileNotFoundError, or ValueError that names a damaged file."""
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if damage := of_table(path, empty=True):
        raise ValueError(f"{path} is damaged: {damage}")
    return pd.read_csv(path)


def of_table(path: Path, empty: bool = False) -> str:
    """What is wrong with an artefact's CSV; "" for nothing. A missing value is an empty cell.

    empty: whether a table may also say nan for it, as one from elsewhere does.
    """
    if path.is_file() and (size := path.stat().st_size) > LARGEST:
        return f"{path.name} has {size} bytes; a table of a study has at most {LARGEST}"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        return f"{path.name} cannot be read: {' '.join(str(error).split())}"
    if len(rows) < 2:
        return f"{path.name} has no row"
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            return f"{path.name}, row {number}: {len(row)} cells under {len(rows[0])} names"
        for name, cell in zip(rows[0], row):
            if not empty and cell.strip().lower() in ("nan", "inf", "-inf"):
                where = f"{path.name}, row {number}"
                return f"{where}: {name} is {cell.strip()}; a missing value is an empty cell"
    return ""
