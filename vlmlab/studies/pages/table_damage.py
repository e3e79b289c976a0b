"""Tables that nobody can use, found when a notebook has written them."""

import csv
from pathlib import Path


def of_table(path: Path) -> str:
    """What is wrong with an artefact's CSV; "" for nothing. A missing value is an empty cell."""
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
            if cell.strip().lower() in ("nan", "inf", "-inf"):
                where = f"{path.name}, row {number}"
                return f"{where}: {name} is {cell.strip()}; a missing value is an empty cell"
    return ""
