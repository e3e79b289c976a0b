"""A model beside `tiny`, on the same pictures and captions: is it better, and by how many errors?"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from . import measures
from .cells import percent, table
from .measures import SEEN, Bank, Size, row

OTHER = "tiny"
# measure, end of the task's name or the task, metrics -> in words
ASKED = {
    ("zero_shot", "groups", ("balanced accuracy",)): "zero-shot, subgroup classes",
    ("zero_shot", "fine", ("accuracy",)): "zero-shot, one class per emoji",
    ("retrieval", "names", ("i2t R@1", "t2i R@1")): "retrieval R@1, names",
    ("retrieval", "keywords", ("i2t R@1", "t2i R@1")): "retrieval R@1, keywords",
    ("scenes", "names", ("i2t R@1", "t2i R@1")): "scenes of two objects R@1",
}


def rows(bank: Bank, other: Bank, styles: Iterable[str], size: Size) -> list[dict]:
    """What `bank` answers rightly and `other` does not, less what it is the other way round, item by item.

    The measures are called "zero_shot - tiny" and so on; errors are of the paired differences, of pictures
    over concepts.
    """
    styles, out = list(styles), []
    for head, part in measures.classified(styles, size):
        gain = measures.right(bank, part) - measures.right(other, part)
        found = measures.rates(gain, part.labels, measures.hexcodes(part.ids))
        out += [row(*named(head), m, value, np.nan, len(part), se) for m, (value, se) in found.items()]
    both = (measures.matched(b, styles, size) for b in (bank, other))
    for (head, here), (_, its) in zip(*both, strict=True):
        for metric, gain in first(here, its).items():
            se = gain.std(ddof=1) / len(gain) ** 0.5
            out.append(row(*named(head), metric, gain.mean(), np.nan, len(gain), se))
    return out


def named(head: measures.Head) -> measures.Head:
    """The head of the rows of a difference."""
    return (f"{head[0]} - {OTHER}", *head[1:])


def first(here: Tensor, its: Tensor) -> dict[str, np.ndarray]:
    """Which of the pairs come first with cosines (image, text) `here` and not with `its`, in both directions."""
    both = {"i2t R@1": (here, its), "t2i R@1": (here.T, its.T)}
    hits = {m: [(measures.ranks(c) == 1).numpy().astype(float) for c in pair] for m, pair in both.items()}
    return {metric: a - b for metric, (a, b) in hits.items()}


def beside(frame: pd.DataFrame, _: Path) -> str:
    """Means over tasks and styles that neither saw, in percent, and their difference with one standard error."""
    lines = []
    for (measure, kind, metrics), words in ASKED.items():
        for concepts in ("known", "novel"):
            own, gain = (asked(frame, m, kind, metrics, concepts) for m in (measure, f"{measure} - {OTHER}"))
            if gain.empty:
                continue
            value, (difference, error) = own["value"].mean(), mean(gain)
            cells = [percent(value, 1), percent(value - difference, 1)]
            cells += [f"{100 * difference:+.1f} ± {percent(error, 1)}", f"{difference / error:.1f}"]
            lines.append([words, concepts, *cells])
    return table(["question", "concepts", "here", OTHER, "difference", "in errors"], lines)


def asked(
    card: pd.DataFrame, measure: str, kind: str, metrics: tuple[str, ...], concepts: str
) -> pd.DataFrame:
    """The rows of one question, of the styles that pretraining never saw."""
    found = card[(card["measure"] == measure) & (card["concepts"] == concepts) & (card["style"] != SEEN)]
    name = found["task"]
    if measure.startswith("zero_shot"):
        name = np.where(name.str.endswith("-fine"), "fine", "groups")
    return found[(name == kind) & found["metric"].isin(metrics)]


def mean(found: pd.DataFrame) -> tuple[float, float]:
    """Mean of the values and its standard error: tasks are of different concepts, styles and directions of the same."""
    errors = found.groupby("task")["se"].mean()
    return found["value"].mean(), float(np.sqrt((errors**2).sum())) / len(errors)
