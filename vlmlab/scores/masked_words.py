"""Masked words: does the learner look to find a word that it cannot read?

A test must have captions of two scenes or more, of coloured shapes (`tasks.shapes`; `facts` says what they name). A
learner must offer `fill(images, texts) -> texts`, each with a word in the place of "[MASK]". Of every caption each colour
and each shape is masked in turn.

masked_colour_true_image      share found with the image that the caption belongs to
masked_colour_shuffled_image  with an image of another caption, always the same

and the same of shapes. `chance` is that of one guess among all that are asked for. A learner that ignores the image has
both equal, near chance.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..tasks import shapes
from ..tasks.captions import Captions
from ..tasks.images import Images
from .asking import Pictures, beside, others

OFFERS = (("fill",),)
KINDS = {"colour": "colours", "shape": "shapes"}
WORD = re.compile(r"\[MASK\]|\w+|[^\w\s]")
Question = tuple[str, int, str, str]  # text with [MASK], position of the word, the word, its kind


def fits(test: Images) -> bool:
    return isinstance(test, Captions) and len(test) > 1 and any(any(questions(t)) for t in test.texts)


def questions(text: str) -> Iterable[Question]:
    """Each colour and shape of a text, masked."""
    named, words = shapes.facts(text), WORD.findall(text)
    for place, word in enumerate(words):
        for kind, of in KINDS.items():
            if word.lower() in named[of]:
                hidden = [*words[:place], "[MASK]", *words[place + 1 :]]
                yield " ".join(hidden), place, word.lower(), kind


def asked(test: Captions) -> tuple[np.ndarray, list[Question]]:
    """Of every question the position of its image, and the question."""
    found = [(i, q) for i, text in zip(test.image_of, test.texts) for q in questions(text)]
    return np.array([i for i, _ in found]), [q for _, q in found]


def ask(
    learner, test: Captions, pictures: Pictures, rules: dict[str, str | None]
) -> dict[str, dict[str, list[str]]]:
    """rule -> image -> texts as they were filled in."""
    images, found = asked(test)
    shown = {"true_image": images, "shuffled_image": others(len(test))[images]}
    said = {
        image: [
            text
            for batch in beside(pictures(test.bare(rows)), [text for text, *_ in found])
            for text in learner.fill(*batch)
        ]
        for image, rows in shown.items()
    }
    return dict.fromkeys(rules, said)


def rows(name: str, test: Captions, said: dict[str, Sequence[str]]) -> list[dict]:
    """A row per kind of word and kind of image. ValueError unless every question was answered."""
    _, found = asked(test)
    rows = []
    for image, texts in said.items():
        if len(texts) != len(found):
            raise ValueError(f"{test} asks for {len(found)} masked words, got {len(texts)} texts")
        right = [word_at(t, place) == word for t, (_, place, word, _) in zip(texts, found)]
        for kind in dict.fromkeys(own for *_, own in found):
            of = [r for r, question in zip(right, found) if question[3] == kind]
            there = {word for _, _, word, own in found if own == kind}
            about = {"split": name, "metric": f"masked_{kind}_{image}", "n": len(of)}
            rows.append(about | {"value": 100 * float(np.mean(of)), "chance": 100 / len(there)})
    return rows


def word_at(text: str, place: int) -> str:
    """The word at a position of a text, "" behind its end."""
    words = WORD.findall(text)
    return words[place].lower() if place < len(words) else ""
