"""What a learner's answers to a test are worth: one file per kind of question.

Each file says at its top what a test must have and what a learner must offer, and has

- OFFERS: the ways to ask, each the names of the functions that a learner must have for it;
- fits(test) -> bool: whether the test has what it takes;
- ask(learner, test, pictures, rules) -> {rule: answers}: the learner's answers as NumPy arrays or texts, where
  pictures(images) yields batches of preprocessed images (batch, 3, height, width) in order, and rules maps each
  rule of inference to "base", "new" or None (only `classify` knows rules);
- rows(name, test, answers) -> [{split, metric, value, n, ...}]: what they are worth; shares are in percent;

and besides these pure functions of arrays, for measures and notebooks.
"""

import importlib
from types import ModuleType

from ..tasks.images import Images

# Where two ask a learner the same, the first that fits a test scores it.
_NAMES = (
    "label_distribution",
    "classification",
    "questions",
    "retrieval",
    "captions",
    "language_loss",
    "masked_words",
    "ranking",
    "pointing",
)


def names() -> list[str]:
    """The kinds of scores there are (module names in this folder)."""
    return list(_NAMES)


def _fitting(test: Images) -> list[ModuleType]:
    modules = [importlib.import_module(f"{__name__}.{name}") for name in _NAMES]
    fitting = [module for module in modules if module.fits(test)]
    if not fitting:
        raise ValueError(f"nothing can be asked about {test}; a test needs labels, captions or questions")
    return fitting


def find(test: Images) -> ModuleType:
    """The file that scores a test first of all. ValueError for images that nothing is known about."""
    return _fitting(test)[0]


def found(test: Images, learner: object) -> list[ModuleType]:
    """All files that score this test of this learner; ValueError says what the learner would have to offer."""
    chosen, asked = [], set()
    for module in _fitting(test):
        if module.OFFERS not in asked and any(offers(learner, way) for way in module.OFFERS):
            chosen.append(module)
            asked.add(module.OFFERS)
    if not chosen:
        ways = dict.fromkeys(" and ".join(way) for module in _fitting(test) for way in module.OFFERS)
        raise ValueError(
            f"{type(learner).__name__} cannot be asked about {test}; it needs {', or '.join(ways)}"
        )
    return chosen


def offers(learner: object, names: tuple[str, ...]) -> bool:
    """Whether a learner has all these functions."""
    return all(callable(getattr(learner, name, None)) for name in names)


def __dir__() -> list[str]:
    return ["find", "found", "names", "offers"]
