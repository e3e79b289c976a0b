"""MMRL++ and AlignedNorm against numbers of the reference implementation (tests/golden/)."""

from pathlib import Path

import numpy as np
import pytest
import small_clip
import torch
import torch.nn.functional as F

from vlmlab import methods

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = dict(rep_dim=32, proj_rank=8, token_mix=0.7, prompt_weight=0.3, anchor_weight=2.0)


@pytest.fixture(scope="module")
def golden():
    return {n: dict(np.load(GOLDEN / f"{n}.npz")) for n in ("mmrlpp", "alignednorm")}


def reference_tensor(data: dict, kind: str, name: str) -> torch.Tensor:
    """A tensor of the reference under our name; per-block tensors are stacked."""
    learner = "representation_learner"
    if name == "space":
        return torch.from_numpy(data[f"{kind}/{learner}.compound_rep_tokens"])
    if name.startswith("proj_"):
        return torch.from_numpy(data[f"{kind}/image_encoder.{name[-1]}"])
    tower, part = name.split(".")
    root = f"{kind}/{learner}.srra_r2{'v' if tower == 'image_aligner' else 't'}proj"
    if part == "weight":
        return torch.from_numpy(data[f"{root}.weight"])
    return torch.stack([torch.from_numpy(data[f"{root}.srra.{i}.{part}"]) for i in range(7)])


@pytest.fixture
def build(small_vlm, golden):
    def make(name, **config):
        m = methods.build(name, small_vlm, small_clip.CLASSES, small_clip.TEMPLATE, **SIZES | config)
        with torch.no_grad():
            for key, p in m.trainable().items():
                p.copy_(reference_tensor(golden["mmrlpp"], "param", key))
        return m.train()

    return make


def close(a, b, tolerance):
    b = torch.as_tensor(b)
    worst = (a.detach() - b).abs().max() / b.abs().max().clamp(min=1e-12)
    assert worst < tolerance, f"largest difference {worst:.2e} of the largest entry"


def test_every_reference_parameter_is_used(build, golden):
    ours = sum(p.numel() for p in build("mmrlpp").trainable().values())
    assert ours == sum(v.size for k, v in golden["mmrlpp"].items() if k.startswith("param/"))


def test_features_and_logits(build, golden):
    g, m = golden["mmrlpp"], build("mmrlpp").eval()
    with torch.no_grad():
        z, w = m.encode_image(small_clip.images()), m.class_features()
        by_class, by_prompt = m.branch_logits(z, w)
        close(F.normalize(z["cls"], dim=-1), g["image_features"], 1e-5)
        close(w, g["text_features"], 1e-5)
        close(m.frozen_class_features(), g["zs_text"], 1e-5)
        close(F.normalize(m.vlm.encode_image(small_clip.images()), dim=-1), g["zs_image"], 1e-5)
        for ours, key in (
            (by_class, "logits_class"),
            (by_prompt, "logits_prompt"),
            (m.logits(small_clip.images()), "logits_fused"),
            (m.logits(small_clip.images(), rule="decoupled", split="new"), "logits_class"),
        ):
            assert (ours - torch.from_numpy(g[key])).abs().max() < 1e-4


def test_loss_terms(build, golden):
    g, terms = (
        golden["mmrlpp"],
        build("mmrlpp").losses({"image": small_clip.images(), "label": small_clip.LABELS}),
    )
    t = {k: torch.from_numpy(np.atleast_1d(v)) for k, v in g.items()}

    def away(a, b):
        return 2 * (1 - (t[a] * t[b]).sum(-1).mean())

    wanted = {
        "ce_class": 0.7 * F.cross_entropy(t["logits_class"], small_clip.LABELS),
        "ce_prompt": 0.3 * F.cross_entropy(t["logits_prompt"], small_clip.LABELS),
        "anchor_image": away("image_features", "zs_image"),
        "anchor_text": away("text_features", "zs_text"),
    }
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=2e-5), name
    assert sum(terms.values()).item() == pytest.approx(float(g["loss"]), rel=1e-5)


@pytest.mark.parametrize(
    "name,file,config",
    [("mmrlpp", "mmrlpp", {}), ("aligned_norm", "alignednorm", dict(w_proj=0.1, w_token=0.05))],
)
@pytest.mark.parametrize("shortcuts", [True, False])
def test_gradients_and_five_steps(build, golden, name, file, config, shortcuts):
    g, m = golden[file], build(name, **config)
    m.vlm.shortcuts = shortcuts
    try:
        optimiser = torch.optim.AdamW(m.trainable().values(), lr=1e-3, weight_decay=5e-4)
        losses = []
        for step in range(5):
            loss = sum(m.losses({"image": small_clip.images(), "label": small_clip.LABELS}).values())
            optimiser.zero_grad()
            loss.backward()
            if step == 0:
                for key, p in m.trainable().items():
                    close(p.grad, reference_tensor(g, "grad", key), 1e-4)
            optimiser.step()
            losses.append(loss.item())
        assert losses == pytest.approx(g["losses5"].tolist(), rel=1e-4)
        if name == "mmrlpp":
            with torch.no_grad():
                assert (
                    m.eval().logits(small_clip.images()) - torch.from_numpy(g["eval_fused_after5"])
                ).abs().max() < 2e-3
    finally:
        m.vlm.shortcuts = True


def test_norm_terms(build, golden):
    g, m = golden["alignednorm"], build("aligned_norm", w_proj=1.0, w_token=1.0)
    terms = m.losses({"image": small_clip.images(), "label": small_clip.LABELS})
    assert terms["proj"].item() == pytest.approx(float(g["loss_proj"]), rel=1e-5)
    assert terms["token"].item() == pytest.approx(float(g["loss_token"]), rel=1e-5)
    trace = m.image_trace(m.image_prefix(small_clip.images()))
    z = m.read_out(trace[-1])
    close(torch.stack([t.x[:, 0].norm(dim=-1) for t in trace]), g["class_norm_per_layer"], 1e-5)
    prompts = [t.x[:, t.span("prompt")] for t in trace]
    close(torch.stack([p.mean(1).norm(dim=-1) for p in prompts]), g["prompt_mean_norm_per_layer"], 1e-5)
    close(z["cls"], g["z_c"], 1e-5)
    close(z["prompt"], g["z_p"], 1e-5)
    close(z["prompt"].norm(dim=-1) / z["cls"].norm(dim=-1), g["ratio"], 1e-5)


def test_norm_terms_move_only_the_prompt(build):
    m = build("aligned_norm", w_proj=1.0, w_token=0.0)
    prefix = m.image_prefix(small_clip.images())
    z = m.read_out(m.image_trace(prefix)[-1])
    z["cls"].retain_grad()
    z["prompt"].retain_grad()
    m.extra_losses(z, [])["proj"].backward()
    assert z["cls"].grad is None and z["prompt"].grad.abs().max() > 0


def test_zero_weights_are_mmrlpp_to_the_bit(build):
    states = []
    for name, config in (("mmrlpp", {}), ("aligned_norm", dict(w_proj=0.0, w_token=0.0))):
        m = build(name, **config)
        optimiser = torch.optim.AdamW(m.trainable().values(), lr=1e-3)
        for _ in range(3):
            optimiser.zero_grad()
            sum(m.losses({"image": small_clip.images(), "label": small_clip.LABELS}).values()).backward()
            optimiser.step()
        states.append(m.trainable())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
