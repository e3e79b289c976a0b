"""VQA accuracy against its published definition, and what counts as the same answer."""

import numpy as np
import pytest

from vlmlab.scores.questions import accuracy, normalise


def published(agree, people=10):
    """Mean over each person left out of min(those of the others who agree / 3, 1)."""
    said = [True] * agree + [False] * (people - agree)
    return np.mean([min((sum(said) - left) / 3, 1) for left in said])


@pytest.mark.parametrize("agree", range(11))
def test_ten_people(agree):
    answers = {k: n for k, n in (("cat", agree), ("dog", 10 - agree)) if n}
    assert accuracy("cat", answers) == pytest.approx(published(agree))
    assert accuracy("cat", answers) == pytest.approx([0, 0.3, 0.6, 0.9, *[1] * 7][agree])


def test_answers_that_are_the_same_count_together():
    assert accuracy("The Cat.", {"cat": 1, "a cat": 1, "Cat": 1, "dog": 7}) == pytest.approx(0.9)


def test_a_single_true_answer_is_matched():
    assert accuracy("two", {"2": 1}) == 1 and accuracy("dogs", {"dog": 1}) == 0
    assert accuracy("cat", {"dog": 1, "cat": 2}) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A red Car.", "red car"),
        ("  two\ndogs ", "2 dogs"),
        ("don't", "dont"),
        ("don\u2019t", "dont"),
        ("1,000", "1000"),
        ("2.5", "2.5"),
        ("yes, it is", "yes it is"),
        ("black/white", "black white"),
        ("none", "0"),
        ("t-shirt", "t-shirt"),
        ("The", ""),
    ],
)
def test_normalise(text, wanted):
    assert normalise(text) == wanted
