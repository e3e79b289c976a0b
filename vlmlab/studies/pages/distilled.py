"""What the study cmapkd prints of its students: their names, their numbers by seed, how they classify unseen classes,
what they cost."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
import torch

from ... import measures, registry
from ...distill.promptkd import PromptKD
from ...distill.schedules import PREFIT
from ...distill.student import Student
from ...feeds import in_order, moved
from ...scores import classification, retrieval
from ...train.evaluate import answers
from ...train.run import Run
from . import table_damage
from .tables import DATA

RECALLS = tuple(f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))
ABOUT = ["method", "task", "split", "seed"]
HEAD = "vqa_head"
AGAIN = 8  # first steps of a stage whose loss is asked again, at most
COSTS = {  # head and decimal places of what Table 5 prints
    "image_million": ("image tower, M", 2),
    "text_million": ("text tower, M", 2),
    "deployed_million": ("deployed, M", 2),
    "training_million": ("for training, M", 2),
    "image_gflop": ("GFLOP an image", 3),
    "text_gflop": ("GFLOP a text", 3),
    "image_ms": ("an image, ms", 2),
    "text_ms": ("a text, ms", 2),
    "many_ms": ("in a batch, ms", 2),
    "memory_mib": ("memory, MiB", 1),
    "i2t R@1": ("image to text R@1", 1),
}


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
                "split": "test",
                "concept": f"{id} {test.concept(image)}",
                "metric": metric,
                "value": 100.0 * hit,
            }
            for image, hit in zip(test.ids, right, strict=True)
        ]
    return rows


def questions(scores: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Rows method, task, split, seed, metric, value of the heads for questions: the method is the student that a head stands
    on, the metric "vqa", or "vqa number" for a kind; of `Opened.scores`."""
    kinds = r"^(?:vqa_accuracy|exact_match)"
    heads = scores[(scores["method"] == HEAD) & (scores["split"] == split)]
    heads = heads.assign(method=heads["name"].str.removeprefix(f"{HEAD}_"))
    both = (
        heads["metric"].str.startswith("vqa_accuracy").any()
    )  # where ten people answered, as they are counted there
    heads = heads[heads["metric"].str.startswith("vqa_accuracy" if both else "exact_match")]
    heads = heads.assign(metric=heads["metric"].str.replace(kinds, "vqa", regex=True))
    return heads[[*ABOUT, "metric", "value"]].reset_index(drop=True)


def config(run: Run) -> object:
    """The settings that say what a run's learner is."""
    return registry.configure(registry.find(run.info["job"]["method"]), run.info["config"])


def shares(log: pd.DataFrame) -> pd.DataFrame:
    """Rows method, seed, stage, step, term, value: each term's share of the student's gradient where it was measured. Steps
    count through all stages. ValueError where it never was."""
    columns = [c for c in log if c.startswith("share_")]
    own = log.assign(step=np.arange(len(log)))[["method", "seed", "stage", "step", *columns]]
    own = own[own[columns].notna().any(axis=1)] if columns else own[:0]
    if own.empty:
        raise ValueError(f"{log['method'].iloc[0]} kept no shares of the gradient; train it with watch=10")
    own = own.rename(columns=lambda c: c.removeprefix("share_"))
    rows = own.melt(["method", "seed", "stage", "step"], var_name="term", value_name="value")
    moved = rows.groupby("term")["value"].transform("max") > 0  # what trains ALSN alone moves nothing here
    return rows[moved & rows["value"].notna()].reset_index(drop=True)


def change(run: Run, task, **about) -> dict:
    """{stage, value}, by how many percent the loss on the first steps of a run's longest stage (of several the last; the
    prefit, which the student has no part in, is none of them) is higher after the training than it was then. The pairs are
    the same: of a few pairs the loss differs more from batch to batch than a short training moves it."""
    log = run.metrics[run.metrics["stage"] != PREFIT.name]
    lengths = log.groupby("stage", sort=False).size()
    stage = lengths[lengths == lengths.max()].index[-1]
    before = log.loc[log["stage"] == stage, "loss"].to_numpy()
    before = before[: min(AGAIN, max(1, len(before) // 3))]
    after = again(run, task, stage, len(before))
    return about | {"stage": stage, "value": 100 * (after.mean() / before.mean() - 1)}


def again(run: Run, task, stage: str, steps: int) -> np.ndarray:
    """(step,) the loss of what a run trained on the batches that a stage began with."""
    learner, job = run.model, run.info["job"]
    options = registry.configure(type(learner), job["options"], "Options")
    asked = next(s for s in learner.stages(task, options, job["seed"]) if s.name == stage)
    with torch.no_grad(), learner.autocast():
        batches = (moved(batch, learner.device) for _, batch in zip(range(steps), asked.feed(0)))
        return np.array([float(sum(learner.losses(batch, asked).values())) for batch in batches])


def deployed(
    learner: Student, images, count: int
) -> tuple[dict[str, tuple[Callable, Callable]], torch.Tensor]:
    """({"image", "text" -> a call on one input and one on `count`}, the pixels), as the student is deployed.

    PromptKD's texts are the teacher's. Tokenised and decoded before; texts are not cut, as the longest of a batch decides.
    """
    learner.eval()
    batch = next(iter(in_order(images, learner, count)))
    pixels, texts = batch["image"].to(learner.device), list(batch["text"])
    speaker = learner.teacher if isinstance(learner, PromptKD) else learner.student
    speaker.shortcuts, ids = False, speaker.tokenize(texts)
    calls = {
        "image": [partial(learner.encode_image, pixels[:n]) for n in (1, count)],
        "text": [partial(speaker.text, ids[:n]) for n in (1, count)],
    }
    return {kind: tuple(pair) for kind, pair in calls.items()}, pixels


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
