"""LaFTer against its definition written out again (published_lafter.py), its facts, and what it refuses."""

import json

import published_lafter as published
import pytest
import small_clip
import torch
import torch.nn.functional as F

import vlmlab
from vlmlab import methods, registry
from vlmlab.learner import Stage, grouped
from vlmlab.methods.lafter import TEXTS, LaFTer

TEXT_STEP = Stage(TEXTS, 1)
SENTENCES = {n.replace("_", " "): [f"a {n} with fur", f"the {n} sleeps"] for n in small_clip.CLASSES}


@pytest.fixture
def build(small_vlm):
    def make(name="lafter", **config):
        torch.manual_seed(3)
        m = methods.build(name, small_vlm, small_clip.CLASSES, small_clip.TEMPLATE, **config)
        with torch.no_grad():
            for p in m.trainable().values():  # norms that are not the frozen ones
                p.add_(0.05 * torch.randn(p.shape))
        return m.train()

    return make


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "pets.json"
    path.write_text(json.dumps(SENTENCES))
    return path


def tensors(vlm):
    """By the names of the checkpoint."""
    return {k: v.detach() for k, v in vlm.clip.state_dict().items()}


def two_views(**more):
    views = {"strong": small_clip.images()[:4], "weak": small_clip.images()[4:]}
    return views | {"label": small_clip.LABELS[:4]} | more


def test_features_and_logits_are_those_of_the_definition(build):
    m = build(tokens=7)
    with torch.no_grad():
        z = published.lafter(tensors(m.vlm), small_clip.images(), m.prompt)
        found = m.encode_image(small_clip.images())["cls"]
        assert (found - z).abs().max() < 2e-6 * z.abs().max()
        assert (m.logits(small_clip.images()) - z @ m.adapter.T).abs().max() < 1e-5
    frozen = published.lafter(tensors(m.vlm.origin), small_clip.images(), m.prompt)
    assert (found - frozen).abs().max() > 1e-2  # the norms that train are read


def test_gradients_are_those_of_the_definition(build):
    m = build(tokens=3, labels="true")
    s = {k: v.clone() for k, v in m.vlm.clip.state_dict().items()}
    s |= {
        n: p.detach().clone().requires_grad_() for n, p in m.vlm.clip.visual.named_parameters(prefix="visual")
    }
    prompt, head = (p.detach().clone().requires_grad_() for p in (m.prompt, m.adapter))
    batch = two_views()
    log = (published.lafter(s, batch["strong"], prompt) @ head.T).log_softmax(-1)
    picked = log[range(4), batch["label"]]
    loss = -(0.9 * picked + 0.1 * log.mean(-1)).mean()  # smoothing gives every class a share of 0.1
    terms = m.losses(batch, Stage("images", 1))
    assert terms["ce"].item() == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    terms["ce"].backward()
    wanted = {f"vlm.clip.{k}": v.grad for k, v in s.items()} | {"prompt": prompt.grad, "adapter": head.grad}
    for name, p in m.trainable().items():
        assert (p.grad - wanted[name]).abs().max() <= 2e-5 * wanted[name].abs().max(), name


def test_the_first_stage_sees_unit_features_with_noise_that_is_not_normalised(build, texts):
    m = build(descriptions=texts)
    with torch.no_grad():
        rows = [
            [*SENTENCES[n.replace("_", " ")], small_clip.TEMPLATE.format(n.replace("_", " "))]
            for n in m.known
        ]
        x = F.normalize(torch.cat([m.vlm.origin.encode_text(r) for r in rows]), dim=-1)
    y = torch.arange(6).repeat_interleave(3)
    torch.manual_seed(5)
    terms = m.losses({}, TEXT_STEP)
    torch.manual_seed(5)
    noisy = x + 0.1 * torch.randn_like(x)
    assert noisy.norm(dim=-1).mean() > 1.2  # 0.8 of noise beside 1 in 64 dimensions
    log = (noisy @ m.adapter.T).log_softmax(-1)
    wanted = -(0.9 * log[range(18), y] + 0.1 * log.mean(-1)).mean()
    assert list(terms) == ["ce_text"] and terms["ce_text"].item() == pytest.approx(wanted.item(), rel=1e-5)
    terms["ce_text"].backward()
    assert {n for n, p in m.named_parameters() if p.grad is not None} == {"adapter"}


def test_the_teacher_reads_unit_features_of_the_clean_view_without_prompts(build):
    drifting, frozen = build(), build(teacher="frozen")
    batch = two_views()
    for m, tower in ((drifting, drifting.vlm), (frozen, frozen.vlm.origin)):
        m.teacher.copy_(torch.randn(m.teacher.shape, generator=torch.Generator().manual_seed(1)))
        s = tensors(tower)
        with torch.no_grad():
            cls = published.class_tokens(s, batch["weak"], {})[:, -1]
            z = F.normalize(published.norm(cls, s, "visual.ln_post") @ s["visual.proj"], dim=-1)
        labels, shares = m.targets(batch)
        assert torch.equal(labels, (z @ m.teacher.T).argmax(-1))
        torch.testing.assert_close(shares, (z @ m.teacher.T).softmax(-1), atol=1e-5, rtol=0)
        assert not shares.requires_grad
    assert not torch.allclose(drifting.taught(batch["weak"]), frozen.taught(batch["weak"]), atol=1e-3)


def test_the_student_is_read_as_it_is_unless_told_otherwise(build):
    raw, unit = build(), build(student="unit")
    with torch.no_grad():
        z = raw.encode_image(small_clip.images())["cls"]
        assert z.norm(dim=-1).min() > 2
        torch.testing.assert_close(raw.logits(small_clip.images()), z @ raw.adapter.T)
        torch.testing.assert_close(unit.logits(small_clip.images()), F.normalize(z, dim=-1) @ raw.adapter.T)


def test_both_tasks_at_once(build):
    d = torch.tensor([[0.5, 0.5, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [1 / 6] * 6, [0, 0, 0.2, 0.3, 0.1, 0.4]])
    m = build(labels="true", w_class=0.5, w_distribution=2.0)
    with torch.no_grad():
        terms = m.losses(two_views(distribution=d), None)
        log = m.logits(small_clip.images()[:4]).log_softmax(-1)
    kl = torch.special.xlogy(d, d) - d * log
    assert terms["distribution"].item() == pytest.approx(2 * kl.sum(-1).mean().item(), rel=1e-5)
    ce = F.cross_entropy(log, small_clip.LABELS[:4], label_smoothing=0.1)
    assert terms["ce"].item() == pytest.approx(0.5 * ce.item(), rel=1e-5)
    assert set(build(labels="true", w_class=0, w_distribution=1).losses(two_views(distribution=d))) == {
        "distribution"
    }
    with pytest.raises(ValueError, match="w_class and w_distribution are both 0"):
        registry.configure("lafter", {"w_class": 0})


def test_pseudo_labels_need_none_of_the_task(build):
    m = build(w_distribution=1.0)
    one = m.losses(two_views(distribution=torch.eye(6)[:4]))
    other = m.losses({k: v for k, v in two_views().items() if k != "label"})
    assert one.keys() == other.keys() == {"ce", "distribution"}
    assert all(torch.equal(one[k], other[k]) for k in one)


def stages_of(task, **settings):
    vlm = vlmlab.load("tiny", device="cpu")
    config, options = registry.settings("lafter", settings)
    classes = (list(task.classes.names), task.classes.template)
    m = LaFTer.build({"vlm": vlm}, classes, config)
    return m, m.stages(task, options, 1)


def test_rates_are_constant_and_biases_are_not_decayed():
    task = vlmlab.task("emoji/emotions", protocol="label_distribution")
    m, (texts, images) = stages_of(task, epochs=3, batch_size=16, text_steps=9)
    assert (texts.steps, images.steps, images.epoch) == (
        9,
        3 * (len(task.train) // 16),
        len(task.train) // 16,
    )
    assert {stage.rate(step, g.lr) for stage in (texts, images) for g in stage.groups for step in (0, 8)} == {
        5e-4
    }
    decays = {
        n: g.weight_decay for g, ns in zip(images.groups, grouped(m.trainable(), images.groups)) for n in ns
    }
    assert decays.keys() == m.trainable().keys()
    assert {n for n, d in decays.items() if d == 0} == {n for n in decays if "bias" in n}
    assert {decays["prompt"], decays["vlm.clip.visual.ln_post.weight"]} == {0.01}


def test_views_of_a_batch():
    task = vlmlab.task("emoji/emotions", protocol="label_distribution")
    _, (texts, images) = stages_of(task, epochs=1, batch_size=4)
    batch = next(images.feed(0))
    assert next(texts.feed(7)) == {}
    assert {"weak", "strong"} <= set(batch) and batch["weak"].shape == batch["strong"].shape == (4, 3, 64, 64)

    def rough(x):
        return (x[..., 1:] - x[..., :-1]).abs().mean()

    assert rough(batch["strong"]) < rough(batch["weak"])  # the blur is always there
    _, (_, images) = stages_of(task, epochs=1, batch_size=4, labels="true")
    assert "weak" not in next(images.feed(0))  # nobody looks at it


def test_what_labels_need(tmp_path):
    bare = vlmlab.task("emoji/food", protocol="few_shot", shots=2)
    with pytest.raises(ValueError, match="needs a distribution of every image, and emoji/food"):
        stages_of(bare, labels="true", w_distribution=1.0)
    stages_of(bare, labels="true")
    with pytest.raises(ValueError, match="has no training images"):
        stages_of(vlmlab.task("emoji/food"))


def test_descriptions_of_other_classes_are_refused_before_anything_is_trained(tmp_path):
    task = vlmlab.task("emoji/emotions", protocol="label_distribution")
    path = tmp_path / "texts.json"
    path.write_text(json.dumps({"hapy": ["a happy face"]} | {n: ["a face"] for n in task.classes.names[1:]}))
    with pytest.raises(ValueError, match=r"'happy' \(did you mean 'hapy'\?\)"):
        stages_of(task, descriptions=str(path))
    m, _ = stages_of(task, descriptions="emotions")  # comes with vlmlab
    assert all(len(s) > 3 and s[-1] == task.template.format(n) for s, n in zip(m.sentences(), m.known))
    m, _ = stages_of(task)
    assert len(m.sentences()[0]) == 61


def test_it_knows_the_classes_it_was_made_for(build):
    m = build()
    with torch.no_grad():
        whole = m.logits(small_clip.images())
        m.set_classes(small_clip.CLASSES[4:1:-1], small_clip.TEMPLATE)
        torch.testing.assert_close(m.logits(small_clip.images()), whole[:, [4, 3, 2]])
    with pytest.raises(ValueError, match="LaFTer has no weights for 1 classes, for example 'zebra'"):
        m.set_classes(["sphynx", "zebra"], small_clip.TEMPLATE)


def test_norms_that_train(build):
    counts = {
        norms: sum(p.numel() for n, p in build(norms=norms).trainable().items() if "ln_" in n)
        for norms in ("all", "inner", "none")
    }
    assert counts == {"all": 26 * 2 * 128, "inner": 25 * 2 * 128, "none": 0}
    names = set(build().trainable()) - {"prompt", "adapter"}
    assert len(names) == 52 and all(n.startswith("vlm.clip.visual.") for n in names)  # none of the text tower


def test_a_model_without_a_class_token_is_refused(small_vlm, monkeypatch):
    monkeypatch.setattr(small_vlm.image, "reads_class_token", False)
    with pytest.raises(ValueError, match=r"LaFTer reads the class token, and the image tower of .* has none"):
        methods.build("lafter", small_vlm, small_clip.CLASSES)


def test_epochs_are_kept(build):
    m = build(epochs=3)
    stage, seen = Stage("images", 4, epoch=2), []
    for step in range(4):
        with torch.no_grad():
            for p in m.kept():
                p.normal_()
        m.after_step(stage, step)
        seen += [m.adapter.detach().clone()] if step % 2 else []
    now = m.prompt.detach().clone()
    assert m.epochs_kept == 2
    for epoch in (1, 2):
        with m.at_epoch(epoch):
            assert torch.equal(m.adapter, seen[epoch - 1])
            assert epoch == 2 or not torch.equal(m.prompt, now)
    assert torch.equal(m.prompt, now) and torch.equal(m.adapter, seen[1])
    with pytest.raises(ValueError, match="epoch 3, but epochs 1 to 2 are kept"), m.at_epoch(3):
        pass
