"""What each run answered to each test image: accuracies, recalls and distances under draws of the test concepts."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ...scores import classification, retrieval
from ...scores import label_distribution as ld
from ...tasks.protocols import SUMMARIES
from ...tasks.task import Task, task
from ...train.records import read_lines
from ...train.run import Run
from ...train.run_folder import RESULTS
from ..resampling import DRAWS, weights

SHARES = ("accuracy", "balanced_accuracy")  # in percent, as are recalls
SUMMED = {summary.split for each in SUMMARIES.values() for summary in each}  # rows of several tests
RECALL = re.compile(r"(i2t|t2i) R@(\d+)")


def drawn(runs: Iterable[tuple[str | Path, str, str]], metric: str) -> pd.DataFrame:
    """The rows of runs as `by_seed.per_seed` takes them, wide: columns 0, 1, ... are the metric under all draws.

    metric: an accuracy, a recall such as "t2i R@5", or a distance between label distributions. runs: path, protocol, variant. `attrs["concepts"]` says how many there are. Images of one concept are drawn together,
    within its class, the same ones for every run. LookupError where answers were not kept, or for another metric.
    """
    if metric not in (*SHARES, *ld.DISTANCES) and not RECALL.fullmatch(metric):
        raise LookupError(f"no single answers stand behind {metric}")
    rows = [
        row for path, protocol, variant in runs for row in answered(Path(path), protocol, variant, metric)
    ]
    if not rows:
        raise LookupError(f"no run has {metric}")
    tests = {row["test"]: row["of"] for row in rows}
    labels = {name: getattr(of, "labels", np.zeros(len(of), np.int64)) for name, of in tests.items()}
    concepts = {name: [of.concept(id) for id in of.ids] for name, of in tests.items()}
    each = pd.DataFrame(
        [(c, name, label) for name in tests for c, label in zip(concepts[name], labels[name], strict=True)],
        columns=["concept", "task", "label"],
    )
    weight = weights(each["concept"], each[["task", "label"]], DRAWS)
    factors = {name: weight.loc[c].to_numpy() for name, c in concepts.items()}
    found = []
    for row in rows:
        worth, of, factor = row.pop("worth"), row.pop("of"), factors[row["test"]]
        if metric.startswith("t2i"):  # a text is drawn with its image
            factor = factor[of.image_of]
        groups = labels[row["test"]] if metric == "balanced_accuracy" else np.zeros(len(worth))
        values = mean(worth, groups, factor)
        found.append(row | dict(enumerate(values)))
    frame = with_summaries(pd.DataFrame(found))
    frame.attrs["concepts"] = len(weight)
    return frame


def mean(worth: np.ndarray, groups: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """(draw,) what answers are worth, the mean over groups; worth, groups (answer,), factor (answer, draw).

    A group of which a draw has no answer, few concepts being drawn where another test has them too, is not in its mean.
    """
    found = []
    for group in np.unique(groups):
        own = groups == group
        count = factor[own].sum(0)
        sums = (worth[own, None] * factor[own]).sum(0)
        found.append(np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0))
    return np.nanmean(found, axis=0)


def kept(row: dict, metric: str) -> np.ndarray:
    """(answer,) what each answer of a row is worth, in the unit of the metric. KeyError where a row keeps none."""
    if metric in ld.DISTANCES:
        return ld.unpacked(row["values"], row["n"])
    if recall := RECALL.fullmatch(metric):
        return 100 * retrieval.recall_at(retrieval.unpacked(row["places"], row["n"]), int(recall[2]))
    return 100 * classification.unpacked(row["right"], row["n"])


def answered(path: Path, protocol: str, variant: str, metric: str) -> list[dict]:
    """The tests of one run, with what its answers are `worth` and the images `of` the test."""
    keeper = f"{recall[1]} R@1" if (recall := RECALL.fullmatch(metric)) else metric
    keeper = "accuracy" if metric in SHARES else keeper
    run, known = Run(path), {}
    labels, rows = run.info["labels"], []
    for row in read_lines(path / RESULTS):
        if row["protocol"] != protocol or row["metric"] != keeper or row["split"] in SUMMED:
            continue
        if not {"right", "places", "values"} & row.keys():
            raise LookupError(f"{path} keeps no single answers; evaluate it again")
        if protocol not in known:
            known[protocol] = tests_of(run, protocol)
        split = known[protocol].get(row["test"])
        if split is None:
            raise LookupError(f"the test images of {path} are not at hand, or changed since")
        about = {k: labels.get(k) for k in ("method", "shots", "seed")} | {"variant": variant}
        about |= {k: row[k] for k in ("task", "protocol", "split", "rule", "test")}
        rows.append(about | {"metric": metric, "of": split, "worth": kept(row, metric)})
    return rows


TASKS: dict[str, dict] = {}


def tests_of(run: Run, protocol: str) -> dict[str, object]:
    """Digest -> test, of the task that a run was measured on; other seeds train on other images of the same tests."""
    arguments = run.info["task"] | {"protocol": protocol}
    key = repr(sorted((k, v) for k, v in arguments.items() if k not in ("seed", "shots")))
    if key not in TASKS:
        found: Task = task(**arguments)
        TASKS[key] = {digest[:16]: found.tests[name] for name, digest in found.test_fingerprints().items()}
    return TASKS[key]


def with_summaries(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows and, for base and new of one run, their harmonic mean."""
    numbers = [c for c in rows if isinstance(c, int)]
    by = ["method", "variant", "task", "protocol", "rule", "shots", "seed", "metric"]
    wide = rows.set_index([*by, "split"])[numbers]
    splits = set(rows["split"])
    if not {"base", "new"} <= splits:
        return rows
    base, new = (wide.xs(s, level="split") for s in ("base", "new"))
    both = (2 * base * new / (base + new)).dropna(how="all").reset_index()
    return pd.concat([rows, both.assign(split="hm")], ignore_index=True)
