"""What a step, a saved state and the bar of the loop are, number by number, on three parameters."""

import contextlib
import functools
import itertools
import json
import random
import types

import numpy as np
import pytest
import torch
from torch import nn

from vlmlab.learner import Group, Learner, Stage
from vlmlab.train import loop
from vlmlab.train.loop import Loop, Saver, check_terms, seed_all
from vlmlab.train.run_folder import RunFolder


class Three(Learner):
    """Pulls a and b to zero, b in even steps alone; c is in no group."""

    models_needed = ()

    def __init__(self, pull=1.0):
        super().__init__({}, None)
        self.a, self.b, self.c = (nn.Parameter(torch.full((3,), 2.0)) for _ in range(3))
        self.pull, self.seeds = pull, []

    def enter(self, stage):
        self.seeds.append(torch.initial_seed())

    def losses(self, batch, stage=None):
        self.seeds.append(torch.initial_seed())
        self.resting = not self.c.requires_grad
        terms = {"a": self.pull * self.a.square().sum()}
        return terms | ({"b": self.b.square().sum()} if batch["step"] % 2 == 0 else {"b": 0 * self.a.sum()})


def feed(first):
    return ({"step": step} for step in itertools.count(first))


def stage(name="x", steps=5, **more):
    given = {"groups": (Group("[ab]", lr=0.1),), "optimiser": "sgd", "save": 100}
    return Stage(name, steps, feed, **given | more)


def run(tmp_path, *stages, learner=None, seed=3):
    tmp_path.mkdir(exist_ok=True)
    made = Loop(learner or Three(), list(stages), seed, RunFolder(tmp_path), "what is trained")
    made.run()
    return made


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


# seeds


def seed_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def test_one_number_seeds_everything_as_it_is_and_several_together():
    for numbers, seed in (((5,), 5), ((5, 0), seed_of(5, 0)), ((5, 1, 2), seed_of(5, 1, 2))):
        seed_all(*numbers)
        found = random.random(), np.random.random(), torch.rand(1).item()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        assert found == (random.random(), np.random.random(), torch.rand(1).item())


def test_entering_a_stage_and_every_step_have_seeds_of_their_own(tmp_path):
    made = run(tmp_path, stage(steps=2), stage("y", steps=1))
    entered = 2**32 - 1
    wanted = [(3, 0, entered), (3, 0, 0), (3, 0, 1), (3, 1, entered), (3, 1, 0)]
    assert made.learner.seeds == [seed_of(*numbers) for numbers in wanted]


# parameters


def test_a_step_moves_what_got_a_gradient_and_nothing_else(tmp_path):
    """Momentum and decay move nothing that a step did not read; what is in no group rests, and wakes at the end."""
    learner, seen = Three(), []
    learner.after_step = lambda *_: seen.append((learner.a[0].item(), learner.b[0].item()))
    given = {
        "groups": (Group("a", lr=0.1, weight_decay=0.5), Group("b", lr=0.2)),
        "options": {"momentum": 0.5},
    }
    run(tmp_path, stage(steps=3, rate=lambda step, lr: lr / (step + 1), **given), learner=learner)
    a, b, wanted, pushes = 2.0, 2.0, [], [0.0, 0.0]
    for step in range(3):
        pushes[0] = 0.5 * pushes[0] + 2 * a + 0.5 * a if step else 2 * a + 0.5 * a
        a -= 0.1 / (step + 1) * pushes[0]
        if step % 2 == 0:
            pushes[1] = 0.5 * pushes[1] + 2 * b if step else 2 * b
            b -= 0.2 / (step + 1) * pushes[1]
        wanted.append((a, b))
    assert seen == [pytest.approx(w, rel=1e-5) for w in wanted]
    assert learner.resting and learner.c.tolist() == [2.0] * 3
    assert all(p.requires_grad for p in (learner.a, learner.b, learner.c))
    assert [row["lr"] for row in rows(tmp_path)] == pytest.approx([0.1, 0.05, 0.1 / 3])


def test_optimisers_have_their_names_and_what_they_know_is_saved(tmp_path):
    adam, parts = {"step", "exp_avg", "exp_avg_sq"}, {"a", "b"}
    for name, kind, known in (
        ("adamw", torch.optim.AdamW, adam),
        ("adam", torch.optim.Adam, adam),
        ("sgd", torch.optim.SGD, {"momentum_buffer"}),
    ):
        options = {"momentum": 0.9} if name == "sgd" else {}
        made = run(tmp_path / name, stage(steps=1, optimiser=name, options=options))
        assert type(made.optimiser) is kind
        state = made.folder.read_state("cpu")
        assert state.optimiser.keys() == {f"{part}|{entry}" for part in parts for entry in known}
        assert all(torch.equal(x, made.learner.own()[part]) for part, x in state.own.items())


@pytest.mark.parametrize(("clip", "length"), [(None, 0.4 * 3**0.5), (0.5, 0.05), (100.0, 0.4 * 3**0.5)])
def test_the_gradient_is_no_longer_than_its_limit(tmp_path, clip, length):
    made = run(tmp_path, stage(steps=2, clip=clip, groups=(Group("a", lr=0.1),), rate=lambda s, lr: lr * s))
    assert (made.learner.a.detach() - 2).norm().item() == pytest.approx(length, rel=1e-4)


SCALED = {
    ("amp_fp16", "cuda"): True,
    ("amp_bf16", "cuda"): False,
    ("fp32", "cuda"): False,
    ("amp_fp16", "cpu"): False,
    ("fp32", "cpu"): False,
}


@pytest.mark.parametrize("where", SCALED)
def test_gradients_are_scaled_in_half_precision_on_a_gpu_alone(tmp_path, monkeypatch, where):
    asked = []
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: asked.append((kind, enabled)))
    learner = types.SimpleNamespace(precision=where[0], device=torch.device(where[1]))
    Loop(learner, [], 1, RunFolder(tmp_path))
    assert asked == [(where[1], SCALED[where])]


def test_scaled_gradients_give_the_same_numbers_and_their_scale_is_kept(tmp_path, monkeypatch):
    """Scales are powers of two; the limit of the gradient's length holds for what is not scaled."""
    parts = (stage(steps=4, save=3, clip=0.5), stage("y", steps=3, groups=(Group("a", lr=0.3),)))
    plain = run(tmp_path / "plain", *parts)
    scaler = functools.partial(torch.amp.GradScaler, init_scale=1024.0, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: scaler(kind, enabled=True))
    scaled = run(tmp_path / "scaled", *parts)
    for x, y in zip(plain.learner.own().values(), scaled.learner.own().values()):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=0)
    assert scaled.scaler.get_scale() == 2.0**13  # doubled after every second of seven steps
    again = Loop(Three(), list(parts), 3, RunFolder(tmp_path / "scaled"))
    assert again.resume() and again.scaler.state_dict() == scaled.scaler.state_dict()


# what is logged, saved and shown


def test_states_are_saved_every_so_often_and_at_the_end_of_a_stage(tmp_path, monkeypatch):
    saved, write, ticks = [], RunFolder.write_state, itertools.count(100)
    monkeypatch.setattr(RunFolder, "write_state", lambda self, s: (saved.append(s.position), write(self, s)))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: 0.123456 * next(ticks))
    made = run(tmp_path, stage(steps=5, save=2), stage("y", steps=7, save=3), stage("z", steps=2, save=2))
    places = [(p["stage"], p["step"], p["done"]) for p in saved]
    assert places == [*((0, s, s) for s in (2, 4, 5)), *((1, s, 5 + s) for s in (3, 6, 7)), (2, 2, 14)]
    assert made.seconds == [0.123] * 7 and saved[-1]["seconds"] == made.seconds
    assert [(row["step"], row["stage"]) for row in rows(tmp_path)] == [*zip(range(14), "xxxxxyyyyyyyzz")]


def test_epochs_are_logged_where_there_are_any(tmp_path):
    run(tmp_path, stage(steps=5, epoch=2), stage("y", steps=1))
    assert [row.get("epoch") for row in rows(tmp_path)] == [0, 0, 1, 1, 2, None]
    assert [*rows(tmp_path)[0]] == ["step", "stage", "epoch", "lr", "a", "b", "loss"]


@pytest.fixture
def bars(monkeypatch):
    """What the loop asks of its bar."""

    class Bar(contextlib.nullcontext):
        def __init__(self, **asked):
            super().__init__()
            self.asked, self.said, self.steps = asked, [], 0
            made.append(self)

        def update(self):
            self.steps += 1

        def set_postfix(self, words, refresh=True):
            self.said.append((self.steps, words, refresh))

    made = []
    monkeypatch.setattr(loop.progress, "bar", Bar)
    return made


def test_the_bar_counts_all_steps_and_says_loss_and_rate(tmp_path, bars):
    parts = stage(steps=3, save=2), stage("y", steps=45)
    run(tmp_path, *parts)
    (bar,) = bars
    asked = {"total": 48, "initial": 0, "desc": "what is trained", "unit": "step", "shown": True}
    assert bar.asked == asked and bar.steps == 48
    assert [step for step, _, _ in bar.said] == [2, 3, 23, 43, 48]  # at a saved state, and after 20 steps
    last = rows(tmp_path)[-1]
    assert bar.said[-1][1] == {"loss": f"{last['loss']:.3f}", "lr": "1.0e-01"}
    assert not any(redrawn for _, _, redrawn in bar.said)  # the bar decides when


def test_the_bar_of_what_goes_on_starts_where_it_was(tmp_path, bars):
    parts = [stage(steps=4, save=3), stage("y", steps=7, save=3)]
    run(tmp_path, *parts)
    again = Loop(Three(), [*parts, stage("z", steps=2)], 3, RunFolder(tmp_path))
    assert again.resume()
    again.run()
    assert bars[1].asked["initial"] == 11 and bars[1].asked["total"] == 13 and bars[1].steps == 2


@pytest.mark.parametrize(
    ("steps", "rank", "shown"), [(1, 0, True), (0, 0, False), (1, 1, False), (0, 1, False)]
)
def test_one_process_shows_a_bar_where_there_are_steps(tmp_path, bars, monkeypatch, steps, rank, shown):
    monkeypatch.setattr(loop.processes, "rank", lambda: rank)
    run(tmp_path, *[stage(steps=1)] * steps)
    assert bars[0].asked["shown"] is shown
    assert rank == 0 or not [*tmp_path.iterdir()]  # another process writes
    assert (tmp_path / "state.safetensors").exists() == shown


# what goes wrong


def test_terms_that_are_finite_and_their_sum_is_not(tmp_path):
    learner = Three(pull=2e37)
    with torch.no_grad():
        learner.b.fill_(9e18)
    with pytest.raises(
        FloatingPointError, match=r"the loss term sum is inf at step 0 .*lower lr or check the im"
    ):
        run(tmp_path, stage(steps=1), learner=learner)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({}, "it gave {}"),
        (None, "it gave None"),
        ("x" * 200, f"it gave '{'x' * 79}"),
        ({"a": torch.ones(2, 3)}, r"it gave {'a': torch.Size\(\[2, 3\]\)}"),
        ({"a": torch.ones(()), "b": 0.5}, r"it gave {'a': torch.Size\(\[\]\), 'b': 0.5}"),
    ],
)
def test_losses_that_are_no_named_numbers(terms, said):
    with pytest.raises(ValueError, match=f"losses must give {{name: tensor of one number}}; {said}$"):
        check_terms(Three(), terms)


def stopped(tmp_path, at, *stages):
    """How far it says it is when it is stopped before a step."""

    class Stopped(Three):
        left = at

        def losses(self, batch, stage=None):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().losses(batch, stage)

    made = Loop(Stopped(), list(stages), 3, RunFolder(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        made.run()
    return made.stopped(), len(rows(tmp_path)) if (tmp_path / "metrics.jsonl").exists() else 0


@pytest.mark.parametrize(
    ("at", "stages", "said", "logged"),
    [
        (0, [stage()], "0 of 5 steps", 0),
        (3, [stage()], "0 of 5 steps", 3),
        (3, [stage(save=2)], "2 of 5 steps", 3),
        (0, [stage(), stage("y")], "stage 1 of 2, 0 of 5 steps", 0),
        (6, [stage(), stage("y", save=2)], "stage 1 of 2, 5 of 5 steps", 6),
        (8, [stage(), stage("y", save=2)], "stage 2 of 2, 2 of 5 steps", 8),
        (1, [stage(epoch=2, save=2)], "0 of 3 epochs", 1),
        (4, [stage(epoch=2, save=2)], "2 of 3 epochs", 4),
        (8, [stage(), stage("y", epoch=3, save=3)], "stage 2 of 2, 1 of 2 epochs", 8),
    ],
)
def test_how_far_it_is_when_it_is_stopped(tmp_path, at, stages, said, logged):
    assert stopped(tmp_path, at, *stages) == (said, logged)


def test_nothing_to_step_is_no_steps(tmp_path):
    assert Loop(Three(), [], 3, RunFolder(tmp_path)).progress() == "0 steps"


def test_what_saves_ends_with_the_training():
    saver, done = Saver(), []
    for number in range(3):
        saver.submit(lambda number=number: done.append(number))
    saver.close()
    assert done == [0, 1, 2]
    with pytest.raises(RuntimeError, match="after shutdown"):
        saver.submit(print)
