"""What captions say and what they make up, by hand."""

import pytest

from vlmlab.scores.captions import distinct, hallucination, mentions


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a dog face and a car.", {"dog face", "car"}),
        ("A DOG", {"dog"}),
        ("a hotdog in a cart", set()),
        ("a dog and a dog face", {"dog", "dog face"}),
        ("a kiss: woman, man!", {"kiss: woman, man"}),
        ("", set()),
    ],
)
def test_mentions(text, wanted):
    assert mentions(text, ["dog", "dog face", "car", "kiss: woman, man"]) == wanted


def test_names_keep_their_own_letters():
    assert mentions("the statue of liberty", ["Statue of Liberty"]) == {"Statue of Liberty"}
    assert mentions("anything", []) == set()


def test_hallucination_by_hand():
    said = [{"dog", "car"}, {"cat"}, set(), {"sun", "moon", "cat"}]
    shown = [("dog", "cat"), ("cat",), ("car",), ("moon", "cat")]
    assert hallucination(said, shown) == {
        "attributes_right": (pytest.approx(100 * 4 / 6), 6),
        "hallucinated": (pytest.approx(100 * 2 / 6), 6),
        "captions_hallucinated": (50.0, 4),
    }


def test_silence_is_neither_right_nor_made_up():
    found = hallucination([set(), set()], [("dog",), ("cat",)])
    assert {m: v for m, (v, _) in found.items()} == dict.fromkeys(found, 0.0)
    assert found["hallucinated"][1] == 0


def test_distinct_counts_different_runs_of_words():
    texts = ["a red circle", "a red heart"]
    assert [distinct(texts, n) for n in (1, 2, 3)] == [4 / 6, 3 / 4, 1]
    assert distinct(["a b", "a b"], 2) == 0.5 and distinct(["a"], 2) == 0
