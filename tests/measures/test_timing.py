"""Calls that are compared take turns, a slow one is found slow in every round; protocols by what they record."""

import time

import numpy as np
import pytest
import torch
from torch import nn

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


def test_latency_follows_its_protocol():
    calls = []

    def model(x):
        assert torch.is_inference_mode_enabled()
        calls.append(1)
        return x @ x

    x = torch.ones(8, 8, dtype=torch.float64)
    found = measures.latency(model, x, warmup=4, repeats=7)
    assert len(calls) == 11
    assert found["quantile"].values.tolist() == [0.1, 0.25, 0.5, 0.75, 0.9]
    assert (np.diff(found) >= 0).all() and float(found[0]) > 0
    about = found.attrs
    assert (
        about["batch"],
        about["dtype"],
        about["threads"],
        about["warmup"],
        about["repeats"],
        about["units"],
    ) == (8, "float64", 1, 4, 7, "ms")
    median = float(found.sel(quantile=0.5))
    assert about["device"] and about["samples_per_second"] == pytest.approx(8e3 / median)


def test_peak_memory_is_what_is_held_at_once():
    x = torch.ones(2**18)  # 1 MiB

    def one_after_the_other(x):
        for _ in range(5):
            y = x + 1
            del y

    def together(x):
        return [x + i for i in range(5)]

    assert float(measures.peak_memory(one_after_the_other, x)) == pytest.approx(1, abs=0.1)
    found = measures.peak_memory(together, x)
    assert float(found) == pytest.approx(5, abs=0.1) and found.attrs["units"] == "MiB"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: measures.latency(nn.Linear(2, 2), torch.ones(1, 2)),
            "Linear is in training mode; call eval",
        ),
        (lambda: measures.peak_memory(nn.Linear(2, 2).train().forward, torch.ones(1, 2)), "training mode"),
        (lambda: measures.latency(lambda: 0), "give the input tensors after the function"),
        (lambda: measures.latency(torch.exp, torch.ones(2), repeats=0), "repeats=0: at least 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
