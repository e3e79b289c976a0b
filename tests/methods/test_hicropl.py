"""HiCroPL: the flow between prompts, and what the published code does to its parameters.

tests/golden/hicropl.npz holds prompts after one, two and three forward passes of the published mapping
modules, with 2 tokens, depth 5, cross layer 2, and parameters drawn by name as below.
"""

import itertools
import json

import pytest
import reference
import small_clip
import torch
import torch.nn.functional as F

from vlmlab import methods

SMALL = dict(tokens=2, depth=5, cross_layer=2)
DEAD = ("to_image", "to_text", "text_pools", "image_pools", "text_queries", "image_queries")


def draw(name, shape):
    norm = ".ln_" in name and name.endswith("weight")
    scale = 0.1 if norm or name.endswith("bias") else shape[-1] ** -0.5
    return small_clip.draw(f"hicropl.{name}", tuple(shape), scale, 1.0 if norm else 0.0)


@pytest.fixture
def build(small_vlm):
    def make(mode, **config):
        settings = SMALL | config | dict(mode=mode)
        m = methods.build("hicropl", small_vlm, small_clip.CLASSES, small_clip.TEMPLATE, **settings)
        with torch.no_grad():
            for key, p in m.trainable().items():
                p.copy_(draw(key, p.shape))
        return m

    yield make
    small_vlm.shortcuts = True


@pytest.fixture(scope="module")
def golden():
    return reference.load("hicropl")


def test_prompts_after_each_forward_pass(build, golden):
    m = build("faithful").eval()
    for i in (1, 2, 3):
        m.logits(small_clip.images()[:1])
        reference.close(m.image, golden[f"image{i}"], 1e-5)
        reference.close(m.text, golden[f"text{i}"], 1e-5)


def test_differentiable_maps_once_and_leaves_the_parameters(build, golden):
    m = build("differentiable").eval()
    before = {k: p.detach().clone() for k, p in m.trainable().items()}
    first, second = m.logits(small_clip.images()), m.logits(small_clip.images())
    assert torch.equal(first, second)
    assert all(torch.equal(p, before[k]) for k, p in m.trainable().items())
    reference.close(m.image_prompts(), golden["image1"], 1e-5)
    reference.close(m.text_prompts(), golden["text1"], 1e-5)


def test_both_modes_agree_in_the_first_pass(build):
    with torch.no_grad():
        terms = [
            build(mode).losses({"image": small_clip.images(), "label": small_clip.LABELS})
            for mode in ("faithful", "differentiable")
        ]
    for key in terms[0]:
        assert terms[0][key].item() == pytest.approx(terms[1][key].item(), rel=1e-5), key


def test_faithful_logits_drift_in_evaluation(build):
    m = build("faithful").eval()
    with torch.no_grad():
        passes = [m.logits(small_clip.images()) for _ in range(4)]
    assert all((a - b).abs().max() > 1e-2 for a, b in itertools.pairwise(passes))


def test_dead_gradients(build):
    faithful, differentiable = build("faithful"), build("differentiable")
    for m in (faithful, differentiable):
        sum(m.losses({"image": small_clip.images(), "label": small_clip.LABELS}).values()).backward()
    dead = {k for k, p in faithful.trainable().items() if p.grad is None}
    assert dead == {k for k in faithful.trainable() if k.startswith(DEAD)}
    assert all(p.grad.flatten(1).norm(dim=1).min() > 0 for p in (faithful.text, faithful.image))
    for key, p in differentiable.trainable().items():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0, key


def test_mixed_features_and_terms(build):
    """Section 7 of the method description, written out."""
    m = build("differentiable")
    with torch.no_grad():
        terms = m.losses({"image": small_clip.images(), "label": small_clip.LABELS})
        vlm, images = m.vlm, small_clip.images()
        z0 = F.normalize(vlm.encode_image(images), dim=-1)
        z = F.normalize(F.normalize(m.encode_image(images)["cls"], dim=-1) + z0, dim=-1)
        means = [F.normalize(vlm.encode_text(s), dim=-1).mean(0) for s in m.sentences()]
        f = F.normalize(torch.stack(means), dim=-1)
        w = F.normalize(m.class_features() + f, dim=-1)
        assert (m.logits(images) - 100 * z @ w.T).abs().max() < 1e-4
    wanted = {
        "ce": F.cross_entropy(100 * z @ w.T, small_clip.LABELS),
        "anchor_text": 12 * (1 - (w * f).sum(-1).mean()),
        "anchor_image": 12 * (1 - (z * z0).sum(-1).mean()),
    }
    assert terms.keys() == wanted.keys()
    for key, value in wanted.items():
        assert terms[key].item() == pytest.approx(value.item(), rel=2e-5), key


def test_descriptions_of_a_language_model(build, tmp_path):
    table = {n.replace("_", " "): [f"{n} has fur", f"{n} sleeps"] for n in small_clip.CLASSES}
    path = tmp_path / "pets.json"
    path.write_text(json.dumps(table))
    m = build("faithful", descriptions=str(path))
    assert m.sentences()[4] == ["tabby_cat has fur", "tabby_cat sleeps"]
    with torch.no_grad():
        both = F.normalize(m.vlm.encode_text(m.sentences()[4]), dim=-1)
    reference.close(m.described_class_features()[4], F.normalize(both.mean(0), dim=-1), 1e-5)
    del table["sphynx"]
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="no sentences for 1 class: 'sphynx'"):
        m.sentences()


@pytest.mark.parametrize(
    "config", [dict(mode="exact"), dict(cross_layer=5), dict(cross_layer=0), dict(depth=13)]
)
def test_wrong_settings(small_vlm, config):
    with pytest.raises(ValueError, match=r"faithful or differentiable|blocks 1 to 12"):
        methods.build("hicropl", small_vlm, small_clip.CLASSES, **SMALL | config)
