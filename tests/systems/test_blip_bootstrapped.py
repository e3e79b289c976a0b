"""A new BLIP on what a captioner wrote and a filter kept."""

import dataclasses

import torch

import vlmlab
from vlmlab.systems import capfilt
from vlmlab.tasks import shapes

SMALL = {"width": 16, "patch": 16, "image_layers": 1, "text_layers": 3, "joint": 16}
SMALL |= {"vocabulary": 30, "context": 16, "queue": 16}


def test_it_learns_from_what_was_kept_alone(pairs, tmp_path, monkeypatch):
    noisy = dataclasses.replace(pairs, train=shapes.scenes(48, 5, "pairs", "train", noise=0.3))
    start = vlmlab.fit("blip", {}, noisy, out=tmp_path, steps=8, batch=16, lr=3e-3, **SMALL)
    models = {
        part: vlmlab.fit("blip_tuned", {"start": start}, pairs, out=tmp_path, part=part, steps=4, batch=8)
        for part in ("filter", "captioner")  # not in the order in which they are needed
    }
    asked, made = [], capfilt.bootstrapped

    def half(captioner, judge, found, seed, p):
        asked.append((captioner.config.part, judge.config.part, len(found), p))
        monkeypatch.setattr(judge, "match", lambda images, texts: torch.arange(len(texts)) % 2 - 0.5)
        return made(captioner, judge, found, seed, p)

    monkeypatch.setattr(capfilt, "bootstrapped", half)
    settings = {"out": tmp_path, "steps": 2, "batch": 8, "p": 0.8}
    run = vlmlab.fit("blip_bootstrapped", models, noisy, **settings, **SMALL)
    assert asked == [("captioner", "filter", 48, 0.8)]
    model = run.model
    assert model.words.all == start.model.words.all
    kept, _ = made(models["captioner"].model, models["filter"].model, noisy.train, noisy.seed, 0.8)
    (stage,) = model.stages(noisy, model.Options(steps=6, batch=8, p=0.8), noisy.seed)
    texts = {text for batch in stage.feed(0) for text in batch["text"]}
    assert texts <= {*kept.texts} and len(kept.texts) < 2 * 48
    assert not any(
        torch.equal(value, start.model.own()[name]) for name, value in model.own().items() if "attn" in name
    )
    assert {"itc", "itm", "lm"} <= set(run.metrics)
