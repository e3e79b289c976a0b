"""Whether a trained method ends below the frozen model that it stands on; only what was measured is said."""

import pandas as pd

from .. import registry
from ..methods.method import Method
from ..tasks.task import Task
from .evaluate import evaluate
from .run import Run
from .run_folder import RunFolder

CHEAP = 2000  # test images that are scored for it where no zero-shot run was measured
SAME = ["split", "test", "metric"]


def below(run: Run, task: Task, scores: pd.DataFrame) -> list[str]:
    """Sentences with the numbers, one for each split and rule whose accuracy in `scores` (of `evaluate`) is lower
    than zero-shot's on the same images, and what may be the reason; none where it is not lower, or not known."""
    method = run.model
    if not isinstance(method, Method) or not method.trainable():
        return []
    frozen = measured(run)
    if frozen is None and sum(map(len, task.tests.values())) <= CHEAP:
        given = {role: model for role, model in zip(method.models_needed, method.loaded)}
        classes = (list(task.classes.names), task.classes.template)
        frozen = evaluate(
            registry.find("zero_shot").build(given, classes, registry.configure("zero_shot", {})), task
        )
    if frozen is None:
        return []
    both = scores.merge(frozen[[*SAME, "value"]], on=SAME, suffixes=("", "_frozen"))
    lower = both[(both["metric"] == "accuracy") & (both["value"] < both["value_frozen"])]
    found = [
        f"below zero-shot on {row.split} ({row.rule}): accuracy {row.value:.2f}, zero-shot has {row.value_frozen:.2f} "
        "on the same images"
        for row in lower.itertuples()
    ]
    if found:
        found.append(
            f"why it may be: it was trained for {run.info['steps']} steps on {len(task.train)} images; so few can take "
            "more from what the model knew than they add. First to try: more shots, more epochs, a smaller lr"
        )
    return found


def measured(run: Run) -> pd.DataFrame | None:
    """Rows of a zero-shot run on the same model and data, if there is one beside this run."""
    job = run.info["job"]
    for path in sorted(run.path.parents[3].glob("*/zero_shot/*/*/run.json")):
        try:
            info = RunFolder(path.parent).info()
            same = all(info["job"].get(k) == job[k] for k in ("models", "data"))
            if same and info["status"] == "finished" and len(rows := Run(path.parent).results):
                return rows
        except ValueError:  # a damaged one, which `results` tells
            continue
    return None
