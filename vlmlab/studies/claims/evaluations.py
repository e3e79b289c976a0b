"""What a claim measures: one effect with its spread over seeds, from tidy rows, and the verdict on it.

Rows with a column `seed` are paired: the effect is formed in every unit (task, block, ...) of every seed,
reduced over the units, and the seeds give mean, standard deviation and a 95 % t-interval. Rows that are
summaries already (mean, sd, n) cannot be paired: squared standard errors add up, and the interval has the
degrees of freedom of Welch and Satterthwaite.

The four verdicts: `supported` and `refuted` when the whole interval lies where the claim holds, or where it
does not; `undecided` when it reaches across the threshold or there is one seed only; `not testable here` when
runs or files are missing. They say what these runs show, at the scale of their profile.
"""

import math
from collections.abc import Callable

import pandas as pd

from ... import measures
from ..pages.intervals import Estimate, over_seeds, quantile

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
NOT_TESTABLE = "not testable here"
VERDICTS = (SUPPORTED, REFUTED, UNDECIDED, NOT_TESTABLE)
# how files name their summaries: mean, standard deviation over seeds, what its divisor lacks from n
SUMMARIES = (("mean", "sd", 1), ("measured_mean", "measured_sd", 1), ("mean", "sd_over_seeds", 0))


def select(rows: pd.DataFrame, where: dict) -> pd.DataFrame:
    """The rows with these values (one or a list per column). LookupError names what is not there."""
    for column, wanted in where.items():
        if column not in rows:
            raise LookupError(f"there is no column {column!r}, but {', '.join(rows.columns)}")
        wanted = wanted if isinstance(wanted, list) else [wanted]
        lacks = [w for w in wanted if not (rows[column] == w).any()]
        if lacks:
            there = ", ".join(map(str, rows[column].dropna().unique()[:8]))
            raise LookupError(f"there are no rows with {column} = {lacks[0]}; {column} is {there}")
        rows = rows[rows[column].isin(wanted)]
    return rows


def cells(rows: pd.DataFrame, where: dict, units: list[str], value: str) -> pd.DataFrame:
    """Per unit: mean, values (of the rows in it, unless they are summaries), se2 (squared standard error) and q (se2 squared / its df).

    Rows of one seed have no error of their own: their seeds are compared later.
    """
    chosen = select(rows, where)
    if value in chosen:
        group = chosen.groupby(units)[value] if units else chosen.assign(all=0).groupby("all")[value]
        values = group.apply(lambda of_unit: of_unit.to_numpy())
        return pd.DataFrame({"mean": group.mean(), "values": values, "se2": 0.0, "q": 0.0})
    mean, sd, lacks = next(s for s in SUMMARIES if {*s[:2]} <= set(chosen))
    frame = chosen.set_index(units) if units else chosen.reset_index(drop=True)
    if not frame.index.is_unique:
        raise LookupError(f"{where} leaves several summaries per {' and '.join(units) or 'claim'}")
    se2 = frame[sd] ** 2 / (frame["n"] - 1 + lacks)
    return pd.DataFrame({"mean": frame[mean], "se2": se2, "q": se2**2 / (frame["n"] - 1)})


def minus(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    return combined(a["mean"] - b["mean"], a["se2"] + b["se2"], a["q"] + b["q"])


def over(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """a / b; to first order its squared error is (se2_a + ratio² se2_b) / b²."""
    ratio = a["mean"] / b["mean"]
    return combined(
        ratio,
        (a["se2"] + ratio**2 * b["se2"]) / b["mean"] ** 2,
        (a["q"] + ratio**4 * b["q"]) / b["mean"] ** 4,
    )


def combined(mean: pd.Series, se2: pd.Series, q: pd.Series) -> pd.DataFrame:
    """The units that both sides have."""
    found = pd.DataFrame({"mean": mean, "se2": se2, "q": q}).dropna(subset="mean")
    if found.empty:
        raise LookupError("the two sides have no unit in common")
    return found


def effect_size(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Cohen's d of the rows in a unit (measures.effect_size). LookupError without two rows on each side."""
    if "values" not in a:
        raise LookupError("an effect size needs single measurements; these rows are means and spreads")
    units = a.index.intersection(b.index)
    try:
        d = [float(measures.effect_size(b["values"][unit], a["values"][unit])) for unit in units]
    except ValueError as error:
        raise LookupError(str(error)) from error
    return combined(pd.Series(d, units, dtype=float), a["se2"] + b["se2"], a["q"] + b["q"])


def gap_change(side: Callable, claim) -> pd.DataFrame:
    """The gap between the two selections of `claim.gap` in `of`, minus that in `against`."""
    ((column, (first, second)),) = claim.gap.items()
    gaps = [
        minus(side({**where, column: first}), side({**where, column: second}))
        for where in (claim.of, claim.against)
    ]
    return minus(*map(size, gaps)) if claim.magnitude else minus(*gaps)


def closer(side: Callable, claim) -> pd.DataFrame:
    """The distance of `of` from `to`, minus that of `against` from it: below 0 where `of` is closer."""
    return minus(*(size(minus(side(where), side(claim.to))) for where in (claim.of, claim.against)))


def size(frame: pd.DataFrame) -> pd.DataFrame:
    """Without sign."""
    return frame.assign(mean=frame["mean"].abs())


# name -> (fields it needs, what it computes from `side`, which turns a selection into cells)
MEASURES = {
    "level": ((), lambda side, c: side(c.of)),
    "difference": (("of", "against"), lambda side, c: minus(side(c.of), side(c.against))),
    "ratio": (("of", "against"), lambda side, c: over(side(c.of), side(c.against))),
    "effect_size": (("of", "against"), lambda side, c: effect_size(side(c.of), side(c.against))),
    "gap_change": (("of", "against", "gap"), gap_change),
    "closer": (("of", "against", "to"), closer),
    "correlation": (("by",), None),
}


def estimate(rows: pd.DataFrame, claim) -> Estimate:
    """The effect that a claim asks for. LookupError says what the rows lack.

    rows: one per measurement with a column `claim.value`, and `seed` where there is one; or summaries.
    """
    rows = select(rows, claim.where)
    for name in {claim.value, claim.by} & {*rows}:
        if not pd.api.types.is_numeric_dtype(rows[name]):
            raise ValueError(f"the column {name!r} holds {rows[name].iloc[0]!r}, which is no number")
    if claim.value in rows:
        rows = rows.dropna(subset=claim.value)
    elif not any({mean, sd} <= set(rows) for mean, sd, _ in SUMMARIES) or "n" not in rows:
        raise LookupError(f"there is no column {claim.value!r}, but {', '.join(rows.columns)}")
    if claim.measurement == "correlation":
        return over_seeds(correlations(rows, claim))
    paired = claim.value in rows and "seed" in rows
    units = [u for u in claim.over if u in rows] + ["seed"] * paired
    found = MEASURES[claim.measurement][1](lambda where: cells(rows, where, units, claim.value), claim)
    if claim.magnitude and claim.measurement != "gap_change":  # which takes that of each gap
        found = size(found)
    if paired:
        note = f"from {len(found)} values by {' and '.join(units)}"
        return over_seeds(found["mean"].groupby("seed").agg(claim.reduce), note)
    return summarised(found, claim.reduce, None if claim.value in rows else int(rows["n"].min()))


def correlations(rows: pd.DataFrame, claim) -> pd.Series:
    """Spearman's rank correlation of `value` and `by` over the units, per seed."""
    if missing := [c for c in (claim.value, claim.by, "seed") if c not in rows]:
        raise LookupError(f"there is no column {missing[0]!r}, but {', '.join(rows.columns)}")
    pair = [claim.value, claim.by]
    means = select(rows, claim.of).groupby([*(u for u in claim.over if u in rows), "seed"])[pair].mean()
    return means.groupby("seed").apply(lambda g: g[claim.value].corr(g[claim.by], method="spearman"))


def summarised(units: pd.DataFrame, reduce: str, n: int | None) -> Estimate:
    """The same from units with errors: their mean, or the smallest or largest with its own error.

    n is None for single numbers: nobody knows their errors.
    """
    if reduce == "mean":
        k = len(units)
        mean, se2, q = units["mean"].mean(), units["se2"].sum() / k**2, units["q"].sum() / k**4
    else:
        mean, se2, q = units.loc[getattr(units["mean"], f"idx{reduce}")(), ["mean", "se2", "q"]]
    mean = float(mean)
    if n is None:
        return Estimate(mean)
    if n < 2 or not math.isfinite(se2):
        return Estimate(mean, n=n)
    half = quantile(se2**2 / q) * math.sqrt(se2) if se2 else 0.0
    note = "not paired: from means and spreads"
    return Estimate(mean, math.sqrt(se2 * n), mean - half, mean + half, n, note)


def verdict(found: Estimate, direction: str, threshold: float | list[float], exact: bool) -> tuple[str, str]:
    """(verdict, reason). direction: above or below a number, or within two.

    exact: the number does not depend on the seed, so that it needs no interval.
    """

    def holds(x: float) -> bool:
        if direction == "within":
            return threshold[0] <= x <= threshold[1]
        return x > threshold if direction == "above" else x < threshold

    if exact:
        return SUPPORTED if holds(found.effect) else REFUTED, "exact: no seed plays a part"
    side = f"the value lies {'where the claim holds' if holds(found.effect) else 'where it does not hold'}"
    if found.low is None:
        seeds = "n = 1: one seed has no spread" if found.n == 1 else "its spread over seeds is not known"
        return UNDECIDED, f"{seeds}; {side}"
    if holds(found.low) and holds(found.high):
        return SUPPORTED, found.note
    apart = not (holds(found.low) or holds(found.high))
    if direction == "within":
        apart = found.high < threshold[0] or found.low > threshold[1]
    if apart:
        return REFUTED, found.note
    return UNDECIDED, "; ".join(filter(None, ["the interval reaches across the threshold", side, found.note]))
