"""Captions: does the learner say what is in the image, and only that?

A test must have captions and know what each image shows (`Captions` with `shows`). A learner must offer
`generate(images, texts) -> texts`; here the texts it goes on from are empty.

attributes_right      share of what the images show that their captions say
hallucinated          share of what the captions say that the image does not show (CHAIR_i of Rohrbach et al. 2018,
                      "Object Hallucination in Image Captioning"); n counts what is said
captions_hallucinated share of captions that say anything that is not there (CHAIR_s)

What can be said are the names that any image of the test shows; other words do not count. Learners that say
nothing hallucinate nothing: read the three together.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..tasks.captions import Captions
from ..tasks.images import Images
from .asking import Pictures

OFFERS = (("generate",),)


def fits(test: Images) -> bool:
    return isinstance(test, Captions) and test.shows is not None


def ask(learner, test: Captions, pictures: Pictures, rules: dict[str, str | None]) -> dict[str, list[str]]:
    """rule -> one caption per image."""
    said = [text for images in pictures(test) for text in learner.generate(images, [""] * len(images))]
    return dict.fromkeys(rules, said)


def rows(name: str, test: Captions, said: Sequence[str]) -> list[dict]:
    """One row per metric. ValueError unless there is a caption per image."""
    if len(said) != len(test):
        raise ValueError(f"{test} needs a caption per image, got {len(said)}")
    vocabulary = {word for shown in test.shows for word in shown}
    found = hallucination([mentions(text, vocabulary) for text in said], test.shows)
    return [{"split": name, "metric": m, "value": v, "n": n} for m, (v, n) in found.items()]


def mentions(text: str, vocabulary: Iterable[str]) -> set[str]:
    """The names of a vocabulary that a text holds as whole words; of names within names only the longest."""
    named = {name.lower(): name for name in vocabulary}
    longest = sorted(named, key=len, reverse=True)
    pattern = "|".join(re.escape(name) for name in longest)
    return {named[m] for m in re.findall(rf"(?<!\w)(?:{pattern})(?!\w)", text.lower())} if longest else set()


def hallucination(
    said: Sequence[Iterable[str]], shown: Sequence[Iterable[str]]
) -> dict[str, tuple[float, int]]:
    """Metric -> (percent, of how many); said, shown: per image the names in its caption and in the image."""
    pairs = [(set(a), set(b)) for a, b in zip(said, shown, strict=True)]
    right, wrong = (np.array([len(f(a, b)) for a, b in pairs]) for f in (set.intersection, set.difference))
    there, named = sum(len(b) for _, b in pairs), int((right + wrong).sum())
    return {
        "attributes_right": (100 * float(right.sum()) / max(there, 1), there),
        "hallucinated": (100 * float(wrong.sum()) / max(named, 1), named),
        "captions_hallucinated": (100 * float((wrong > 0).mean()), len(pairs)),
    }


def distinct(texts: Sequence[str], n: int) -> float:
    """Share of different runs of n words among all of them, 0 where there are none (Li et al. 2016, "A
    Diversity-Promoting Objective Function for Neural Conversation Models").

    >>> distinct(["a red circle", "a red heart"], 2)
    0.75
    """
    found = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return len({*found}) / max(1, len(found))
