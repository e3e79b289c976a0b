"""Ranking: are texts that belong to their image ranked above texts that do not?

A test must have captions of two images or more (`Captions`). A learner must offer `match(images, texts) -> (batch,)`,
higher where they belong together, as an image-text matching head does. Every caption is asked about with its own
image and with another one, always the same.

AUC                area under the ROC curve: the probability that a true pair is above a false one, ties half
average_precision  mean precision at the true pairs, from above; chance is the share of true pairs, 50 %
"""

import numpy as np

from ..tasks.captions import Captions
from ..tasks.images import Images
from .asking import Pictures, beside, finite, joined, others

OFFERS = (("match",),)


def fits(test: Images) -> bool:
    return isinstance(test, Captions) and len(test) > 1


def ask(learner, test: Captions, pictures: Pictures, rules: dict[str, str | None]) -> dict[str, np.ndarray]:
    """rule -> float64 (2, text): of each caption with its own image, and with another one."""
    shown = (test.image_of, others(len(test))[test.image_of])
    found = np.stack(
        [
            joined(learner.match(*batch) for batch in beside(pictures(test.bare(images)), test.texts))
            for images in shown
        ]
    )
    finite(learner, test, matches=found)
    return dict.fromkeys(rules, found)


def rows(name: str, test: Captions, found: np.ndarray) -> list[dict]:
    """Both metrics; n counts pairs."""
    true = np.repeat([True, False], found.shape[1])
    values = {"AUC": auc(true, found.ravel()), "average_precision": average_precision(true, found.ravel())}
    return [{"split": name, "metric": m, "value": 100 * v, "n": found.size} for m, v in values.items()]


def auc(true: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve, 0 to 1; true: bool (n,) of both kinds, score: (n,)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(true, score))


def average_precision(true: np.ndarray, score: np.ndarray) -> float:
    """Sum over thresholds of precision times the gain in recall, 0 to 1; true: bool (n,), score: (n,)."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(true, score))
