"""MoCo: its loss by hand, its key encoder at m = 0 and 1, an exact resume inside its stage."""

import math

import pytest
import torch
import torch.nn.functional as F
from forked import killed

import vlmlab
from vlmlab.systems.moco import Moco, info_nce_logits

SMALL = {"image": 16, "joint": 8, "queue": 24}
TRAINING = {"steps": 7, "batch": 8, "save_every": 3}


def made(**config):
    torch.manual_seed(0)
    return Moco({}, Moco.Config(**SMALL | config))


def views(seed=0):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(8, 3, 16, 16, generator=g) for name in ("query", "key")}


@pytest.fixture(scope="module")
def run(one, tmp_path_factory):
    return vlmlab.fit("moco", {}, one, out=tmp_path_factory.mktemp("moco"), **SMALL, **TRAINING)


def test_loss_is_the_cross_entropy_of_the_key_among_the_queue():
    model, batch = made(), views()
    loss = model.losses(batch)["nce"]
    with torch.no_grad():
        q, k = (F.normalize(f(batch[n]), dim=1) for f, n in ((model.query, "query"), (model.key, "key")))
    for_each = []
    for i in range(8):
        positive = math.exp((q[i] @ k[i]).item() / 0.1)
        negative = sum(math.exp((q[i] @ row).item() / 0.1) for row in model.queue.rows)
        for_each.append(-math.log(positive / (positive + negative)))  # no other image of the batch
    assert loss.item() == pytest.approx(sum(for_each) / 8, rel=1e-4)
    beside = model.beside(batch, {})
    assert beside["positive"].item() == pytest.approx((q * k).sum(1).mean().item(), rel=1e-4)
    assert beside["apart"] == 0 and 0 <= beside["accuracy"] <= 1


def test_a_model_that_knows_nothing_has_the_logarithm_of_its_choices():
    same = F.normalize(torch.ones(4, 8), dim=1)
    logits = info_nce_logits(same, same, same[:1].expand(960, 8), 0.1)
    assert F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).item() == pytest.approx(
        math.log(961), 1e-5
    )


@pytest.mark.parametrize("m", [0.0, 0.5, 1.0])
def test_the_key_encoder_is_the_average_that_m_says(m):
    model = made(momentum=m)
    before = model.key.conv.weight.clone()
    (model.losses(views())["nce"]).backward()
    assert all(p.grad is None for p in model.key.parameters())
    with torch.no_grad():
        model.query.conv.weight.sub_(model.query.conv.weight.grad)
    keys = model.keys
    model.after_step(None, 0)
    wanted = m * before + (1 - m) * model.query.conv.weight
    assert torch.allclose(model.key.conv.weight, wanted, atol=1e-7)
    assert torch.equal(model.key.conv.weight, model.query.conv.weight) == (m == 0)
    assert torch.equal(model.key.conv.weight, before) == (m == 1)
    assert torch.equal(model.queue.rows[:8], keys) and model.queue.ages().tolist() == [0] * 8


@pytest.mark.parametrize("kill", [2, 5])
def test_kill_9_inside_the_stage_ends_with_the_same_bytes(run, one, kill, tmp_path):
    def again():
        return vlmlab.fit("moco", {}, one, out=tmp_path, **SMALL, **TRAINING)

    killed(again, kill)
    found = again()
    for name, value in run.model.own().items():
        assert torch.equal(value, found.model.own()[name]), name
    assert (found.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()


def test_what_a_run_keeps_and_logs(run):
    own = run.model.own()
    assert {"queue.rows", "queue.born", "key.conv.weight", "query.conv.weight"} <= set(own)
    assert own["queue.born"].sort().values.tolist() == [5] * 8 + [6] * 8 + [7] * 8
    assert {"nce", "accuracy", "positive", "negative", "apart"} <= set(run.metrics)
    assert not torch.equal(own["key.conv.weight"], own["query.conv.weight"])
    with torch.inference_mode():
        assert run.model.encode_image(torch.randn(2, 3, 16, 16)).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_its_two_views_differ_and_are_the_same_again(one):
    model = made()
    for kind in ("light", "strong"):
        (stage,) = model.stages(one, model.Options(steps=2, batch=4, views=kind), 0)
        first, second = list(stage.feed(0))
        assert first["query"].shape == (4, 3, 16, 16) and not torch.equal(first["query"], first["key"])
        assert torch.equal(next(stage.feed(1))["query"], second["query"])


def test_it_learns(one, tmp_path):
    run = vlmlab.fit("moco", {}, one, out=tmp_path, steps=40, batch=16, lr=0.2, **SMALL | {"momentum": 0.9})
    log = run.metrics  # at first the queue is of random vectors, from which any image differs
    assert log["nce"].iloc[-10:].mean() < log["nce"].iloc[5:15].mean() - 0.1
