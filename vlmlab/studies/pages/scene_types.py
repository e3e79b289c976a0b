"""Four types of pairs, chosen by rule among generated scenes whose every shape is known; and tests of their differences."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from ...distill.language import LEVELS as LANGUAGE
from ...distill.pyramid import LEVELS as VISION
from ...tasks.captions import Captions
from ...tasks.shapes.texts import NUMBERS

LARGE, SMALL = 0.08, 0.04  # of the picture; a single shape covers 0.03 to 0.12
ASIDE = 4  # every fourth scene gets a caption that names no shape
RULES = {
    "simple": f"one shape, on {LARGE:.0%} of the picture or more",
    "complex": "four shapes of three kinds or more",
    "fine-grained": f"two or three shapes, the smallest named kind on less than {SMALL:.0%}",
    "abstract": "a caption that counts the shapes and names none",
}


def chosen(test: Captions) -> Mapping[str, Captions]:
    """Type -> its pairs, no image in two; pairs that no rule fits are left out. test: scenes of `shapes/many`.

    ValueError for other images, of which nobody knows what they show, and for a type without pairs.
    """
    if test.mask_of is None or any(name.split()[0] not in NUMBERS for of in test.shows for name in of):
        raise ValueError(f"{test} are no scenes with counted shapes; use shapes/many")
    counts = np.array([sum(NUMBERS.index(name.split()[0]) for name in of) for of in test.shows])
    kinds = np.array([len(of) for of in test.shows])
    smallest = np.array([test.masks(i).mean(axis=(1, 2)).min() for i in range(len(test))])
    aside = np.arange(len(test)) % ASIDE == 0
    fits = {
        "simple": (counts == 1) & (smallest >= LARGE),
        "complex": (counts == 4) & (kinds >= 3),
        "fine-grained": np.isin(counts, (2, 3)) & (smallest < SMALL),
    }
    found = {name: test.select(np.flatnonzero(rows & ~aside)) for name, rows in fits.items()}
    plain = test.select(np.flatnonzero(aside))
    said = [f"{NUMBERS[n]} shape{'s' * (n > 1)}" for n in counts[aside].tolist()]
    found["abstract"] = dataclasses.replace(plain, texts=tuple(said), image_of=np.arange(len(plain)))
    if empty := [name for name, pairs in found.items() if not len(pairs)]:
        raise ValueError(f"no scene of {test} is {empty[0]} ({RULES[empty[0]]}); give more scenes")
    return found


def long(weights: np.ndarray, **about) -> pd.DataFrame:
    """Weights (sample, side, level) as rows: sample, level, value."""
    rows = [
        {**about, "sample": f"{about['type']} {i}", "level": level, "value": float(weights[i, side, k])}
        for i in range(len(weights))
        for side, levels in enumerate((VISION, LANGUAGE))
        for k, level in enumerate(levels)
    ]
    return pd.DataFrame(rows)


def bands(rows: pd.DataFrame, levels) -> tuple[xr.DataArray, xr.DataArray]:
    """(level, type) means of `long` rows over samples and seeds, and the middle half of the samples (level, type, bound)."""
    own = rows[rows["level"].isin(levels)].groupby(["level", "type"], sort=False)["value"]
    shape = {"level": list(levels), "type": list(rows["type"].unique())}
    mean, low, high = (x.to_xarray().sel(shape) for x in (own.mean(), own.quantile(0.25), own.quantile(0.75)))
    low, high = np.minimum(low, mean), np.maximum(high, mean)
    return mean, xr.concat([low, high], "bound").assign_coords(bound=["low", "high"])


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Kruskal-Wallis over types, level by level, with Holm's correction: level, H, p, corrected. rows: level, type, value;
    where all values are the same nothing differs, p = 1."""
    from scipy.stats import kruskal

    found = []
    for level, of in rows.groupby("level", sort=False):
        groups = [g["value"].to_numpy() for _, g in of.groupby("type", sort=False)]
        same = np.ptp(of["value"]) < 1e-9
        h, p = (0.0, 1.0) if same else kruskal(*groups)
        found.append({"level": level, "H": float(h), "p": float(p)})
    table = pd.DataFrame(found)
    order, corrected, worst = np.argsort(table["p"].to_numpy()), np.zeros(len(table)), 0.0
    for place, at in enumerate(order):
        worst = max(worst, min(1.0, (len(table) - place) * table["p"].iloc[at]))
        corrected[at] = worst
    return table.assign(corrected=corrected)


def medoid(weights: np.ndarray) -> int:
    """The sample of (sample, ...) weights that is nearest to all others."""
    flat = weights.reshape(len(weights), -1)
    return int(np.abs(flat[:, None] - flat[None]).sum(axis=(1, 2)).argmin())
