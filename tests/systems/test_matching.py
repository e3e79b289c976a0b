"""Contrast, hard negatives and re-ranking, against other code and by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from scipy.stats import chisquare

from vlmlab.systems.matching import contrast, equal, hard_negatives, reranked, to_match


def unit(n, seed):
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


EMPTY = torch.zeros(0, 8), torch.zeros(0, 8)


def test_without_queue_and_teacher_it_is_the_loss_of_clip():
    image, text = unit(6, 0), unit(6, 1)
    found = contrast((image, text), (image, text), EMPTY, 0.07, 0.0)
    assert found.item() == pytest.approx(ClipLoss()(image, text, torch.tensor(1 / 0.07)).item(), rel=1e-5)


def test_soft_targets_and_queues_as_in_the_paper():
    fast, slow, queue = (unit(4, 0), unit(4, 1)), (unit(4, 2), unit(4, 3)), (unit(5, 4), unit(5, 5))
    found = contrast(fast, slow, queue, 0.5, 0.4)
    total = 0.0
    for a, b in ((0, 1), (1, 0)):
        everything = torch.cat([slow[b], queue[b]])
        for i in range(4):
            target = 0.4 * (slow[a][i] @ everything.T / 0.5).softmax(0)
            target[i] += 0.6
            assert target.sum().item() == pytest.approx(1, rel=1e-5)
            total -= (target * (fast[a][i] @ everything.T / 0.5).log_softmax(0)).sum().item()
    assert found.item() == pytest.approx(total / 8, rel=1e-5)


def test_equal_texts():
    wanted = [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert equal(["a", "b", "a"]).int().tolist() == wanted


def test_hard_negatives_follow_the_softmax_and_are_never_the_pair_or_its_double():
    logits = torch.tensor([[5.0, 0.0, 1.0, 9.0], [0.0, 1.0, 2.0, 3.0]]).repeat(4000, 1)
    same = torch.tensor([[True, False, False, True], [False, True, False, False]]).repeat(4000, 1)
    torch.manual_seed(0)
    found = hard_negatives(logits, same)
    for row, legal in ((0, [1, 2]), (1, [0, 2, 3])):
        counts = torch.bincount(found[row::2], minlength=4)
        wanted = logits[row, legal].double().softmax(0).numpy() * 4000
        assert counts[legal].sum() == 4000
        assert chisquare(counts[legal].numpy(), wanted).pvalue > 1e-3
    assert hard_negatives(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool)).tolist() == [-1, -1]
    sharp = torch.tensor([[0.0, -500.0, 0.0]])  # what float32 cannot tell from 0 is still drawn
    assert hard_negatives(sharp, torch.tensor([[True, False, True]])).tolist() == [1]


def test_pairs_to_match():
    torch.manual_seed(0)
    same = equal(["a", "b", "a", "c"])
    images, texts, labels = to_match(torch.randn(4, 4), same)
    assert labels.tolist() == [1] * 4 + [0] * 8
    assert images[:4].tolist() == texts[:4].tolist() == [0, 1, 2, 3]
    assert images[4:8].tolist() == [0, 1, 2, 3] == texts[8:].tolist()
    assert not same[images[4:], texts[4:]].any()
    only_true = to_match(torch.randn(2, 2), equal(["a", "a"]))
    assert only_true[0].tolist() == [0, 1] == only_true[1].tolist() and only_true[2].tolist() == [1, 1]


def test_the_best_are_ordered_anew_and_stay_the_best():
    similarity = np.array([[0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.4, 0.3]])
    asked = []

    def match(queries, items):
        asked.extend(zip(queries.tolist(), items.tolist()))
        return -similarity[queries, items]

    found = reranked(similarity, match, 2)
    assert sorted(asked) == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert np.argsort(-found, axis=1).tolist() == [[1, 0, 3, 2], [3, 2, 1, 0]]
    assert np.argsort(-reranked(similarity, match, 9), axis=1).tolist() == [[2, 3, 1, 0], [0, 1, 3, 2]]
