"""Calls that are compared take turns; a slow one is found slow in every round."""

import time

import pytest
import torch

from vlmlab import load, measures, methods


def test_calls_take_turns_and_begin_one_further_each_round():
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "abc"}
    found = measures.interleaved(calls, rounds=3, warmup=1)
    assert "".join(seen) == "abc" + "bca" + "cab" + "abc"
    assert found.dims == ("round", "call") and found["call"].values.tolist() == ["a", "b", "c"]
    assert found["round"].values.tolist() == [1, 2, 3] and found.attrs["warmup"] == 1


def test_each_time_belongs_to_its_call(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def work(seconds):
        clock[0] += seconds

    calls = {"long": lambda: work(0.5), "short": lambda: work(0.002)}
    found = measures.interleaved(calls, rounds=3, warmup=0)
    assert found.sel(call="long").values == pytest.approx([500] * 3)
    assert found.sel(call="short").values == pytest.approx([2] * 3)


@pytest.mark.parametrize("options", [{"calls": {}}, {"rounds": 0}, {"warmup": -1}])
def test_nothing_to_time_is_named(options):
    with pytest.raises(ValueError, match="at least 1, 1 and 0"):
        measures.interleaved(**{"calls": {"a": print}} | options)


def test_a_training_step_moves_what_the_method_trains_and_nothing_else():
    method = methods.build("coop", load("tiny"), ["cat", "dog"], "a {}.", tokens=2).train()
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    batch = {"image": torch.zeros(2, 3, 64, 64), "label": torch.tensor([0, 1])}
    step = measures.training_step(method, batch, lr=0.1)
    step()
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(method.trainable()) and moved
