"""What a run of cmapkd holds on images with captions: levels of teacher and student, their losses, ALSN's weights; how
alike both sides' levels are, and which level of images answers which of texts."""

import dataclasses
import itertools

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr

from ... import measures, registry
from ...distill import terms
from ...distill.cmapkd import CMAPKD
from ...distill.language import LEVELS as LANGUAGE
from ...distill.pyramid import LEVELS as VISION
from ...feeds import in_order
from ...models.vlm import VLM
from ...tasks.captions import Captions
from ...train.fit import seed_all

NEIGHBOURS = 10
LIKE_LAYERS = {"dims": ("layer", "sample", "feature")}


@dataclasses.dataclass(frozen=True)
class Side:
    """One model's levels, float32: maps, P2 to P5, each (image, C, row, column); vision (image, level, C), their means;
    language (image, level, C) of the first caption; image, text: unit embeddings (image, joint)."""

    maps: tuple[np.ndarray, ...]
    vision: np.ndarray
    language: np.ndarray
    image: np.ndarray
    text: np.ndarray


@dataclasses.dataclass(frozen=True)
class Seen:
    """Both sides on the same pairs; losses, weights: (image, side, level); alone: the weights of an ALSN that was never
    trained; shuffled: those of other pairs, drawn by chance."""

    teacher: Side
    student: Side
    losses: np.ndarray
    weights: np.ndarray
    alone: np.ndarray
    shuffled: np.ndarray


def some(images: Captions, limit: int) -> Captions:
    """At most so many images, evenly spaced."""
    return images.select(np.linspace(0, len(images) - 1, min(limit, len(images))).astype(int))


@torch.inference_mode()
def seen(learner: CMAPKD, images: Captions) -> Seen:
    """What a trained learner holds on images with captions. ValueError for one without ALSN."""
    if learner.config.weights != "alsn":
        raise ValueError(f"weights={learner.config.weights!r}: these levels are not weighed by ALSN")
    learner.eval()
    fresh = before(learner)
    levels, losses, weights, alone = {"student": [], "teacher": []}, [], [], []
    for batch in batches(learner, images):
        s, t = learner.levels(batch), learner.teacher_levels(batch)
        levels["student"].append(s)
        levels["teacher"].append(t)
        losses.append(learner.costs(s, t))
        weights.append(learner.weights(s, t))
        alone.append(fresh.weights(s, t))
    found = {role: side(parts) for role, parts in levels.items()}
    losses, weights, alone = (torch.cat(parts).float().cpu().numpy() for parts in (losses, weights, alone))
    others = np.random.default_rng(0).permutation(len(weights))
    return Seen(**found, losses=losses, weights=weights, alone=alone, shuffled=weights[others])


def batches(learner: CMAPKD, images: Captions):
    """Batches of images, as both models take them, with their first captions."""
    feeds = (in_order(images, model) for model in (learner.student, learner.teacher))
    for own, its in zip(*feeds, strict=True):
        pixels = {"image": own["image"], "teacher_image": its["image"]}
        yield {name: x.to(learner.device) for name, x in pixels.items()} | {"text": list(own["text"])}


def side(parts: list) -> Side:
    """`builder.Levels` of batches, one after the other."""
    join = lambda of: torch.cat([of(p) for p in parts]).float().cpu().numpy()
    unit = lambda of: join(lambda p: F.normalize(of(p).embed.float(), dim=-1))
    maps = tuple(join(lambda p, k=k: p.maps[k]) for k in range(len(VISION)))
    return Side(
        maps,
        join(lambda p: p.vision),
        join(lambda p: p.language),
        unit(lambda p: p.image),
        unit(lambda p: p.text),
    )


def before(learner: CMAPKD, seed: int = 0) -> CMAPKD:
    """The same learner before its first step, beside the same trained pyramid of the teacher. The first values are drawn
    by `seed`."""
    student = learner.loaded[0]
    given = {"student": student if isinstance(student, VLM) else student.alone(), "teacher": learner.teacher}
    with torch.random.fork_rng():
        seed_all(seed)
        found = registry.build("cmapkd", given, **dataclasses.asdict(learner.config))
    found.teacher_builder = learner.teacher_builder
    return found.eval()


def as_layers(x: np.ndarray) -> xr.DataArray:
    """(image, level, C) as measures of layers take it."""
    return xr.DataArray(x.swapaxes(0, 1), {"layer": np.arange(x.shape[1])}, **LIKE_LAYERS)


def alike(student: np.ndarray, teacher: np.ndarray) -> dict[str, np.ndarray]:
    """How alike levels (image, level, C) of both are: cka (student's level, teacher's level); per level the overlap of the
    10 nearest neighbours and the mean cosine of an image's two vectors, which needs a shared basis."""
    names = {"layer": "student", "layer_other": "teacher"}
    cka = measures.cka(as_layers(student), as_layers(teacher)).rename(names)
    overlap = [mutual(student[:, k], teacher[:, k]) for k in range(student.shape[1])]
    cosine = (unit(student) * unit(teacher)).sum(-1).mean(0)
    return {
        "cka": cka.assign_coords(student=list(VISION), teacher=list(VISION)),
        "neighbours": np.array(overlap),
        "cosine": cosine,
    }


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True).clip(1e-12)


def mutual(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the 10 nearest neighbours (cosine) of a sample that are the same in both (sample, feature)."""
    k = min(NEIGHBOURS, len(a) - 1)
    near = []
    for x in map(unit, (a, b)):
        similarity = x @ x.T
        np.fill_diagonal(similarity, -np.inf)
        near.append(np.argsort(-similarity, axis=1)[:, :k])
    return float(np.mean([len({*i} & {*j}) / k for i, j in zip(*near, strict=True)]))


def crossed(of: Side, chosen: int = 200) -> np.ndarray:
    """(level of vision, level of language) z-scores of the similarity max_p cos(P_i[p], L_j) of an image and its text
    against those of the same image and other texts, mean over images. Levels differ in how similar they are to anything;
    z does not. chosen: images, at most."""
    n = min(chosen, len(of.vision))
    words = unit(of.language[:n])
    found = np.zeros((len(of.maps), words.shape[1]))
    for i, maps in enumerate(of.maps):
        places = unit(maps[:n].reshape(n, maps.shape[1], -1).swapaxes(1, 2))  # (image, place, C)
        for j in range(words.shape[1]):
            s = np.stack([(image @ words[:, j].T).max(0) for image in places])  # (image, text)
            own, others = np.diag(s), ~np.eye(n, dtype=bool)
            rest = s[others].reshape(n, n - 1)
            found[i, j] = ((own - rest.mean(1)) / rest.std(1, ddof=1).clip(1e-12)).mean()
    return found


def diagonal(z: np.ndarray) -> tuple[float, float]:
    """(mean of the diagonal minus mean beside it, p): p is the share of the 24 orders of columns whose difference is at
    least as large, 1/24 at best."""

    def gain(x: np.ndarray) -> float:
        on = np.eye(len(x), dtype=bool)
        return float(x[on].mean() - x[~on].mean())

    orders = [gain(z[:, list(order)]) for order in itertools.permutations(range(z.shape[1]))]
    return gain(z), float(np.mean([value >= gain(z) - 1e-12 for value in orders]))


def crossed_rows(of: Side, chosen: int, **about) -> list[dict]:
    """`crossed` and `diagonal` as rows: measure "z" with vision and language, "diagonal" and "p"; value."""
    z = crossed(of, chosen)
    cells = itertools.product(enumerate(VISION), enumerate(LANGUAGE))
    rows = [
        {**about, "measure": "z", "vision": v, "language": t, "value": float(z[i, j])}
        for (i, v), (j, t) in cells
    ]
    return rows + [
        {**about, "measure": name, "vision": "", "language": "", "value": value}
        for name, value in zip(("diagonal", "p"), diagonal(z), strict=True)
    ]


def attention(of: Side, i: int, scale: float) -> xr.DataArray:
    """(level of vision, level of language) softmax along each row of scale * max_p cos(P[p], L) of one pair."""
    words = unit(of.language[i])
    places = [unit(maps[i].reshape(len(maps[i]), -1).T) for maps in of.maps]
    s = np.stack([(x @ words.T).max(0) for x in places])
    return labelled(torch.from_numpy(scale * s).softmax(-1).numpy())


def compatibility(learner: CMAPKD) -> xr.DataArray:
    """(level of vision, level of language) weights of pairs of levels in the last stage of a learner."""
    active = learner.active([*learner.parts.values()][-1])
    alpha = terms.compatibility(*active, learner.config.compatibility == "uniform")
    return labelled(alpha.cpu().numpy())


def evidence(student: np.ndarray, teacher: np.ndarray, **about) -> list[dict]:
    """`alike` as rows: measure (CKA, "CKA with another" level, neighbours, cosine), level of the student, other (of the
    teacher), value."""
    found = alike(student, teacher)
    rows = [
        {
            **about,
            "measure": "CKA" if a == b else "CKA with another",
            "level": a,
            "other": b,
            "value": float(found["cka"].sel(student=a, teacher=b)),
        }
        for a, b in itertools.product(VISION, VISION)
    ]
    for measure in ("neighbours", "cosine"):
        rows += [
            {**about, "measure": measure, "level": k, "other": k, "value": float(v)}
            for k, v in zip(VISION, found[measure], strict=True)
        ]
    return rows


def stacked(sides: dict[str, np.ndarray]) -> xr.DataArray:
    """(sample, feature) unit vectors of levels (image, level, C) by model, with the coordinates model and level."""
    parts = [(model, level, unit(x[:, k])) for model, x in sides.items() for k, level in enumerate(VISION)]
    sizes = [len(x) for _, _, x in parts]
    coords = {
        "model": ("sample", np.repeat([m for m, _, _ in parts], sizes)),
        "level": ("sample", np.repeat([k for _, k, _ in parts], sizes)),
    }
    return xr.DataArray(np.concatenate([x for _, _, x in parts]), coords, ("sample", "feature"))


def labelled(z: np.ndarray) -> xr.DataArray:
    """(level of vision, level of language) with the names of both."""
    return xr.DataArray(z, {"vision": list(VISION), "language": list(LANGUAGE)}, ("vision", "language"))
