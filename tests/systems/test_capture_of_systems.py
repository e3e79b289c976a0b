"""Capture looks inside the systems: every site of every tower, labelled, without changing what they say."""

import functools

import numpy as np
import pytest
import torch

import vlmlab
from vlmlab import registry
from vlmlab.capturing.module_tower import towers_of
from vlmlab.capturing.sites import names

TEXTS = ["a small red circle", "a large blue heart left of a small red circle", "a heart"]
SIZES = {"width": 32, "vocabulary": 40}
SYSTEMS = {
    "albef": {"patch": 16, "image_layers": 2, "queue": 0},
    "blip": {"patch": 16, "image_layers": 2, "queue": 0},
    "transformer": {},
    "moco": {"image": 32, "queue": 8},
    "resnet": {"blocks": 1},
}
TOWERS = [
    *[("albef", kind) for kind in ("image", "text", "fusion")],
    *[("blip", kind) for kind in ("image", "text", "decoder")],
    *[("transformer", kind) for kind in ("text", "decoder")],
    *[("moco", "image"), ("resnet", "image")],
]


@functools.cache
def model_of(name):
    torch.manual_seed(0)
    settings = SYSTEMS[name] | (SIZES if name not in ("moco", "resnet") else {})
    model = registry.build(name, {}, ("a", "b", "c"), **settings)
    model.prepared = {"words": sorted({w for text in TEXTS for w in text.split()})}
    return model.requires_grad_(False)


def data_of(name, kind):
    model = model_of(name)
    images = torch.randn(3, 3, model.image_size, model.image_size)
    if kind == "image":
        return images
    return model.inputs(TEXTS, TEXTS[::-1]) if name == "transformer" else model.inputs(images, TEXTS)


@pytest.mark.parametrize("name", SYSTEMS)
def test_all_towers_are_found(name):
    assert set(towers_of(model_of(name))) == {kind for n, kind in TOWERS if n == name}


@pytest.mark.parametrize(("name", "kind"), TOWERS)
def test_every_site_is_read_and_labelled(name, kind):
    torch.manual_seed(1)
    model, data = model_of(name), data_of(name, kind)
    tower = towers_of(model)[kind]
    sites = names({kind: tower})
    record = vlmlab.capture(model, data, sites, progress=False)
    assert list(record.data_vars) == sites
    assert all(np.isfinite(record[site]).any() for site in sites)
    if name in ("moco", "resnet"):
        return
    probs = record[f"{kind}.attn.probs"]
    total = probs.fillna(0).sum("token")
    assert np.allclose(total, 1, atol=1e-5)
    if kind in ("fusion", "decoder") or (name, kind) == ("blip", "text"):
        assert np.allclose(record[f"{kind}.cross.probs"].sum("token"), 1, atol=1e-5)
    if kind == "decoder":
        first = probs.isel(sample=0, layer=0, head=0).values
        assert (np.triu(np.nan_to_num(first), 1) == 0).all()
    if kind != "image":
        which = TEXTS[::-1] if (name, kind) == ("transformer", "decoder") else TEXTS
        for row, text in zip(record[f"{kind}.resid.post"]["role"].values, which):
            n = len(text.split())
            assert row.tolist()[: n + 2] == ["cls", *["word"] * n, "eos"] and set(row[n + 2 :]) <= {"pad"}


def test_what_is_captured_is_what_the_network_computes():
    model, data = model_of("albef"), data_of("albef", "fusion")
    record = vlmlab.capture(model, data, ["fusion.resid.post[-1]", "fusion.cross.k"], progress=False)
    with torch.no_grad():
        out = model(**data)
    found = record["fusion.resid.post"].isel(layer=-1).values
    real = data["attention_mask"].bool().numpy()
    assert np.allclose(found[real], out.numpy()[real], atol=1e-5)
    assert record["fusion.cross.k"]["role"].values.tolist() == ["cls", *["patch"] * 9]


def test_bert_is_looked_into_as_hugging_faces():
    torch.manual_seed(0)
    model = registry.build("bert", {}, **SIZES)
    model.prepared = {"words": sorted({w for text in TEXTS for w in text.split()})}
    record = vlmlab.capture(
        model.bert, model.one(TEXTS), ["text.attn.probs", "text.resid.post"], progress=False
    )
    assert record["text.resid.post"]["role"].values[2].tolist()[:4] == ["cls", "word", "word", "eos"]
    assert np.allclose(record["text.attn.probs"].fillna(0).sum("token"), 1, atol=1e-5)


def test_flamingo_is_looked_into(tiny, language):
    """Resampler, gated blocks and the language model between them."""
    torch.manual_seed(0)
    sizes = {"latents": 4, "resampler_layers": 1, "heads": 2, "head": 8}
    model = registry.build("flamingo", {"vlm": tiny, "language": language.model}, **sizes)
    model.prepared = language.model.prepared
    images, texts = (
        torch.randn(2, 2, 3, 64, 64),
        ["a heart [IMG] a red circle [IMG] a square", "[IMG] a heart"],
    )
    with torch.no_grad():
        for block in model.gated:
            block.cross_gate.fill_(1.0), block.mlp_gate.fill_(0.5)
        data = model.inputs(images, texts)
        plain = model(**data)
    towers = towers_of(model)
    assert set(towers) == {"resampler", "gated", "text"}
    for kind in ("gated", "text"):
        sites = names({kind: towers[kind]})
        record = vlmlab.capture(model, data, sites, progress=False)
        roles = record[f"{kind}.resid.post"]["role"].values
        assert roles[0].tolist() == ["cls", *["word"] * 7, "eos"] and roles[1].tolist()[:4] == [
            "cls",
            "word",
            "word",
            "eos",
        ]
        if kind == "text":
            entered = record["text.resid.pre"]
    gated = vlmlab.capture(model, data, names({"gated": towers["gated"]}), progress=False)
    assert np.allclose(gated["gated.resid.post"][:, :, :4], entered[:, :, :4], atol=1e-5)
    probs = gated["gated.cross.probs"]
    assert probs["role"].values.tolist() == ["latent"] * 8
    first = probs.isel(sample=0, layer=0).values
    assert (first[:, 3:6, 4:] == 0).all() and (first[:, 6:9, :4] == 0).all() and (first[:, 3:6, :4] > 0).all()
    alone = model.inputs(images[:, 0], texts[1:] * 2)
    one = vlmlab.capture(model, alone, names({"resampler": towers["resampler"]}), progress=False)
    assert one["resampler.cross.probs"]["role"].values.tolist() == ["cls", *["patch"] * 64, *["latent"] * 4]
    with torch.no_grad():
        assert torch.equal(model(**data), plain)


def test_blip_2_and_llava_are_looked_into(tiny, language):
    """The Q-Former, and language models that read images among words."""
    images, models = torch.randn(2, 3, 64, 64), {"vlm": tiny, "language": language.model}
    blip2 = registry.build("blip2", models, width=16, heads=2, layers=2, queries=3)
    llava = registry.build("llava", models)
    blip2.prepared = llava.prepared = language.model.prepared
    texts = ["a red heart", "a heart"]
    towers = towers_of(blip2)
    assert set(towers) == {"qformer", "text"}
    data = blip2.inputs(images, texts)
    inside = tuple(f"{x}.{y}" for x in ("attn", "cross") for y in ("q", "k", "v", "z", "probs"))
    kernel = getattr(type(blip2.qformer), "_supports_sdpa", False)  # older versions do not call torch's
    sites = [site for site in names({"qformer": towers["qformer"]}) if kernel or not site.endswith(inside)]
    record = vlmlab.capture(blip2, data, sites, progress=False)
    assert record["qformer.resid.post"]["role"].values.tolist() == ["latent"] * 3
    if kernel:
        assert record["qformer.cross.probs"]["role"].values.tolist() == ["cls", *["patch"] * 64]
        assert record["qformer.attn.probs"]["role"].values.tolist() == ["latent"] * 3
    text = vlmlab.capture(blip2, data, names({"text": towers["text"]}), progress=False)
    wanted = ["latent"] * 3 + ["cls", "word", "word", "word", "eos"]
    assert text["text.resid.post"]["role"].values[0].tolist() == wanted
    data = llava.inputs(images, texts)
    seen = vlmlab.capture(llava.llava, data, ["text.attn.probs", "text.resid.post"], progress=False)
    roles = seen["text.resid.post"]["role"].values[1].tolist()
    assert roles[:66] == ["sos", *["patch"] * 64, "word"] and roles[-1] == "pad"
    assert np.allclose(seen["text.attn.probs"].fillna(0).sum("token"), 1, atol=1e-5)
