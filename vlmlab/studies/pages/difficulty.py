"""How difficult a pair of image and caption is, in four ways, and what the weights of levels have to do with it."""

import io

import numpy as np
import pandas as pd
import torch
import xarray as xr

from ...distill.cmapkd import CMAPKD
from ...distill.language import LEVELS as LANGUAGE
from ...distill.pyramid import LEVELS as VISION
from ...distill.student import plain
from ...scores import retrieval
from ...tasks.captions import Captions
from ...train.evaluate import pictures_for
from .pyramids import Seen

DRAWS = 1000
NAMES = {
    "loss": "the teacher's loss",
    "rank": "rank of the right one",
    "gap": "untrained student's distance",
    "scene": "what is to be seen",
}
SOURCES = ("ALSN", "losses alone", "other pairs", "untrained ALSN")
LEVELS = (VISION, LANGUAGE)


def difficulties(test: Captions, teacher: np.ndarray, student: np.ndarray) -> dict[str, np.ndarray]:
    """Measure -> (image,), larger is harder. teacher, student: scaled cosines (image, text) of the texts of a test.

    loss: mean over both directions of -log of what the softmax over the whole gallery gives to the right ones. rank: log2 of
    the first right one's rank, mean over directions. gap: KL(teacher || student) of the image's softmax over texts. scene: of
    what is to be seen, without any network: see `scene`. Equal texts are each other's right ones.
    """
    text = {t: i for i, t in enumerate(dict.fromkeys(test.texts))}
    said = np.array([text[t] for t in test.texts])
    shown = [{*said[own]} for own in test.texts_of]
    right = np.array([[s in of for s in said] for of in shown])  # (image, text)
    log_t, log_s = log_softmax(teacher), log_softmax(student)
    of_image = -np.log(np.where(right, np.exp(log_t), 0).sum(1).clip(1e-30))
    of_text = -np.log(np.where(right.T, np.exp(log_softmax(teacher.T)), 0).sum(1).clip(1e-30))
    ranks = {
        "image": first_rank(teacher, right),
        "text": first_rank(teacher.T, right.T),
    }
    by_image = lambda of: np.array([of[own].mean() for own in test.texts_of])
    return {
        "loss": (of_image + by_image(of_text)) / 2,
        "rank": (np.log2(ranks["image"]) + by_image(np.log2(ranks["text"]))) / 2,
        "gap": (np.exp(log_t) * (log_t - log_s)).sum(1),
        "scene": scene(test),
    }


@torch.inference_mode()
def galleries(learner: CMAPKD, test: Captions) -> tuple[np.ndarray, np.ndarray]:
    """Scaled cosines (image, text) of the teacher, and of the student as it was given."""
    found = []
    for model in (learner.teacher, plain("student", learner.loaded[0])):
        similarity = retrieval.ask(model, test, pictures_for(model), {"unified": None})["unified"]
        found.append(float(model.logit_scale) * similarity)
    return tuple(found)


def associations(hard: dict[str, np.ndarray], found: Seen, eta: float) -> list[dict]:
    """A row per measure of difficulty, source of weights (`SOURCES`) and level: value, Spearman's rho, with low, high and p;
    agreement, the mean distance of ALSN's weights from what the losses alone ask for."""
    alone = predicted(found.losses, eta)
    apart = float(np.abs(found.weights - alone).mean())
    sources = dict(zip(SOURCES, (found.weights, alone, found.shuffled, found.alone), strict=True))
    rows = []
    for measure, values in hard.items():
        for source, weights in sources.items():
            for side, levels in enumerate(LEVELS):
                for k, level in enumerate(levels):
                    rho = spearman(weights[:, side, k], values)
                    about = {"measure": measure, "source": source, "level": level, "agreement": apart}
                    rows.append(about | {"value": rho.pop("rho")} | rho)
    return rows


def curves(weighed: list[tuple[dict, np.ndarray]], measure: str, levels) -> tuple[xr.DataArray, xr.DataArray]:
    """(decile, level) mean weights over the pairs of all seeds, and their bands (decile, level, bound). weighed: difficulties
    and weights (image, side, level) of each seed."""
    side = LEVELS.index(levels)
    rank = np.concatenate([shares(hard[measure]) for hard, _ in weighed])
    found = deciles(rank, np.concatenate([w[:, side] for _, w in weighed]))
    found["level"] = [levels[k] for k in found["level"]]
    table = found.set_index(["decile", "level"]).to_xarray().sel(level=list(levels))
    band = xr.concat([table["low"], table["high"]], "bound").assign_coords(bound=["low", "high"])
    return table["mean"], band


def log_softmax(x: np.ndarray) -> np.ndarray:
    """float64, over the last axis."""
    return torch.from_numpy(x.astype(np.float64)).log_softmax(-1).numpy()


def first_rank(similarity: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(query,) expected rank of the first right item; similarity, right (query, item)."""
    best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
    counts = [(~right & (similarity > best)), (~right & (similarity == best)), (right & (similarity == best))]
    return retrieval.first_rank(np.stack([c.sum(1) for c in counts], axis=1))


def scene(test: Captions) -> np.ndarray:
    """(image,) how much there is to see, as the data alone say it: the number of objects and, among equal ones, how small
    the smallest is, from masks; where there are none, the bytes of the picture as a PNG."""
    if test.mask_of is None:
        return np.array([float(compressed(test, i)) for i in range(len(test))])
    areas = [test.masks(i).mean(axis=(1, 2)) for i in range(len(test))]
    return np.array([len(a) + 1 - a.min() for a in areas])


def compressed(test: Captions, i: int) -> int:
    file = io.BytesIO()
    test.image(i).save(file, "PNG")
    return file.tell()


def shares(values: np.ndarray) -> np.ndarray:
    """(n,) ranks between 0, the easiest, and 1; equal values share theirs."""
    return (pd.Series(values).rank() - 1).to_numpy() / max(1, len(values) - 1)


def spearman(x: np.ndarray, y: np.ndarray, draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """Spearman's rho of (n,) and (n,), its 95 % interval by bootstrap over samples, and a two-sided permutation p.

    Of constant values there is no rho: 0, p = 1.
    """
    a, b = (pd.Series(v).rank().to_numpy() for v in (x, y))
    if np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return {"rho": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    rng, n = np.random.default_rng(seed), len(a)
    rho = correlation(a[None], b[None])[0]
    at = rng.integers(0, n, (draws, n))
    low, high = np.nanpercentile(correlation(a[at], b[at]), [2.5, 97.5])
    null = correlation(np.broadcast_to(a, (draws, n)), rng.permuted(np.tile(b, (draws, 1)), axis=1))
    p = (1 + (np.abs(null) >= abs(rho)).sum()) / (1 + draws)
    return {"rho": float(rho), "low": float(low), "high": float(high), "p": float(p)}


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(row,) Pearson's correlation of the rows of (row, n) and (row, n)."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def predicted(losses: np.ndarray, eta: float) -> np.ndarray:
    """softmax(-l / eta) over levels, what the literal objective alone asks for; losses (image, side, level)."""
    return torch.from_numpy(-losses / eta).softmax(-1).numpy()


def deciles(difficulty: np.ndarray, weights: np.ndarray, count: int = 10) -> pd.DataFrame:
    """Mean weight of every level in each tenth of difficulty, with a bootstrap band over its images: decile, level
    (position), mean, low, high. difficulty (image,), weights (image, level)."""
    tenth = np.minimum((shares(difficulty) * count).astype(int), count - 1)
    rng, rows = np.random.default_rng(0), []
    for d in np.unique(tenth):
        own = weights[tenth == d]
        drawn = own[rng.integers(0, len(own), (DRAWS, len(own)))].mean(1)
        for level, (mean, low, high) in enumerate(
            zip(own.mean(0), *np.percentile(drawn, [2.5, 97.5], axis=0))
        ):
            rows.append({"decile": d + 1, "level": level, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)
