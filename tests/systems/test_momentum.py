"""Queues and momentum encoders, by hand."""

import pytest
import torch
from torch import nn

from vlmlab.systems.momentum import Queue, distance, follow, frozen_copy


def test_the_oldest_leave_first_also_around_the_end():
    queue = Queue(5, 1)
    assert torch.allclose(queue.rows.abs(), torch.ones(5, 1)) and queue.ages().tolist() == []
    queue.push(torch.tensor([[1.0], [2.0], [3.0]]))
    assert sorted(queue.ages().tolist()) == [0, 0, 0]
    queue.push(torch.tensor([[4.0], [5.0], [6.0]]))
    assert queue.rows[:, 0].tolist() == [6, 2, 3, 4, 5] and queue.ages().tolist() == [0, 1, 1, 0, 0]
    queue.push(torch.tensor([[7.0]]))
    assert queue.rows[:, 0].tolist() == [6, 7, 3, 4, 5] and queue.ages().tolist() == [1, 0, 2, 1, 1]
    queue.push(torch.arange(10.0, 17)[:, None])  # more than it holds: the last of them
    assert sorted(queue.rows[:, 0].tolist()) == [12, 13, 14, 15, 16] and queue.ages().tolist() == [0] * 5


def test_a_queue_of_size_0_holds_nothing():
    queue = Queue(0, 3)
    queue.push(torch.randn(4, 3))
    assert queue.rows.shape == (0, 3) and len(queue) == 0 and queue.ages().tolist() == []


def test_a_follower_is_a_moving_average_of_parameters_alone():
    torch.manual_seed(0)
    fast = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    slow = frozen_copy(fast)
    assert not any(p.requires_grad for p in slow.parameters()) and distance(slow, fast) == 0
    start = slow[0].weight.clone()
    with torch.no_grad():
        fast[0].weight.add_(1)
    fast(torch.randn(8, 3))  # moves its batch statistics
    follow(slow, fast, 1.0)
    assert torch.equal(slow[0].weight, start)
    follow(slow, fast, 0.9)
    assert torch.allclose(slow[0].weight, 0.9 * start + 0.1 * fast[0].weight)
    assert distance(slow, fast).item() == pytest.approx(0.9 * 3, rel=1e-5)  # nine weights, each 0.9 apart
    follow(slow, fast, 0.0)
    assert torch.equal(slow[0].weight, fast[0].weight)
    assert torch.equal(slow[1].running_mean, torch.zeros(3)) and fast[1].running_mean.abs().sum() > 0
