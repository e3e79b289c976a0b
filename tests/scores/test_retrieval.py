"""Recalls and ranks by hand and by trying all orders of tied items."""

import itertools

import numpy as np
import pytest

from vlmlab.scores import retrieval
from vlmlab.scores.retrieval import first_rank, places, recall_at
from vlmlab.tasks import Captions


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
    similarity = np.random.default_rng(0).normal(size=(11, 11))
    whole = places(similarity, np.arange(11), np.arange(11))
    monkeypatch.setattr(retrieval, "QUERIES", 4)
    assert (places(similarity, np.arange(11), np.arange(11)) == whole).all()
    order = (-similarity).argsort(1)
    assert first_rank(whole).tolist() == [list(row).index(i) + 1 for i, row in enumerate(order)]


def test_rows_sum_up_both_directions_and_keep_where_right_items_stand():
    rng = np.random.default_rng(1)
    texts = Captions(
        [str(i) for i in range(40)],
        tuple(map(str, range(80))),
        np.repeat(range(40), 2),
        read=lambda id, rng: None,
        content=str.encode,
    )
    similarity = rng.normal(size=(40, 80)).round(1)
    rows = {row["metric"]: row for row in retrieval.rows("test", texts, similarity)}
    six = [rows[f"{d} R@{k}"]["value"] for d in ("i2t", "t2i") for k in (1, 5, 10)]
    assert rows["mean R"]["value"] == pytest.approx(np.mean(six)) and rows["mean R"]["n"] == 40
    for d, n in (("i2t", 40), ("t2i", 80)):
        kept = retrieval.unpacked(rows[f"{d} R@1"]["places"], n)
        assert kept.shape == (n, 3)
        for k in (1, 5, 10):
            assert 100 * recall_at(kept, k).mean() == pytest.approx(rows[f"{d} R@{k}"]["value"])
        assert rows[f"{d} mean rank"]["value"] == pytest.approx(first_rank(kept).mean())
        with pytest.raises(ValueError, match=f"places of {n} queries are kept, expected those of 39"):
            retrieval.unpacked(rows[f"{d} R@1"]["places"], 39)
    with pytest.raises(ValueError, match="cannot be read"):
        retrieval.unpacked("AAAA", 40)


def test_the_bootstrap_draws_images_with_all_their_captions():
    rng = np.random.default_rng(2)
    owner = np.repeat(np.arange(200), 5)
    of_image = rng.random(200) < 0.3
    alike = of_image[owner].astype(float)  # the captions of an image are found together
    draws = retrieval.bootstrap(alike, owner)
    assert draws.shape == (1000,) and draws.mean() == pytest.approx(of_image.mean(), abs=0.01)
    assert draws.std() == pytest.approx(
        of_image.std() / 200**0.5, rel=0.1
    )  # not of 1,000 independent captions
    by_hand, times = [], np.random.default_rng(0).multinomial(200, np.full(200, 1 / 200), size=100)
    for chosen in times:
        by_hand.append(np.average(alike, weights=chosen[owner]))
    assert draws[:100] == pytest.approx(np.array(by_hand))


def test_two_learners_are_compared_on_the_same_images():
    rng = np.random.default_rng(3)
    one = (rng.random(300) < 0.5).astype(float)
    other = np.maximum(one, rng.random(300) < 0.1)
    both = retrieval.bootstrap(np.stack([one, other]), np.arange(300))
    assert both.shape == (2, 1000)
    assert (both[1] - both[0]).std() < 0.6 * both[0].std() and (both[1] >= both[0]).all()
    with pytest.raises(ValueError, match="an image per query"):
        retrieval.bootstrap(one, np.arange(299))


def test_recalls_are_those_of_brute_force():
    """As brute force: an image counts when any of its captions is among the first k."""
    rng = np.random.default_rng(4)
    similarity, owner = rng.normal(size=(50, 250)), np.repeat(np.arange(50), 5)
    found = places(similarity, np.arange(50), owner)
    for k in (1, 5, 10):
        brute = [i in owner[np.argsort(-row)[:k]] for i, row in enumerate(similarity)]
        assert recall_at(found, k).tolist() == brute
    perfect = places((owner[None] == np.arange(50)[:, None]).astype(float), np.arange(50), owner)
    assert recall_at(perfect, 1).tolist() == [1] * 50
