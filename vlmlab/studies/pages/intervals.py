"""One number per seed -> mean, standard deviation and 95 % interval."""

import dataclasses
import math

import pandas as pd

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An effect. sd: over seeds; low, high: the 95 % interval; n: seeds. None where nothing tells."""

    effect: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""


def over_seeds(values: pd.Series, note: str = "") -> Estimate:
    """Mean, standard deviation and t-interval of one number per seed."""
    values, n = values.dropna(), values.count()
    if not n:
        raise LookupError("no seed has a value")
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, n=1, note=note)
    sd = float(values.std())
    half = quantile(n - 1) * sd / math.sqrt(n)
    return Estimate(mean, sd, mean - half, mean + half, int(n), note)


def quantile(freedom: float) -> float:
    """Of Student's t, so that `LEVEL` of it lies within plus and minus this."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))
