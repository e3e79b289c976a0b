"""When two answers to a question are the same, and what an answer is worth against those of several people."""

import re
from collections.abc import Mapping

ARTICLES = {"a", "an", "the"}
NUMBERS = "zero one two three four five six seven eight nine ten".split()
DIGITS = {"none": "0", **{word: str(i) for i, word in enumerate(NUMBERS)}}
PEOPLE = 4  # with fewer, nobody could agree with three others


def accuracy(said: str, answers: Mapping[str, int]) -> float:
    """0 to 1, what one answer is worth; answers: accepted answer -> how many people gave it."""
    said, people = normalise(said), sum(answers.values())
    agree = sum(count for answer, count in answers.items() if normalise(answer) == said)
    if people < PEOPLE:
        return float(agree > 0)
    return ((people - agree) * min(agree / 3, 1) + agree * min((agree - 1) / 3, 1)) / people if agree else 0.0


def normalise(text: str) -> str:
    """Lower case, without articles, apostrophes and punctuation, numbers up to ten as digits.

    A decimal point stays. Without apostrophes "dont" and "don't" are one, which VQA's code has a table for.
    """
    text = re.sub(r"['\u2019]|\.(?!\d)|(?<=\d),(?=\d)", "", text.lower())
    words = re.sub(r"[;:/\[\]\"()=+\\_><@`,?!]", " ", text).split()
    return " ".join(DIGITS.get(word, word) for word in words if word not in ARTICLES)
