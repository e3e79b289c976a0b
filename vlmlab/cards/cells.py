"""Cells and tables of a model card."""

import pandas as pd


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def percent(value: float, digits: int = 0) -> str:
    """A share as percent, nothing for NaN."""
    return "" if pd.isna(value) else f"{100 * value:.{digits}f}"
