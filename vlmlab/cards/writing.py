"""What the card of the small Janus measures: what it writes behind an image, behind another's, and behind none."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ..mini.janus import DESCRIBE, NAME, names
from ..models.hub import quiet
from ..models.huggingface import LanguageModel
from ..scores.captions import hallucination
from ..tasks.captions import Captions
from ..tasks.emoji.captions import pretraining_concepts
from ..tasks.emoji.data import SOURCE_STYLES
from ..tasks.emoji.pictures import image
from ..tasks.shapes import facts, questions, scenes
from ..tasks.shapes.composition import COLOURS, SHAPES, THINGS
from .measures import QUICK, SEEN, Size, drawn, row

OWN, OTHER, NONE = "its image", "another image", "no image"
KINDS = ("one", "pairs", "many")
ATTRIBUTES = ("objects", "colours", "shapes", "counts")
BATCH = 50
# captions of a kind, all equally frequent: colour and shape; two different things, on which side, named in which order
EVEN = {"one": len(COLOURS) * len(SHAPES), "pairs": 2 * 2 * THINGS * (THINGS - 1)}
ERRORS = 2  # standard errors that a difference has to reach


def rows_of(model: LanguageModel, size: Size) -> list[dict]:
    """Rows of `measures.row`; size.scenes: of two kinds, of the test side. `style` is what the model was shown.

    Rows of the measure "target" compare the same scenes with two images.
    """
    rows = []
    for kind in KINDS:
        found = scenes(size.scenes // 2, kind=kind)
        rows += described(model, found, kind) + losses(model, found, kind) + answered(model, found, kind)
    for style in (SOURCE_STYLES[0],) if size is QUICK else (SOURCE_STYLES[0], SEEN):
        rows.append(named(model, style, size))
    return rows


@torch.no_grad()
def write(model: LanguageModel, images: Sequence, prompts: Sequence[str]) -> list[str]:
    """What the model says, greedily, behind each image and prompt."""
    mark, said = model.processor.image_token, []
    for at in range(0, len(images), BATCH):
        asked = {
            "images": list(images[at : at + BATCH]),
            "text": [mark + p for p in prompts[at : at + BATCH]],
        }
        inputs = model.processor(**asked, padding=True, return_tensors="pt").to(model.device)
        with quiet():  # of settings that Janus' own generate fills in
            ids = model.generate(**inputs, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        said += [text.strip() for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return said


def pictures(found: Captions) -> dict[str, list]:
    """Of each scene its own picture, and that of the next."""
    own = [found.image(i) for i in range(len(found))]
    return {OWN: own, OTHER: [*own[1:], own[0]]}


def described(model: LanguageModel, found: Captions, kind: str) -> list[dict]:
    """Captions against what is there: per scene the share of what is there that is said, and of what is said that is
    not there; whole captions that say all that is there and nothing else."""
    true, metrics = [facts(text) for text in found.texts], {}
    for shown, images in pictures(found).items():
        said = [facts(text) for text in write(model, images, [DESCRIBE] * len(images))]
        for what in ATTRIBUTES:
            of = [hallucination([a[what]], [b[what]]) for a, b in zip(said, true)]
            metrics[f"{what} said", shown] = np.array([one["attributes_right"][0] for one in of]) / 100
            metrics[f"{what} not there", shown] = np.array([one["hallucinated"][0] for one in of]) / 100
        metrics["all right", shown] = np.array([a == b for a, b in zip(said, true)], float)
    return compared("captions", kind, metrics, ("said", "right"))


def losses(model: LanguageModel, found: Captions, kind: str) -> list[dict]:
    """Nats per token of the true caption, mean over scenes; chance: the entropy of captions drawn evenly, which nobody
    gets below without the image."""
    mark, metrics = model.processor.image_token, {}
    for shown, images in {**pictures(found), NONE: None}.items():
        prompts = [DESCRIBE if images is None else mark + DESCRIBE] * BATCH
        values = []
        for at in range(0, len(found), BATCH):
            texts = found.texts[at : at + BATCH]
            part = None if images is None else images[at : at + BATCH]
            with torch.no_grad():
                likely = model.log_likelihood(texts, part, prompts[: len(texts)])
            values.append((-likely.total / likely.scored.sum(1)).cpu().numpy())
        metrics["nats per token", shown] = np.concatenate(values)
    rows = compared("loss", kind, metrics, ("token",), less_is_better=True)
    tokens = np.mean([len(model.words(text)) for text in found.texts])
    chance = np.log(EVEN.get(kind, np.nan)) / tokens
    return [r | {"chance": chance} if r["measure"] == "loss" else r for r in rows]


def answered(model: LanguageModel, found: Captions, kind: str) -> list[dict]:
    """Questions with one true answer, by kind of answer."""
    asked, metrics = questions(found), {}
    for shown, images in pictures(found).items():
        said = write(model, [images[i] for i in asked.image_of], asked.questions)
        right = np.array([text in answers for text, answers in zip(said, asked.answers)], float)
        for sort in dict.fromkeys(asked.kinds):
            metrics[sort, shown] = right[np.array(asked.kinds) == sort]
    return compared("questions", kind, metrics)


def named(model: LanguageModel, style: str, size: Size) -> dict:
    """Names of emoji of one style, on white, among all that it learned."""
    table = pretraining_concepts().loc[[*names()]].set_index("hexcode")["name"]
    hexcodes = drawn(SOURCE_STYLES[0], table.index)[: size.retrieval]
    said = write(model, [image(f"{style}/{h}") for h in hexcodes], [NAME] * len(hexcodes))
    right = pd.Series([text == table[h] for text, h in zip(said, hexcodes)], dtype=float)
    return row(
        "names", "emoji", style, "known", "accuracy", right.mean(), 1 / len(table), len(right), right.sem()
    )


def compared(
    measure: str, kind: str, metrics: dict, targets: tuple[str, ...] = (), less_is_better=False
) -> list[dict]:
    """Rows of means over scenes with their standard errors; of metrics that end in one of `targets` also rows of what
    its own image gains over each other."""
    rows = []
    for (metric, shown), values in metrics.items():
        own, error = metrics[metric, OWN], lambda x: pd.Series(x).sem()
        rows.append(
            row(
                measure,
                f"shapes/{kind}",
                shown,
                "",
                metric,
                values.mean(),
                np.nan,
                len(values),
                error(values),
            )
        )
        if shown == OWN or not metric.endswith(targets or ("\n",)):
            continue
        gain = (values - own) if less_is_better else (own - values)
        least = ERRORS * error(gain)
        target = row(
            "target",
            measure,
            f"shapes/{kind}",
            "",
            f"{metric}, {OWN} against {shown}",
            gain.mean(),
            np.nan,
            len(gain),
        )
        rows.append({**target, "target": least, "passed": bool(gain.mean() > least)})
    return rows
