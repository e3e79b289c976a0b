"""A model's card beside that of `tiny`, measured on the same pictures: is it better, and by how many errors?"""

from pathlib import Path

import numpy as np
import pandas as pd

from .cells import percent, table
from .measures import SEEN

OTHER = "tiny"
# measure, end of the task's name or the task, metrics -> in words
ASKED = {
    ("zero_shot", "groups", ("balanced accuracy",)): "zero-shot, subgroup classes",
    ("zero_shot", "fine", ("accuracy",)): "zero-shot, one class per emoji",
    ("retrieval", "names", ("i2t R@1", "t2i R@1")): "retrieval R@1, names",
    ("retrieval", "keywords", ("i2t R@1", "t2i R@1")): "retrieval R@1, keywords",
    ("scenes", "names", ("i2t R@1", "t2i R@1")): "scenes of two objects R@1",
}


def beside(frame: pd.DataFrame, config: Path) -> str:
    """Means over tasks and styles that neither saw, in percent, and their difference with one standard error."""
    other = pd.read_csv(config.parent.parent / OTHER / "card.csv")
    lines = []
    for (measure, kind, metrics), words in ASKED.items():
        for concepts in ("known", "novel"):
            both = [asked(card, measure, kind, metrics, concepts) for card in (frame, other)]
            if both[0].empty:
                continue
            (own, error), (its, its_error) = map(mean, both)
            spread = np.hypot(error, its_error)
            cells = [percent(own, 1), percent(its, 1), f"{100 * (own - its):+.1f} ± {percent(spread, 1)}"]
            lines.append([words, concepts, *cells, f"{(own - its) / spread:.1f}"])
    return table(["question", "concepts", "here", OTHER, "difference", "in errors"], lines)


def asked(
    card: pd.DataFrame, measure: str, kind: str, metrics: tuple[str, ...], concepts: str
) -> pd.DataFrame:
    """The rows of one question, of the styles that pretraining never saw."""
    rows = card[(card["measure"] == measure) & (card["concepts"] == concepts) & (card["style"] != SEEN)]
    name = rows["task"]
    if measure == "zero_shot":
        name = np.where(name.str.endswith("-fine"), "fine", "groups")
    return rows[(name == kind) & rows["metric"].isin(metrics)]


def mean(rows: pd.DataFrame) -> tuple[float, float]:
    """Mean of the values and its standard error: tasks are of different concepts, styles and directions of the same."""
    errors = rows.groupby("task")["se"].mean()
    return rows["value"].mean(), float(np.sqrt((errors**2).sum())) / len(errors)
