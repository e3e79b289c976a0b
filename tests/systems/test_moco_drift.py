"""What MoCo's log tells of the drift of keys."""

import pytest
import torch

import vlmlab
from vlmlab.systems.moco import Moco

SMALL = {"image": 16, "joint": 16, "queue": 24}


@pytest.mark.parametrize("m", [0.0, 0.9, 1.0])
def test_drift_is_that_of_the_key_encoder(m):
    torch.manual_seed(0)
    model = Moco({}, Moco.Config(**SMALL, momentum=m))
    views = {name: torch.randn(8, 3, 16, 16) for name in ("query", "key")}
    seen, logged = [], []
    for _ in range(4):
        terms = model.losses(views)
        statistics = {name: value.clone() for name, value in model.key.named_buffers()}
        seen.append(model.drift.keys(model.key))
        logged.append(model.beside(views, terms))
        assert all(torch.equal(value, statistics[name]) for name, value in model.key.named_buffers())
        with torch.no_grad():
            for p in model.query.parameters():
                p.add_(0.1 * torch.randn_like(p))
        model.after_step(None, 0)
    names = [sorted(n for n in one if n.startswith("drift")) for one in logged]
    assert names == [[], ["drift 1"], ["drift 1", "drift 2"], ["drift 1", "drift 2"]]
    wanted = 1 - (seen[3] * seen[1]).sum(1).mean()
    assert logged[3]["drift 2"].item() == pytest.approx(wanted.item(), abs=1e-6)
    assert (logged[3]["drift 2"] > 1e-4) == (m < 1)


def test_it_trains_as_moco_does_and_goes_on_after_a_stop(one, tmp_path, monkeypatch):
    settings = {"steps": 6, "batch": 8, "save_every": 3, **SMALL}
    plain = vlmlab.fit("moco", {}, one, out=tmp_path, **settings, probe=0)
    run = vlmlab.fit("moco", {}, one, out=tmp_path, **settings)
    own = run.model.own()
    same = {n: v for n, v in plain.model.own().items() if not n.startswith("drift.")}
    assert len(same) > 9 and all(torch.equal(value, own[name]) for name, value in same.items())
    count, losses = iter(range(100)), Moco.losses

    def killed(self, batch, stage=None):
        if next(count) == 4:
            raise KeyboardInterrupt
        return losses(self, batch, stage)

    monkeypatch.setattr(Moco, "losses", killed)
    with pytest.raises(KeyboardInterrupt):
        vlmlab.fit("moco", {}, one, out=tmp_path / "again", **settings)
    monkeypatch.undo()
    again = vlmlab.fit("moco", {}, one, out=tmp_path / "again", **settings)
    assert again.metrics.equals(run.metrics) and "drift 4" in run.metrics


def test_what_answers_nothing_is_told_by_its_training(one, tmp_path):
    run = vlmlab.fit("moco", {}, one, out=tmp_path, steps=24, batch=8, **SMALL)
    found = vlmlab.evaluate(run, one)
    assert found.equals(run.results) and set(found["split"]) == {"training"} and set(found["n"]) == {20}
    value = found.set_index("metric")["value"]
    log = run.metrics.tail(20)
    assert {"nce", "accuracy", "loss"} <= set(value.index) and not {"lr", "step"} & set(value.index)
    assert value["nce"] == pytest.approx(log["nce"].mean())
