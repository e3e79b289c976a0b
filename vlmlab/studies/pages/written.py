"""How much of what was written of scenes is true, and what two ways of writing differ by."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ...tasks.captions import Captions
from ...tasks.shapes import facts
from ..resampling import weights

FACTS = ("objects", "colours", "shapes", "counts")


def told(texts: Sequence[str], found: Captions) -> pd.DataFrame:
    """A row a scene and kind of fact: concept (the scene), fact, said, shown (how many), right (of both)."""
    rows = []
    for id, text, true in zip(found.ids, texts, found.texts, strict=True):
        said, shown = facts(text), facts(true)
        rows += [(id, k, len(said[k]), len(shown[k]), len(said[k] & shown[k])) for k in FACTS]
    return pd.DataFrame(rows, columns=["concept", "fact", "said", "shown", "right"])


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """The same in percent of a scene: `accuracy` of what is shown is said, `hallucinated` of what is said is not there (0
    where nothing is said: read both). Columns concept, metric ("objects accuracy"), value."""
    parts = {
        "accuracy": 100 * rows["right"] / rows["shown"],
        "hallucinated": 100 * (rows["said"] - rows["right"]) / rows["said"].clip(lower=1),
    }
    return pd.concat(
        [
            pd.DataFrame({"concept": rows["concept"], "metric": rows["fact"] + f" {name}", "value": value})
            for name, value in parts.items()
        ],
        ignore_index=True,
    )


def f1(rows: pd.DataFrame) -> float:
    """Percent: harmonic mean of how much of what is shown is said and how much of what is said is shown, over all scenes,
    mean over kinds of fact. 0 where nothing is said."""
    sums = rows.groupby("fact")[["said", "shown", "right"]].sum()
    return float((200 * sums["right"] / (sums["said"] + sums["shown"])).mean())


def compared(rows: pd.DataFrame, of: str, against: str) -> dict[str, float]:
    """The mean difference of two methods over scenes and its 95 % interval: scenes drawn anew within their task, both
    methods on the same ones.

    rows: method, task, concept, value, of one metric. Returns effect, low, high.
    """
    wide = rows.pivot_table("value", ["task", "concept"], "method")
    return drawn((wide[of] - wide[against]).rename("value").reset_index())


def drawn(rows: pd.DataFrame) -> dict[str, float]:
    """Mean over tasks of the mean over scenes, with the 95 % interval of scenes drawn anew; rows: task, concept, value."""
    draws = weights(rows["concept"], rows[["task"]])
    sums = (
        draws.loc[rows["concept"]].to_numpy() * rows["value"].to_numpy()[:, None],
        draws.loc[rows["concept"]].to_numpy(),
    )
    total, count = (pd.DataFrame(part).groupby(rows["task"].to_numpy()).sum() for part in sums)
    means = (total / count).mean()
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return {"effect": float(means[0]), "low": float(low), "high": float(high)}


def intervals(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`drawn` for every group: the columns `by`, effect, low, high."""
    return pd.DataFrame(
        [dict(zip(by, key)) | drawn(group) for key, group in rows.groupby(list(by), sort=False)]
    )


def banded(rows: pd.DataFrame, x: str, by: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Means (x, by) and intervals (x, by, bound), as `plots.lines` and `plots.sweep` draw them."""
    found = intervals(rows, [x, by]).set_index([x, by]).to_xarray()
    bounds = xr.concat([found["low"], found["high"]], pd.Index(["low", "high"], name="bound"))
    return found["effect"], bounds


def verdict(effect: float, low: float, high: float, lower_is_better: bool) -> str:
    """What an interval of a difference shows: helps, hurts, or neither."""
    if low <= 0 <= high:
        return "neither helps nor hurts, by the interval"
    return "helps" if (effect < 0) == lower_is_better else "hurts"
