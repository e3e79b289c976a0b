"""What the study cmapkd prints of its students: their names, their numbers by seed, how they classify unseen classes,
what they cost."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch

from ... import measures
from ...distill.promptkd import PromptKD
from ...distill.student import Student
from ...feeds import in_order
from ...scores import classification, retrieval
from ...train.evaluate import answers
from . import table_damage
from .tables import DATA

RECALLS = tuple(f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))
ABOUT = ["method", "task", "split", "seed"]


def names(study: str) -> dict[str, str]:
    """Run -> printed name, of the study's methods.csv, in its order."""
    listed = table_damage.read(DATA / "published" / study / "methods.csv")
    return dict(zip(listed["id"], listed["name"], strict=True))


def by_seed(scores: pd.DataFrame, metrics, split: str = "test") -> pd.DataFrame:
    """Rows method, task, split, seed, metric, value of `Opened.scores`: of these metrics and one test, called by the
    name of their run."""
    chosen = scores[scores["metric"].isin(metrics) & (scores["split"] == split)]
    chosen = chosen.assign(method=chosen["name"])
    return chosen[[*ABOUT, "metric", "value"]].reset_index(drop=True)


@torch.inference_mode()
def elsewhere(learner: Student, tests: Mapping[str, object], **about) -> list[dict]:
    """A row per test image: task, concept, metric, value in percent. tests: task -> images with classes (top-1) or with
    captions (R@1 of image to text)."""
    rows = []
    for id, test in tests.items():
        score = classification if classification.fits(test) else retrieval
        found = answers(score, learner, test, {"unified": None})["unified"]
        if score is classification:
            metric, right = "top-1", found.argmax(1) == test.labels
        else:
            metric = "i2t R@1"
            places = retrieval.places(found, np.arange(len(test)), test.image_of)
            right = retrieval.recall_at(places, 1)
        rows += [
            {
                **about,
                "task": id,
                "concept": f"{id} {test.concept(image)}",
                "metric": metric,
                "value": 100.0 * hit,
            }
            for image, hit in zip(test.ids, right, strict=True)
        ]
    return rows


def towers(learner: Student, images, count: int) -> dict[str, tuple[Callable, Callable]]:
    """ "image", "text" -> a call on one input and one on `count`, as the student is deployed.

    PromptKD's texts are the teacher's, whose tower is charged to it. Tokenised and decoded before.
    """
    batch = next(iter(in_order(images, learner, count)))
    pixels, texts = batch["image"].to(learner.device), list(batch["text"])
    speaker = learner.teacher if isinstance(learner, PromptKD) else learner.student
    ids = speaker.tokenize(texts)
    say = lambda n: speaker.text(ids[:n])
    see = lambda n: learner.encode_image(pixels[:n])
    return {"image": (partial(see, 1), partial(see, count)), "text": (partial(say, 1), partial(say, count))}


def sizes(learner: Student) -> dict[str, float]:
    """Parameters in millions: what is deployed, by tower; and what serves training alone."""
    model = learner.student
    counted = measures.parameters(model).sel(part=["image", "text"]).to_series() / 1e6
    found = {"image_million": counted["image"], "text_million": counted["text"]}
    own = {id(p) for p in model.parameters()}
    theirs = {id(p) for p in learner.teacher.parameters()} if learner.teacher is not None else set()
    extra = sum(p.numel() for p in learner.parameters() if id(p) not in own | theirs) / 1e6
    if isinstance(learner, PromptKD):  # its prompts and projector are deployed, and the teacher speaks
        found["image_million"] += extra
        found["text_million"] = measures.parameters(learner.teacher).sel(part="text").item() / 1e6
        extra = 0.0
    return found | {"deployed_million": sum(found.values()), "training_million": extra}


def closed_form(model) -> dict[str, float]:
    """GFLOP of one image and of one text of a ViT and a text tower, by formula: what `measures.flops` must agree with."""
    rows, columns = (n // p for n, p in zip(model.clip.visual.image_size, model.clip.visual.patch_size))
    patches, image, text = rows * columns, model.image, model.text
    joint = model.encode_text(["a"]).shape[1]
    pixels = 2 * patches * 3 * np.prod(model.clip.visual.patch_size) * image.width
    length = model.tokenize(["a"]).shape[1]
    return {
        "image_gflop": (
            measures.transformer_flops(patches + 1, image.width, image.depth)
            + pixels
            + 2 * image.width * joint
        )
        / 1e9,
        "text_gflop": (measures.transformer_flops(length, text.width, text.depth) + 2 * text.width * joint)
        / 1e9,
    }
