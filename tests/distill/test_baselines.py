"""What each baseline is made of, against its formula and its authors' code."""

import pytest
import torch
import torch.nn.functional as F

import vlmlab
from vlmlab import registry
from vlmlab.distill import llava_kd, proxies, taps
from vlmlab.distill.fitnet import FitNet
from vlmlab.distill.student import Pairs
from vlmlab.models import tokens
from vlmlab.train.run import Run

SETTINGS = {"promptkd": {"depth": 3}, "c2kd": {}, "llava_kd": {}, "fitnet": {"stages": 2}}
QUICK = dict(batch_size=8, max_steps=5, lr=1e-3)


def built(name, models, **config):
    torch.manual_seed(0)
    return registry.build(name, models, **{**SETTINGS.get(name, {}), **config}).train()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_baseline_trains_is_scored_and_changes_no_model(name, models, task, tmp_path):
    before = [m.fingerprint() for m in models.values()]
    run = vlmlab.fit(name, models, task, out=tmp_path, **QUICK, **SETTINGS[name])
    assert run.metrics["loss"].notna().all() and len(run.metrics) == 5
    found = vlmlab.evaluate(run, task)
    assert {"i2t R@1", "t2i R@1"} <= set(found["metric"]) and len(run.info["differs"]) > 40
    assert [m.fingerprint() for m in models.values()] == before
    again = Run(run.path).attach(models, task)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.model.encode_image(images), run.model.encode_image(images))


@pytest.mark.parametrize("name", ["kd", "fitnet", "clip_kd", "c2kd", "llava_kd"])
def test_a_baseline_lowers_its_own_loss(name, models, batch):
    learner = built(name, models)
    optimiser, found = torch.optim.AdamW(learner.trainable().values(), lr=1e-3), []
    for _ in range(12):
        optimiser.zero_grad()
        loss = sum(learner.losses(batch).values())
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert found[-1] < 0.9 * found[0]


# FitNet


def tap(level, grid=None, mask=None):
    return taps.Taps((level,), level, level, level, grid, mask)


def test_fitnet_is_nothing_for_equal_towers_and_an_identity(models):
    learner = built("fitnet", {"student": models["student"], "teacher": models["student"]})
    for side in ("image", "text"):
        learner.regressors[side] = torch.nn.Identity()
    x = F.layer_norm(torch.randn(2, 16, 32), (32,))
    mask = torch.ones(2, 16, dtype=torch.bool)
    assert learner.image_hint(tap(x, (4, 4)), tap(x, (4, 4))) < 1e-6
    assert learner.text_hint(tap(x, mask=mask), tap(x, mask=mask)) < 1e-6


@pytest.mark.parametrize(("own", "its"), [(14, 16), (16, 14)])
def test_fitnet_compares_on_the_teachers_grid(models, own, its):
    learner = built("fitnet", models)
    loss = learner.image_hint(
        tap(torch.randn(2, own**2, 32), (own, own)), tap(torch.randn(2, its**2, 48), (its, its))
    )
    assert loss.isfinite() and loss > 0.5


def test_fitnet_reads_no_padding(models):
    learner = built("fitnet", models)
    x, y, mask = torch.randn(2, 6, 32), torch.randn(2, 6, 48), torch.ones(2, 6, dtype=torch.bool)
    mask[0, 4:] = False
    x2, y2 = x.clone(), y.clone()
    x2[0, 4:] += 9
    y2[0, 4:] -= 9
    one, two = (
        learner.text_hint(tap(x, mask=mask), tap(y, mask=mask)),
        learner.text_hint(tap(x2, mask=mask), tap(y2, mask=mask)),
    )
    assert learner.by_token and torch.allclose(one, two)
    learner.by_token = False  # other words: pooled
    other = learner.text_hint(
        tap(x, mask=mask), tap(torch.randn(2, 9, 48), mask=torch.ones(2, 9, dtype=torch.bool))
    )
    assert other.isfinite()


def test_fitnet_in_two_stages_trains_on_hints_first(models, task):
    learner = built("fitnet", models)
    assert isinstance(learner, FitNet)
    stages = learner.stages(task, learner.Options(**QUICK), 0)
    assert [(s.name, s.steps) for s in stages] == [("hints", 1), ("train", 4)]


# CLIP-KD


def test_clip_kd_against_its_formulas(models, batch):
    learner = built("clip_kd", models)
    s, t, found = learner.student_pairs(batch), learner.teacher_pairs(batch), learner.losses(batch)
    v, u = (F.normalize(learner.to_teacher[k](x), dim=1) for k, x in (("image", s.image), ("text", s.text)))
    fd = 2000 * ((v - t.image).square().mean() + (u - t.text).square().mean())
    right = torch.arange(8)
    icl = 0
    for a, b in ((v, t.text), (t.image, u)):
        logits = learner.icl_scale.exp() * a @ b.T
        icl += (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 4
    assert torch.allclose(found["fd"], fd, rtol=1e-5) and torch.allclose(found["icl"], icl, rtol=1e-5)
    assert torch.allclose(found["ckd"], built("kd", models).losses(batch)["kd"], rtol=1e-4)
    quirk = built("clip_kd", models, literal_scale=True)
    assert quirk.losses(batch)["icl"] < found["icl"]  # scale 2.66, not 14


# PromptKD


def test_promptkd_trains_prompts_and_projector_alone(models):
    learner = built("promptkd", models)
    assert {n.split(".")[0] for n in learner.trainable()} == {"prompts", "projector"}
    n, d, es, et = 4, 32, 24, 40
    count = 3 * n * d + (es * et + et) + 2 * et + (et**2 + et)
    assert sum(p.numel() for p in learner.trainable().values()) == count
    real = 9 * 4 * 768 + (512 * 768 + 768) + 2 * 768 + (768**2 + 768)
    with torch.device("meta"):
        assert (
            sum(p.numel() for p in proxies.head(512, 768, 768).parameters()) + 9 * 4 * 768
            == real
            == 1_013_760
        )


def test_promptkd_in_the_papers_words(models, batch):
    learner = built("promptkd", models)
    own, paper = learner.losses(batch)["kd"], built("promptkd", models, paper=True).losses(batch)["kd"]
    assert torch.allclose(paper, 1000 * own / 8, rtol=1e-5)


def test_promptkds_prompts_come_last_and_are_replaced(models):
    learner, seen = built("promptkd", models).eval(), []
    tower = learner.student.image

    class Look(tokens.Observer):
        def before_block(self, layer, now):
            seen.append((layer, now.layout, now.x[0, now.span("prompt")].clone()))

    with torch.no_grad(), tokens.observed(tower, Look()):
        learner.encode_image(torch.randn(1, 3, 32, 32))
    assert all(layout == (("cls", 1), ("patch", 16), ("prompt", 4)) for _, layout, _ in seen)
    for layer, _, x in seen[1:3]:
        assert torch.allclose(x, learner.prompts[layer - 1], atol=1e-5)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(learner.student.encode_image(images), models["student"].encode_image(images))


def test_promptkd_writes_no_model(models, tmp_path):
    with pytest.raises(ValueError, match="open_run"):
        built("promptkd", models).export(tmp_path / "model")
    with pytest.raises(ValueError, match="be a teacher"):
        built("kd", {**models, "teacher": built("promptkd", models)})
    with pytest.raises(ValueError, match="blocks 1 to 4"):
        built("promptkd", models, depth=9)


# C2KD


def test_kendall_is_scipys():
    from scipy.stats import kendalltau

    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 9, generator=g), torch.randint(0, 3, (6, 9), generator=g).float()
    assert proxies.kendall(a, b).tolist() == pytest.approx([kendalltau(x, y).statistic for x, y in zip(a, b)])
    assert proxies.kendall(torch.zeros(1, 4), torch.randn(1, 4)).item() == 0


def test_selected_rows_teach_all_but_the_target():
    g = torch.Generator().manual_seed(0)
    t, s = torch.randn(6, 6, generator=g), torch.randn(6, 6, generator=g).requires_grad_()
    found, expected = proxies.others(t, s, 0.0, False), 0
    for b in range(6):
        rest = [i for i in range(6) if i != b]
        if proxies.kendall(t, s.detach())[b] > 0:
            expected += F.kl_div(s[b, rest].log_softmax(0), t[b, rest].softmax(0), reduction="sum") / 6
    assert torch.allclose(found, expected)
    (grad,) = torch.autograd.grad(found, s)
    assert grad.isfinite().all() and grad.diagonal().eq(0).all()
    zeroed = [x * ~torch.eye(6, dtype=torch.bool) for x in (t, s)]
    kl = F.kl_div(zeroed[1].log_softmax(1), zeroed[0].softmax(1), reduction="none").sum(1)
    quirk = (kl * (proxies.kendall(t, s.detach()) > 0)).mean()
    assert torch.allclose(proxies.others(t, s, 0.0, True), quirk)


def test_nothing_selected_is_a_differentiable_nothing():
    t = torch.randn(4, 4)
    s = (-t).clone().requires_grad_()
    loss = proxies.others(t, s, 0.0, False)
    loss.backward()
    assert loss.item() == 0 and s.grad.eq(0).all()


def test_targets_of_c2kd_have_no_gradient():
    a, b = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    both = proxies.within(a, b)
    assert torch.autograd.grad(both["to_proxy"], a, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(both["from_proxy"], b, allow_unused=True) == (None,)


def test_a_faithful_teacher_is_a_copy_that_learns(models, batch):
    frozen, faithful = built("c2kd", models), built("c2kd", models, mode="faithful")
    assert not any(n.startswith("partner") for n in frozen.trainable())
    sum(faithful.losses(batch).values()).backward()
    for name in ("visual.proj", "text_projection"):
        assert dict(faithful.partner.clip.named_parameters())[name].grad.abs().sum() > 0
    assert all(p.grad is None for p in models["teacher"].parameters())
    sum(frozen.losses(batch).values()).backward()
    for n, p in frozen.trainable().items():
        assert p.grad is not None and p.grad.isfinite().all(), n


# LLaVA-KD


def test_relations_of_patches_are_blind_to_turns_and_scales():
    s = F.normalize(torch.randn(3, 9, 8), dim=-1)
    t = F.normalize(torch.randn(3, 9, 8), dim=-1)
    turn = torch.linalg.qr(torch.randn(8, 8))[0]
    assert llava_kd.relation(s, s).abs() < 1e-6
    assert torch.allclose(llava_kd.relation(s @ turn, t), llava_kd.relation(s, t), atol=1e-5)
    assert 0 <= llava_kd.relation(s, t) <= 2


def test_patches_are_matched_with_the_captions():
    s, t = (
        Pairs(F.normalize(torch.randn(2, 5, 8), dim=-1), F.normalize(torch.randn(4, 8), dim=-1), 9.0)
        for _ in "st"
    )
    p, q = (9.0 * x.image.reshape(10, 8) @ x.text.T for x in (t, s))
    expected = (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1).mean()
    assert torch.allclose(llava_kd.visual(s, t), expected, atol=1e-6)


def test_the_first_stage_of_llava_kd_changes_the_projections_alone(models, task, tmp_path):
    learner = built("llava_kd", models)
    stages = learner.stages(task, learner.Options(batch_size=8), 0)
    assert [(s.name, s.steps / s.epoch) for s in stages] == [("dpt", 5), ("sft", 10), ("dft", 10)]
    from vlmlab.learner import grouped

    names = {n for group in grouped(learner.trainable(), stages[0].groups) for n in group}
    assert names == {f"student.clip.{n}" for n in ("visual.proj", "text_projection", "logit_scale")}
    frozen = built("llava_kd", models, freeze_vision=True).stages(task, learner.Options(batch_size=8), 0)[1]
    left = {n for group in grouped(learner.trainable(), frozen.groups) for n in group}
    assert left and not any(".visual." in n for n in left)


def test_dense_embeddings_are_read_as_the_image_is(models, batch):
    learner = built("llava_kd", models)
    pairs, patches = learner.seen(learner.student, batch["image"], batch["text"], (4, 4))
    assert patches.shape == (8, 16, 24) and pairs.image.shape == (8, 24)
    bigger = learner.seen(learner.teacher, batch["teacher_image"], batch["text"], (4, 4))[1]
    assert bigger.shape == (8, 16, 40)
