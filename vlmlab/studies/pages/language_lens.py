"""A language model before words that are known: a real one from the extra `models` where that is installed, before sentences of
data/dola_static; else the embedded one, before captions of scenes."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import pandas as pd
import xarray as xr

from ...capturing.rows import spread
from ...models.load import load
from ...models.packages import PACKAGES
from ...paths import data_dir
from . import lens, table_damage
from .pair import open_pair, scenes_of

PROMPTS = "dola_static/prompts.csv"


@dataclasses.dataclass(frozen=True)
class Found:
    """name: of the model. depth: blocks. told: what is read by what, in a sentence. batches: readout -> as of `lens.prompts`."""

    name: str
    depth: int
    told: str
    batches: Callable[[str], Iterable[tuple]]


def opened(language: str, model: str, dual: str, dual_weights: str, question: str, count: int) -> Found:
    """`count` sentences, evenly spaced over the file, and the real model; or what stands in for both."""
    lacking = PACKAGES[language].lacking if language in PACKAGES else []
    if lacking:
        return of_scenes(language, lacking, open_pair(model, dual, dual_weights, question), count)
    real, table = load(language), table_damage.read(data_dir() / PROMPTS)
    table = table.iloc[spread(len(table), count)]
    told = f"{language} is installed ({real.package or 'a model of your own'}): {len(table)} sentences with known answers."
    return Found(language, len(real.language), told, lambda readout: lens.prompts(real, table, readout))


def of_scenes(language: str, lacking: Sequence[str], pair, count: int) -> Found:
    """The embedded model, of whose captions the words count that say something of a scene."""
    of = scenes_of(pair, "test", max(1, count // 4))["pairs"]
    told = (
        f"{language} needs {', '.join(lacking)}, not installed; {pair.model.name} reads captions of {len(of)} scenes in its "
        "place, and what is shown is no real language model."
    )

    def batches(readout: str) -> Iterable[tuple]:
        for logits, about in lens.captions(pair, of.found, of.images, readout):
            at = about.index[about["kind"] != "other"]
            yield logits[:, at], about.loc[at].reset_index(drop=True)

    return Found(pair.model.name, pair.depths[0], told, batches)


def measured(
    found: Found, alpha: float, alphas: Sequence[float]
) -> tuple[xr.Dataset, xr.Dataset, xr.DataArray, pd.DataFrame]:
    """`lens.of_words` by the normed and by the raw read-out; of the normed one `lens.strengths` (alpha, layer), percent, and
    `lens.kept`."""
    shares, left, sizes = [], [], []

    def noted(batches: Iterable[tuple]) -> Iterable[tuple]:
        for logits, about in batches:
            shares.append(lens.strengths(logits, lens.is_id(about, logits), alphas))
            left.append(lens.kept([(logits, about)], alphas))
            sizes.append(len(about))
            yield logits, about

    normed, raw = (
        lens.of_words(noted(found.batches("normed")), alpha),
        lens.of_words(found.batches("raw"), alpha),
    )
    grid = sum(share * size for share, size in zip(shares, sizes)) / sum(sizes)
    return normed, raw, grid, pd.concat(left, ignore_index=True)
