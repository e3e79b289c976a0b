"""What the card of a dual tower measures on generated scenes that it never saw, beside the model that it began as."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from ..models.load import VLM, load
from ..tasks.emoji.data import SOURCE_STYLES
from ..tasks.shapes import labelled, scenes
from ..tasks.shapes.composition import COLOURS, SHAPES, scene
from ..tasks.shapes.texts import captions, flipped
from .measures import QUICK, SEEN, Bank, Size, recalls, retrieve, row

BEFORE = "tiny"  # what it began as
STYLES = (SOURCE_STYLES[0], SEEN)


def rows_of(vlm: VLM, size: Size) -> list[dict]:
    """Rows of `measures.row`; size.scenes: of each kind. `style` of the measure "shapes" is the model."""
    bank, rows = Bank(vlm), []
    for model in (vlm, load(BEFORE, device=str(vlm.device))):
        rows += of_shapes(bank if model is vlm else Bank(model), model.name, size.scenes)
    styles = STYLES[:1] if size is QUICK else STYLES
    return rows + retrieve(bank, styles, size)


def of_shapes(bank: Bank, name: str, n: int) -> list[dict]:
    """Zero-shot on one shape, retrieval among pairs, and true captions of pairs against captions changed in one thing."""
    return [*zero_shot(bank, name, n), *among_pairs(bank, name, n)]


def zero_shot(bank: Bank, name: str, n: int) -> list[dict]:
    """Of 24 classes, "a red circle": all, the colour alone, the shape alone."""
    split = labelled(n)
    images = F.normalize(bank.encode(map(split.image, range(n))), dim=-1)
    texts = bank.texts([split.template.format(c) for c in split.classnames])
    said, kinds = (images @ texts.T).argmax(1).numpy(), len(SHAPES)
    asked = {"class": (said, split.labels, len(split.classnames))}
    asked["colour"] = (said // kinds, split.labels // kinds, len(COLOURS))
    asked["shape"] = (said % kinds, split.labels % kinds, kinds)
    return [
        share("shapes/one", name, f"zero-shot, {metric}", a == b, 1 / of)
        for metric, (a, b, of) in asked.items()
    ]


def among_pairs(bank: Bank, name: str, n: int) -> list[dict]:
    """No two of the scenes have the same caption."""
    found = scenes(n)
    images = F.normalize(bank.encode(map(found.image, range(n))), dim=-1)
    texts = bank.texts(list(found.texts))
    rows = recalls(("shapes", "shapes/pairs", name, ""), images @ texts.T)
    rng, true = np.random.default_rng(0), [scene(id) for id in found.ids]
    others = [next(iter(captions(flipped(of, rng)))) for of in true]
    kept = torch.tensor([other not in captions(of) for other, of in zip(others, true)])
    right = (images * texts).sum(1) > (images * bank.texts(others)).sum(1)
    return [
        *rows,
        share("shapes/pairs", name, "true caption before one with one thing changed", right[kept], 0.5),
    ]


def share(task: str, style: str, metric: str, right, chance: float) -> dict:
    """A row of a mean over scenes."""
    right = pd.Series(np.asarray(right, float))
    return row("shapes", task, style, "", metric, right.mean(), chance, len(right), right.sem())
