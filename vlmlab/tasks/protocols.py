"""What is trained on and what is tested on: one function per protocol, and what sums up its tests.

Each function takes a Dataset, shots (None for all images) and a seed, and returns (train, val, tests).
Protocols of Zhou et al. 2022 (CoOp, CoCoOp); few-shot images are drawn before classes are divided,
so that a class has the same images in every protocol.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from . import sampling
from .images import Images
from .split import Dataset, Split

Parts = tuple[Images, Images | None, dict[str, Images]]


def sampled(data: Dataset, shots: int | None, seed: int) -> tuple[Split, Split | None]:
    """`shots` images per class of train and at most 4 of val, or all of them.

    Data without validation images lends them from the training images that were not drawn.
    """
    if shots is None:
        return data.train, data.val
    val_labels = data.val.labels if data.val is not None else ()
    try:
        train, val = sampling.few_shot(
            data.train.labels, val_labels, shots, seed, repeat=data.repeat, classnames=data.train.classnames
        )
    except ValueError as e:
        raise ValueError(f"{data.id}: {e}") from None
    if data.val is not None:
        return data.train.select(train), data.val.select(val)
    rest = np.setdiff1d(np.arange(len(data.train)), train)
    _, left = sampling.few_shot([], data.train.labels[rest], shots, seed)
    return data.train.select(train), data.train.select(rest[left].tolist()) if left else None


def zero_shot(data: Dataset, shots: int | None, seed: int) -> Parts:
    """Nothing to train on (an empty split): class names only."""
    if shots is not None:
        raise ValueError(f"zero_shot trains on nothing, got shots={shots}; leave shots out or use few_shot")
    return data.train.select([]), None, {"test": data.test if data.whole is None else data.whole}


def few_shot(data: Dataset, shots: int | None, seed: int) -> Parts:
    """All classes, tested on all of the test images."""
    return *sampled(data, shots, seed), {"test": data.test}


def label_distribution(data: Dataset, shots: int | None, seed: int) -> Parts:
    """As few_shot, for data whose splits have soft labels in `distributions`."""
    if data.test.distributions is None:
        raise ValueError(f"{data.id} has no soft labels; use few_shot")
    return few_shot(data, shots, seed)


def base_to_new(data: Dataset, shots: int | None, seed: int) -> Parts:
    """Train on the first half of the classes, test on it and on the other half; both are labelled from 0."""
    train, val = sampled(data, shots, seed)
    base, new = sampling.base_new(data.train.labels)
    if not new:
        raise ValueError(
            f"{data.id} has one class, {data.train.classnames[0]!r}, and base_to_new needs at least two; use few_shot"
        )
    tests = {"base": data.test.restrict(base), "new": data.test.restrict(new)}
    return train.restrict(base), None if val is None else val.restrict(base), tests


def cross_dataset(data: Dataset, shots: int | None, seed: int) -> Parts:
    """Train on all classes here, test on that and on other data sets with their own class names."""
    others = {id: test() for id, test in data.others.items()}
    return *sampled(data, shots, seed), {data.id: data.test, **others}


def domain_shift(data: Dataset, shots: int | None, seed: int) -> Parts:
    """Train on all classes here, test on that and on the same question in other looks."""
    return *sampled(data, shots, seed), {data.id: data.test, **data.shifts}


def retrieval(data: Dataset, shots: int | None, seed: int) -> Parts:
    """Learn from all pairs of image and text; image finds text and text finds image among those of each test."""
    if shots is not None:
        raise ValueError(f"pairs have no classes to draw shots of, got shots={shots}; leave shots out")
    return data.train, data.val, {"test": data.test, **data.shifts}


def vqa(data: Dataset, shots: int | None, seed: int) -> Parts:
    """As retrieval, for questions about images."""
    return retrieval(data, shots, seed)


PROTOCOLS = {
    f.__name__: f
    for f in (
        zero_shot,
        few_shot,
        base_to_new,
        cross_dataset,
        domain_shift,
        label_distribution,
        retrieval,
        vqa,
    )
}


def harmonic_mean(base: float, new: float) -> float:
    """2 b n / (b + n); zero when both are."""
    return 2 * base * new / (base + new) if base + new else 0.0


@dataclasses.dataclass(frozen=True)
class Summary:
    """A number made of those of several tests.

    split: what its rows are called; tests: whose rows it takes; metrics: of these; mean: of their values.
    """

    split: str
    tests: tuple[str, ...]
    metrics: tuple[str, ...]
    mean: Callable[..., float]

    def rows(self, rows: list[dict]) -> list[dict]:
        """One row per metric from rows of one rule, none unless all tests are there; `n` adds up, `test` stands
        for all of them."""
        of = {(r["split"], r["metric"]): r for r in rows}
        found = []
        for metric in self.metrics:
            parts = [of[key] for test in self.tests if (key := (test, metric)) in of]
            if len(parts) < len(self.tests):
                continue
            row = {"split": self.split, "metric": metric, "value": self.mean(*(r["value"] for r in parts))}
            row["n"] = sum(r["n"] for r in parts)
            if all("test" in r for r in parts):
                row["test"] = hashlib.sha256(" ".join(r["test"] for r in parts).encode()).hexdigest()[:16]
            found.append(row)
        return found


def mean(*values: float) -> float:
    return sum(values) / len(values)


FOLDS = tuple(f"fold {k}" for k in range(1, 6))  # of COCO's 5,000 test images
RECALLS = tuple(f"{direction} R@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10))

# protocol -> what it reports besides its tests
SUMMARIES = {
    "base_to_new": (Summary("hm", ("base", "new"), ("accuracy", "balanced_accuracy"), harmonic_mean),),
    "retrieval": (Summary("1K", FOLDS, RECALLS, mean),),
}
