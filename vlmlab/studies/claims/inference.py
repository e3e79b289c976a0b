"""From the signed parts of a claim (effects.py) to an effect with its error, and what may be said of it.

An effect is the mean over units of what the mean over seeds gives. Its error has two sources, which add up: seeds (the
jackknife over seeds, for a mean s²/n) and test concepts (the variance over draws of them). The 95 % interval is
Student's, with the degrees of freedom of Welch and Satterthwaite for the sum.

Without sign, noise adds to an effect. Sizes are compared by their squares, which can be freed of it: that of a unit's
mean m with standard error e is m² - e², the size over units is the root of the mean of these (a root mean square).

An effect *holds* when its whole interval lies where the claim holds, *fails* when it lies where the claim does not, and
is *open* otherwise: also where nothing tells its error, and where it is exactly on the threshold. "For all units" holds
when every unit's interval does (an intersection-union test), and fails when that of one does at the level divided by
the number of units (Bonferroni). An exact number holds or fails: one violation is enough.
"""

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from ..resampling import DRAWS, named, weights
from .effects import MEASURES, Side, select

LEVEL = 0.95
POWER = 0.8
STRATA = ("task", "split", "label")
HOLDS, FAILS, OPEN, UNTESTABLE = "holds", "fails", "open", "untestable"
Bound = float | tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An effect. by_seed, by_concept: its standard errors; None where nothing tells. unit: which one it is of.

    squared: they are of its square, as is the interval; `shown` takes the root, with the sign.
    """

    effect: float
    by_seed: float | None = None
    by_concept: float | None = None
    seeds: int | None = None
    concepts: int | None = None
    unit: str = ""
    squared: bool = False

    def shown(self, x: float) -> float:
        return math.copysign(math.sqrt(abs(x)), x) if self.squared else x

    @property
    def error(self) -> float | None:
        """The standard error over seeds and test concepts; None where there is one seed, or nothing tells. Where no seed
        plays a part (`seeds` is None) it is that over test concepts."""
        if self.seeds is None:
            return self.by_concept
        if self.by_seed is None:
            return None
        return math.hypot(self.by_seed, self.by_concept or 0.0)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the error."""
        parts = [] if self.seeds is None else [(self.by_seed, self.seeds)]
        parts += [(self.by_concept, self.concepts)] if self.by_concept and self.concepts else []
        below = sum(error**4 / max(1, n - 1) for error, n in parts)
        return self.error**4 / below if below else math.inf

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        if self.error is None:
            return None
        half = quantile((1 + level) / 2, self.freedom) * self.error
        return self.effect - half, self.effect + half

    @property
    def detectable(self) -> float | None:
        """The distance from the threshold that such a measurement would call in four of five cases."""
        if not self.error:
            return None
        return (quantile((1 + LEVEL) / 2, self.freedom) + quantile(POWER, self.freedom)) * self.error

    def beyond(self, threshold: float) -> float:
        """One-sided p of an effect that is not above the threshold."""
        from scipy.stats import norm, t

        threshold = math.copysign(threshold**2, threshold) if self.squared else threshold
        if not self.error:
            return 0.0 if self.effect > threshold else 1.0
        score = (self.effect - threshold) / self.error
        return float(norm.sf(score) if math.isinf(self.freedom) else t.sf(score, self.freedom))


def quantile(share: float, freedom: float) -> float:
    """Of Student's t."""
    from scipy.stats import norm, t

    return float(norm.ppf(share) if math.isinf(freedom) else t.ppf(share, freedom))


def estimates(rows: pd.DataFrame, claim) -> list[Estimate]:
    """The effect that a claim asks for, or one per unit for a claim about all. LookupError says what the rows lack.

    rows: one per measurement, with a column `claim.value`, `seed` where there is one (without the column nothing was
    trained or drawn by a seed, and the error is that over concepts alone), and `concept` where test concepts may be drawn anew; or wide rows (columns 0, 1, ... the draws) with the attribute `concepts`.
    """
    rows = select(checked(rows, claim), claim.where)
    units = [u for u in claim.over if u in rows]
    seeded = "seed" in rows
    rows = rows if seeded else rows.assign(seed=0)
    rows = named(rows, units)
    weight = None
    if "concept" in rows and claim.measurement != "correlation":
        strata = [c for c in STRATA if c in rows]
        weight = weights(rows["concept"], rows[strata], DRAWS)
    n = rows.attrs.get("concepts") if weight is None else len(weight)
    side = Side(rows, [*units, "seed"], claim.value, weight)
    parts = MEASURES[claim.measurement][1](side, claim)
    units = [u for u in units if u in parts[0].index.names]
    about = {} if seeded else {"seeds": None}
    if claim.units == "mean" or not units:
        return [dataclasses.replace(estimate(parts, units, claim, n), **about)]
    keys = parts[0].index.droplevel("seed").unique()
    each = [[p[p.index.droplevel("seed") == key] for p in parts] for key in keys]
    return [
        dataclasses.replace(estimate(of_unit, units, claim, n), unit=called(key), **about)
        for key, of_unit in zip(keys, each)
    ]


def checked(rows: pd.DataFrame, claim) -> pd.DataFrame:
    """The rows that hold a number. LookupError without the column, ValueError where it holds something else."""
    if 0 in rows:  # wide
        return rows
    if claim.value not in rows:
        raise LookupError(f"there is no column {claim.value!r}, but {', '.join(map(str, rows.columns))}")
    for name in {claim.value, claim.by} & {*rows}:
        if not pd.api.types.is_numeric_dtype(rows[name]):
            raise ValueError(f"the column {name!r} holds {rows[name].iloc[0]!r}, which is no number")
    return rows.dropna(subset=[claim.value])


def called(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def estimate(parts: list[pd.DataFrame], units: list[str], claim, concepts: int | None) -> Estimate:
    """One effect from its signed parts: over seeds, then their squares, then what is compared, then over units."""
    seeds = sorted({s for p in parts for s in p.index.get_level_values("seed")})
    squared = claim.magnitude or claim.measurement == "closer"

    def found(parts: list[pd.DataFrame]) -> pd.Series:
        means = [over_seeds(p, units, squared) for p in parts]
        return (means[0] if len(means) == 1 else (means[0] - means[1]).dropna(subset=[0])).mean()

    draws, n, by_seed = found(parts), len(seeds), None
    by_concept = float(draws.iloc[1:].std()) if len(draws) > 1 else None
    if n > 1:
        left = [found([p.loc[p.index.get_level_values("seed") != s, [0]] for p in parts])[0] for s in seeds]
        mean = sum(left) / n
        by_seed = math.sqrt((n - 1) / n * sum((x - mean) ** 2 for x in left))
    known = concepts if by_concept is not None else None
    return Estimate(float(draws[0]), by_seed, by_concept, n, known, squared=squared)


def over_seeds(part: pd.DataFrame, units: list[str], squared: bool) -> pd.DataFrame:
    """The mean over seeds per unit, or its square less the noise in it."""
    grouped = part.groupby(units, dropna=False) if units else part.groupby(lambda _: 0)
    mean = grouped.mean()
    if not squared:
        return mean
    noise = (grouped[[0]].var() / grouped[[0]].count()).fillna(0.0)[0]
    if mean.shape[1] > 1:
        noise = noise + mean.iloc[:, 1:].var(axis=1)
    return (mean**2).sub(noise, axis=0)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What may be said: holds, fails or open; p of saying so wrongly, two-sided; and why."""

    said: str
    p: float | None = None
    why: str = ""


def verdict(found: Sequence[Estimate], direction: str, threshold: Bound, exact: bool = False) -> Verdict:
    """direction: above or below a number, or within two. found: one effect, or one per unit for a claim about all."""
    if exact:
        wrong = [e for e in found if not inside(e.effect, direction, threshold)]
        return Verdict(FAILS if wrong else HOLDS, None, unit_of(wrong[0]) if wrong else "exact")
    if any(e.error is None for e in found):
        n = found[0].seeds
        return Verdict(OPEN, None, "n = 1: one seed has no spread" if n == 1 else "nothing tells its spread")
    if any(not e.error and on_edge(e.effect, threshold) for e in found):
        return Verdict(OPEN, 1.0, "a tie: exactly on the threshold")
    yes = max(p_holds(e, direction, threshold) for e in found)
    no, worst = min(((p_fails(e, direction, threshold), e) for e in found), key=lambda x: x[0])
    no = min(1.0, no * len(found))
    alpha = (1 - LEVEL) / 2
    if yes < alpha:
        return Verdict(HOLDS, 2 * yes, "")
    if no < alpha:
        return Verdict(FAILS, 2 * no, unit_of(worst))
    return Verdict(OPEN, min(1.0, 2 * min(yes, no)), "the interval reaches across the threshold")


def unit_of(found: Estimate) -> str:
    return f"{found.unit}: {found.effect:.3g}" if found.unit else ""


def inside(x: float, direction: str, threshold: Bound) -> bool:
    if direction == "within":
        return threshold[0] <= x <= threshold[1]
    return x > threshold if direction == "above" else x < threshold


def on_edge(x: float, threshold: Bound) -> bool:
    return x in (threshold if isinstance(threshold, tuple) else (threshold,))


def p_holds(e: Estimate, direction: str, threshold: Bound) -> float:
    """One-sided p of a claim that does not hold; within two numbers both sides must be shown."""
    if direction == "within":
        return max(e.beyond(threshold[0]), 1 - e.beyond(threshold[1]))
    return e.beyond(threshold) if direction == "above" else 1 - e.beyond(threshold)


def p_fails(e: Estimate, direction: str, threshold: Bound) -> float:
    """One-sided p of a claim that does hold."""
    if direction == "within":
        return min(1.0, min(1 - e.beyond(threshold[0]), e.beyond(threshold[1])))
    return 1 - e.beyond(threshold) if direction == "above" else e.beyond(threshold)


def holm(p: Sequence[float | None], level: float = 1 - LEVEL) -> list[bool | None]:
    """Which verdicts survive the correction for their number (Holm 1979); None where there is no p."""
    there = sorted((x, i) for i, x in enumerate(p) if x is not None)
    kept: list[bool | None] = [None] * len(p)
    still = True
    for rank, (x, i) in enumerate(there):
        still = still and x <= level / (len(there) - rank)
        kept[i] = still
    return kept
