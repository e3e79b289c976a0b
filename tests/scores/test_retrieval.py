"""Recalls and ranks by hand and by trying all orders of tied items."""

import itertools

import numpy as np
import pytest

from vlmlab.scores.retrieval import first_rank, places, recall_at


def by_orders(similarity, right, k):
    """(recall at k, rank of the first right item) of one query, averaged over all orders of equal items."""
    hits, ranks = [], []
    for order in itertools.permutations(range(len(similarity))):
        if all(similarity[a] >= similarity[b] for a, b in itertools.pairwise(order)):
            first = min(i for i, item in enumerate(order) if right[item])
            hits.append(first < k)
            ranks.append(first + 1)
    return np.mean(hits), np.mean(ranks)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_ties_are_broken_in_all_orders(k):
    rng = np.random.default_rng(0)
    for _ in range(25):
        similarity = rng.integers(0, 3, 6).astype(float)
        item = rng.integers(0, 2, 6) * (np.arange(6) > 0)  # the first is right
        recall, rank = by_orders(similarity, item == 0, k)
        found = places(similarity[None], np.array([0]), item)
        assert recall_at(found, k) == pytest.approx(recall)
        assert first_rank(found) == pytest.approx(rank)


def test_several_captions_an_image_by_hand():
    image_of = np.array([0, 0, 1, 1])
    similarity = np.array([[0.1, 0.9, 0.5, 0.2], [0.8, 0.7, 0.6, 0.1]])
    i2t = places(similarity, np.arange(2), image_of)
    assert i2t.tolist() == [[0, 0, 1], [2, 0, 1]]
    assert [recall_at(i2t, k).tolist() for k in (1, 2, 3)] == [[1, 0], [1, 0], [1, 1]]
    assert first_rank(i2t).tolist() == [1, 3]
    t2i = places(similarity.T, image_of, np.arange(2))
    assert recall_at(t2i, 1).tolist() == [0, 1, 1, 0] and first_rank(t2i).tolist() == [2, 1, 1, 2]


def test_a_learner_that_sees_no_difference_scores_chance():
    n = 20
    found = places(np.zeros((n, n)), np.arange(n), np.arange(n))
    for k in (1, 5, 10):
        assert recall_at(found, k) == pytest.approx(np.full(n, k / n))
    assert first_rank(found) == pytest.approx(np.full(n, (n + 1) / 2))
    assert recall_at(found, 50) == pytest.approx(np.ones(n))


def test_more_queries_than_are_compared_at_once(monkeypatch):
    from vlmlab.scores import retrieval

    similarity = np.random.default_rng(0).normal(size=(11, 11))
    whole = places(similarity, np.arange(11), np.arange(11))
    monkeypatch.setattr(retrieval, "QUERIES", 4)
    assert (places(similarity, np.arange(11), np.arange(11)) == whole).all()
    order = (-similarity).argsort(1)
    assert first_rank(whole).tolist() == [list(row).index(i) + 1 for i, row in enumerate(order)]
