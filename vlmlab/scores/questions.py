"""Questions: what do people answer about the image?

A test must have questions with answers (`Questions`). A learner must offer `generate(images, questions) -> texts`.

vqa_accuracy  with k of n people agreeing, the mean over people of min(agreeing among the others / 3, 1): for ten
              people 0, 0.3, 0.6, 0.9 and 1 for k = 0, 1, 2, 3 and 4 or more (Antol et al. 2015, "VQA", and its
              evaluation code)
exact_match   share of answers that are one of the accepted ones; of questions that fewer than four people
              answered, for whom the above never reaches 1

and each by kind, such as "vqa_accuracy yes/no": the mean over all questions is their mean weighted by `n`. (The
published code gives per kind the value of the last of the ten subsets only.) Texts are compared as `normalise`
leaves them. A test has vqa_accuracy where at least one of its questions was answered by four people or more.
"""

from collections.abc import Sequence

import numpy as np

from ..tasks.answers import PEOPLE, accuracy, normalise
from ..tasks.images import Images
from ..tasks.questions import Questions
from .asking import Pictures, beside

OFFERS = (("generate",),)

__all__ = ["OFFERS", "accuracy", "ask", "fits", "normalise", "rows"]


def fits(test: Images) -> bool:
    return isinstance(test, Questions)


def ask(learner, test: Questions, pictures: Pictures, rules: dict[str, str | None]) -> dict[str, list[str]]:
    """rule -> one text per question."""
    asked = beside(pictures(test.bare(test.image_of)), test.questions)
    said = [text for images, texts in asked for text in learner.generate(images, texts)]
    return dict.fromkeys(rules, said)


def rows(name: str, test: Questions, said: Sequence[str]) -> list[dict]:
    """A row over all questions and one per kind. ValueError unless there is an answer to each question."""
    if len(said) != len(test.questions):
        raise ValueError(f"{test} needs an answer to each question, got {len(said)}")
    right = np.array([accuracy(text, answers) for text, answers in zip(said, test.answers, strict=True)])
    many = any(sum(answers.values()) >= PEOPLE for answers in test.answers)
    metric, kinds = "vqa_accuracy" if many else "exact_match", np.array(test.kinds)
    chosen = {metric: np.full(len(kinds), True)}
    chosen |= {f"{metric} {kind}": kinds == kind for kind in dict.fromkeys(test.kinds)}
    return [
        {"split": name, "metric": m, "value": 100 * float(right[of].mean()), "n": int(of.sum())}
        for m, of in chosen.items()
    ]
