"""What a claim measures, from tidy rows: signed effects in every unit (task, block, ...) of every seed.

Rows of the same unit and seed are paired: effects are formed there, before anything is averaged. All numbers are wide
frames, a row per unit and seed and a column per draw of the test concepts (see resampling.py).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..resampling import moments


def select(rows: pd.DataFrame, where: dict) -> pd.DataFrame:
    """The rows with these values (one or a list per column). LookupError names what is not there."""
    for column, wanted in where.items():
        if column not in rows:
            raise LookupError(f"there is no column {column!r}, but {', '.join(map(str, rows.columns))}")
        wanted = wanted if isinstance(wanted, list) else [wanted]
        lacks = [w for w in wanted if not (rows[column] == w).any()]
        if lacks:
            there = ", ".join(map(str, rows[column].dropna().unique()[:8]))
            raise LookupError(f"there are no rows with {column} = {lacks[0]}; {column} is {there}")
        rows = rows[rows[column].isin(wanted)]
    return rows


class Side:
    """Selections of rows as wide frames; of rows that are wide already, columns 0, 1, ... are the draws."""

    def __init__(self, rows: pd.DataFrame, units: list[str], value: str, weight: pd.DataFrame | None):
        self.rows, self.units, self.value, self.weight = rows, units, value, weight

    def __call__(self, where: dict) -> pd.DataFrame:
        """The mean of a selection per unit and seed."""
        chosen = select(self.rows, where)
        draws = [c for c in chosen if isinstance(c, int)]
        if draws:
            return chosen.groupby(self.units, dropna=False)[draws].mean()
        return moments(chosen, self.units, self.value, self.weight)[1]

    def spread(self, where: dict) -> tuple[pd.DataFrame, ...]:
        """(count, mean, sum of squares) of a selection per unit and seed."""
        chosen = select(self.rows, where)
        if any(isinstance(c, int) for c in chosen):
            raise LookupError("an effect size needs single measurements; these rows are means")
        return moments(chosen, self.units, self.value, self.weight)


def common(frame: pd.DataFrame) -> pd.DataFrame:
    """The units that both sides have."""
    frame = frame.dropna(subset=[0])
    if frame.empty:
        raise LookupError("the two sides have no unit in common")
    return frame


def minus(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    return common(a - b)


def effect_size(a: tuple[pd.DataFrame, ...], b: tuple[pd.DataFrame, ...]) -> pd.DataFrame:
    """Cohen's d with the variances pooled by their degrees of freedom, as `measures.effect_size` has it."""
    (n, mean, squares), (m, other, others) = a, b
    if (n[0] < 2).any() or (m[0] < 2).any():
        raise LookupError("an effect size needs two samples on each side")
    with np.errstate(invalid="ignore", divide="ignore"):
        return common((mean - other) / np.sqrt((squares + others) / (n + m - 2)))


def gap(side: Side, where: dict, over: dict) -> pd.DataFrame:
    """The difference of the two selections of `over` within a selection."""
    ((column, (first, second)),) = over.items()
    return minus(side({**where, column: first}), side({**where, column: second}))


def gaps(side: Side, claim) -> list[pd.DataFrame]:
    """The differences within `of` and within `against`."""
    return [gap(side, claim.of, claim.gap), gap(side, claim.against, claim.other_gap or claim.gap)]


def quotient(side: Side, claim) -> pd.DataFrame:
    """The column `value` in parts of the column `by`, row by row."""
    if claim.by not in side.rows:
        raise LookupError(f"there is no column {claim.by!r}, but {', '.join(map(str, side.rows.columns))}")
    rows = side.rows.assign(**{claim.value: side.rows[claim.value] / side.rows[claim.by]})
    return Side(rows, side.units, claim.value, side.weight)(claim.of)


def correlation(side: Side, claim) -> pd.DataFrame:
    """Spearman's rank correlation of `value` and `by` over the units, per seed; test concepts stay as they are."""
    if missing := [c for c in (claim.value, claim.by, "seed") if c not in side.rows]:
        raise LookupError(f"there is no column {missing[0]!r}, but {', '.join(map(str, side.rows.columns))}")
    pair = [claim.value, claim.by]
    means = select(side.rows, claim.of).groupby(side.units)[pair].mean()
    found = means.groupby("seed").apply(lambda g: g[claim.value].corr(g[claim.by], method="spearman"))
    return found.to_frame(0)


# name -> (fields it needs, its signed parts from a Side and the claim: one, or two whose sizes or values are compared)
MEASURES: dict[str, tuple[tuple[str, ...], Callable]] = {
    "level": ((), lambda side, c: [side(c.of)]),
    "difference": (("of", "against"), lambda side, c: [minus(side(c.of), side(c.against))]),
    "ratio": (("of", "against"), lambda side, c: [common(side(c.of) / side(c.against))]),
    "effect_size": (("of", "against"), lambda s, c: [effect_size(s.spread(c.of), s.spread(c.against))]),
    "gap_change": (("of", "against", "gap"), gaps),
    "quotient": (("by",), lambda side, c: [quotient(side, c)]),
    "closer": (
        ("of", "against", "to"),
        lambda side, c: [minus(side(where), side(c.to)) for where in (c.of, c.against)],
    ),
    "correlation": (("by",), lambda side, c: [correlation(side, c)]),
}
