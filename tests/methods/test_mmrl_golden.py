"""MMRL against numbers of the reference implementation (tests/golden/mmrl.npz)."""

import pytest
import reference
import small_clip
import torch
import torch.nn.functional as F
from reference import close

LEARNER = "representation_learner.compound_rep_tokens"
NAMES = {"space": LEARNER, "proj_rep": "image_encoder.proj_rep"}
for tower, side in (("image", "v"), ("text", "t")):
    for part in ("weight", "bias"):
        NAMES[f"{tower}_aligner.{part}"] = [f"{LEARNER}_r2{side}proj.{i}.{part}" for i in range(7)]


@pytest.fixture(scope="module")
def golden():
    return reference.load("mmrl")


@pytest.fixture
def mmrl(small_vlm, golden):
    tensors = reference.gather(golden, "param", NAMES)
    yield reference.build("mmrl", small_vlm, tensors, rep_dim=32, anchor_weight=2.0)
    small_vlm.shortcuts = True


def test_features_and_logits(mmrl, golden):
    with torch.no_grad():
        z, w = mmrl.eval().encode_image(small_clip.images()), mmrl.class_features()
        by_class, by_prompt = mmrl.branch_logits(z, w)
        close(F.normalize(z["cls"], dim=-1), golden["image_features"], 1e-5)
        close(w, golden["text_features"], 1e-5)
        for ours, key in (
            (by_class, "logits_class"),
            (by_prompt, "logits_prompt"),
            (mmrl.logits(small_clip.images()), "logits_fused"),
            (mmrl.logits(small_clip.images(), rule="decoupled", split="base"), "logits_fused"),
            (mmrl.logits(small_clip.images(), rule="decoupled", split="new"), "logits_class"),
        ):
            assert (ours - golden[key]).abs().max() < 1e-4


def test_loss_terms(mmrl, golden):
    terms, g = mmrl.losses({"image": small_clip.images(), "label": small_clip.LABELS}), golden

    def away(a, b):
        return 2 * (1 - (g[a] * g[b]).sum(-1).mean())

    wanted = {
        "ce_class": 0.7 * F.cross_entropy(g["logits_class"], small_clip.LABELS),
        "ce_prompt": 0.3 * F.cross_entropy(g["logits_prompt"], small_clip.LABELS),
        "anchor_image": away("image_features", "zs_image"),
        "anchor_text": away("text_features", "zs_text"),
    }
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=2e-5), name
    assert sum(terms.values()).item() == pytest.approx(golden["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_gradients_and_five_steps(mmrl, golden, shortcuts):
    mmrl.vlm.shortcuts = shortcuts
    optimiser = torch.optim.AdamW(mmrl.trainable().values(), lr=1e-3, weight_decay=5e-4)
    losses = reference.five_steps(mmrl, optimiser, reference.gather(golden, "grad", NAMES))
    assert losses == pytest.approx(golden["losses5"].tolist(), rel=1e-4)
    with torch.no_grad():
        fused = mmrl.eval().logits(small_clip.images())
        by_class = mmrl.logits(small_clip.images(), rule="decoupled", split="new")
    assert (fused - golden["eval_fused_after5"]).abs().max() < 2e-3
    assert (by_class - golden["eval_class_after5"]).abs().max() < 2e-3


def test_mmrlpp_inserts_the_same_tokens_when_nothing_is_mixed(mmrl, small_vlm):
    """With token_mix = 1 MMRL++ differs from MMRL only in how the tokens come about."""
    from vlmlab import methods

    sizes = dict(rep_dim=32, token_mix=1.0)
    pp = methods.build("mmrlpp", small_vlm, small_clip.CLASSES, small_clip.TEMPLATE, **sizes)
    with torch.no_grad():
        pp.space.copy_(mmrl.space)
        for ours, theirs in ((pp.image_aligner, mmrl.image_aligner), (pp.text_aligner, mmrl.text_aligner)):
            theirs.weight.copy_(theirs.weight[:1].expand_as(theirs.weight))  # one shared map
            ours.weight.copy_(theirs.weight[0])
            ours.bias.copy_(theirs.bias)
        mmrl.proj_rep.copy_(small_vlm.clip.visual.proj)
        close(pp.logits(small_clip.images()), mmrl.logits(small_clip.images()), 1e-5)
