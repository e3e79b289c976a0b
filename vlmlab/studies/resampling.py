"""Test concepts drawn anew: how far a number would move on other test images of the same kind.

A concept is what an image is of: all images of one drawing are drawn together. Within a stratum (a class of a test)
one concept fewer than there are is drawn with replacement, and the weights are scaled up to the number there is; the
variance of a mean over the draws then is s²/n, where drawing all would give (n - 1)/n of that (Rao and Wu 1988). A
concept that is alone in its stratum always has the weight 1: nothing tells how far another would be.

Numbers under all draws stand side by side: column 0 is what was observed, columns 1, 2, ... are the draws.
"""

import numpy as np
import pandas as pd

DRAWS = 400


def weights(concepts: pd.Series, strata: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """How often each concept counts: a row a concept, a column a draw, column 0 all ones.

    concepts: of each image; strata: columns that tell the strata of the same images (none is one stratum). A concept
    that is in several strata, an image under several methods, is drawn where it is seen first.
    """
    home = strata.assign(concept=concepts.to_numpy()).drop_duplicates("concept")
    rng, found = np.random.default_rng(seed), []
    columns = [c for c in home if c != "concept"]
    for _, members in home.groupby(columns, sort=True, dropna=False) if columns else [((), home)]:
        n = len(members)
        drawn = np.ones((n, draws))
        if n > 1:
            drawn = rng.multinomial(n - 1, np.full(n, 1 / n), size=draws).T * (n / (n - 1))
        found.append(pd.DataFrame(drawn, index=pd.Index(members["concept"], name="concept")))
    whole = pd.concat(found)
    return pd.concat([pd.Series(1.0, whole.index), whole], axis=1, ignore_index=True)


def named(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The rows with "" where one of the columns is empty: an empty cell equals no other."""
    return rows.assign(**{c: rows[c].astype(object).where(rows[c].notna(), "") for c in columns})


def moments(
    rows: pd.DataFrame, by: list[str], value: str, weight: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(sum of weights, mean, sum of squares around it) of a column per group, each under all draws.

    by: the columns of the groups; weight: of `weights`, for rows with a column `concept`; None for the observed alone.
    """
    each = [*by, *([] if weight is None else ["concept"])]
    squares = rows.assign(_square=rows[value] ** 2, _one=1.0)
    sums = squares.groupby(each, sort=True, dropna=False)[["_one", value, "_square"]].sum()
    if weight is None:
        parts = [sums[[c]].set_axis([0], axis=1) for c in sums]
    else:
        factor = weight.loc[sums.index.get_level_values("concept")].to_numpy()
        parts = [
            pd.DataFrame(sums[c].to_numpy()[:, None] * factor, sums.index).groupby(by, dropna=False).sum()
            for c in sums
        ]
    n, total, squared = parts
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        return n, mean, (squared - n * mean**2).clip(lower=0.0)
