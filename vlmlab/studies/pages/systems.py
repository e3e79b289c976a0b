"""What the survey's systems are and do, read off their runs: a row of a table each."""

from collections.abc import Mapping

import torch

from ...feeds import in_order
from ...systems.system import System
from ...train.run import Run
from ...train.run_folder import RunFolder

NAMES = {"zero_shot": "clip", "linear_probe": "vit"}  # learner -> the system it stands for
MASK = "[MASK]"

# what a learner may offer -> how it writes, and a call that shows it; the first that there is
WRITES = {
    "generate": ("word by word, about an image", lambda f, images, text: f(images, [""], how="greedy")),
    "translate": ("word by word, from a text", lambda f, images, text: f([text], "greedy")),
    "fill": ("a word in a gap", lambda f, images, text: f(images, [gap(text)])),
}


def facts(run: Run, task) -> dict[str, object]:
    """One run, attached, in words and numbers: writes and example, found by asking it; trained and frozen, numbers in
    parameters; tokens of an image that its text side is given, None where there is no such side; losses, the terms of every
    stage; data, steps, seconds.

    >>> row, run, task = next(art.open())
    >>> pd.Series(systems.facts(run, task))
    """
    learner, test = run.model.eval(), next(iter(task.tests.values()))
    seeing = getattr(learner, "vlm", learner)
    images = next(iter(in_order(test.select([0]), seeing, 1)))["image"].to(learner.device)
    with torch.inference_mode():
        how, example = written(learner, images, getattr(test, "texts", ("",))[0])
        tokens = seen(learner, images)
    frozen = {id(p): p.numel() for model in learner.loaded for p in model.parameters()}
    return {
        "writes": how,
        "example": example,
        "trained": sum(p.numel() for p in learner.trainable().values()),
        "frozen": sum(frozen.values()),
        "tokens": tokens,
        "losses": "; ".join(f"{stage}: {' + '.join(names)}" for stage, names in terms(run).items()),
        "data": f"{task.id}, {len(task.train):,} images",
        "steps": run.info["steps"],
        "seconds": round(sum(run.info["seconds"]), 1),
    }


def written(learner, images: torch.Tensor, text: str) -> tuple[str, str]:
    """How a learner writes, and what it writes of one image (1, 3, height, width) and one text; ("no", "") where it
    does not."""
    for name, (how, ask) in WRITES.items() if isinstance(learner, System) else ():
        if callable(offered := getattr(learner, name, None)):
            return how, ask(offered, images, text)[0]
    return "no", ""


def gap(text: str) -> str:
    """The text with its second word hidden."""
    words = text.split()
    return " ".join([*words[:1], MASK, *words[2:]])


def seen(learner, images: torch.Tensor) -> int | None:
    """Tokens of an image that a learner's text side looks at or reads; None where it has none."""
    if hasattr(learner, "look"):
        told = learner.look(images)
    elif hasattr(learner, "fill") and hasattr(learner, "online"):
        told = learner.online.see(images)
    else:
        return None
    return None if told is None else told.shape[1]


def terms(run: Run) -> Mapping[str, list[str]]:
    """Stage -> names of the terms of its loss, as the log of the run has them: between the rate and their sum."""
    found = {}
    for row in RunFolder(run.path).read_log():
        names = list(row)
        found.setdefault(row["stage"], names[names.index("lr") + 1 : names.index("loss")])
    return found
