"""Exact shortcuts change no number; caches follow the weights and classes; `build` refuses what is wrong."""

import re

import pytest
import torch

from vlmlab import methods
from vlmlab.models.load import load

CLASSES = ["cat", "red fox", "grinning face with big eyes", "sun", "moon", "potted plant"]
BASE = "ViT-B-16-quickgelu"


@pytest.fixture(scope="module")
def models():
    """Models by name, loaded once; ViT-B/16 with random weights and CLIP's own logit scale."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = load(name, device="cpu")
            if name == BASE:
                made[name].clip.logit_scale.fill_(torch.tensor(100.0).log())
        return made[name]

    return get


@pytest.fixture
def tiny(models):
    vlm = models("tiny")
    yield vlm
    vlm.shortcuts = True


def build(name, vlm, classes=CLASSES, **config):
    """A method whose trainables have left their start: zeros would hide half of the gradients."""
    torch.manual_seed(1)
    m = methods.build(name, vlm, classes, **config)
    with torch.no_grad():
        for p in m.trainable().values():
            p.add_(0.1 * torch.randn_like(p))
    return m.train()


def batch(vlm, size, classes):
    g = torch.Generator().manual_seed(2)
    return torch.randn(size, 3, vlm.image_size, vlm.image_size, generator=g), torch.arange(size) % classes


def numbers(m, images, labels):
    """Loss terms, gradients and logits of one step, by name."""
    terms = m.losses({"image": images, "label": labels})
    grads = torch.autograd.grad(sum(terms.values()), list(m.trainable().values()))
    with torch.no_grad():
        logits = m.logits(images)
    return {
        **{f"loss {k}": v.detach() for k, v in terms.items()},
        **{f"gradient of {k}": g for k, g in zip(m.trainable(), grads)},
        "logits": logits,
    }


def assert_shortcuts_are_exact(name, vlm, size, classes):
    weights = {"w_proj": 0.5, "w_token": 0.5} if name == "aligned_norm" else {}
    m, data, out = build(name, vlm, CLASSES[:classes], **weights), batch(vlm, size, classes), {}
    try:
        for on in (False, True):
            vlm.shortcuts = on
            out[on] = numbers(m, *data)
    finally:
        vlm.shortcuts = True
    assert out[True].keys() == out[False].keys() and len(out[True]) == 4 + len(weights) + 11 + 1
    for key, exact in out[False].items():
        largest, worst = exact.abs().max().item(), (out[True][key] - exact).abs().max().item()
        rounding = 1e-7 if key.startswith("loss anchor") else 0  # of 1 - cosine, however small it is
        assert worst <= 1e-5 * largest + rounding, f"{key}: {worst:.1e} apart, largest entry {largest:.1e}"
        assert largest > 0, key


@pytest.mark.parametrize("name", ["mmrlpp", "aligned_norm"])
def test_shortcuts_are_exact_on_tiny(tiny, name):
    assert_shortcuts_are_exact(name, tiny, size=4, classes=6)


def test_shortcuts_are_exact_on_vit_b16_shapes(models):
    assert_shortcuts_are_exact("aligned_norm", models(BASE), size=1, classes=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmrlpp", "aligned_norm"])
def test_shortcuts_are_exact_on_a_larger_batch_of_vit_b16_shapes(models, name):
    assert_shortcuts_are_exact(name, models(BASE), size=2, classes=3)


@pytest.mark.parametrize(
    "name,config",
    [
        ("coop", {}),
        ("coop", {"class_position": "middle"}),
        ("coop", {"class_specific": True}),
        ("promptsrc", {}),
        ("maple", {}),
        ("maple", {"half_prompts": False}),
        ("hicropl", {"mode": "differentiable"}),
    ],
)
def test_shortcuts_are_exact_for_prompts_at_the_embedding(tiny, name, config):
    m, data, out = build(name, tiny, **config), batch(tiny, 2, 6), {}
    for on in (False, True):
        tiny.shortcuts = on
        out[on] = numbers(m, *data)
    half = name == "maple" and m.config.half_prompts  # a last bit may become one of fp16
    for key, exact in out[False].items():
        rounding = 2e-6 if key.startswith("loss anchor") else 0  # 12 or 25 times that of 1 - cosine
        limit = (1e-3 if half else 1e-5) * exact.abs().max() + rounding
        assert exact.abs().max() > 0 and (out[True][key] - exact).abs().max() <= limit, key


def test_blocks_without_edits_run_once_for_a_class_list_and_once_for_an_image(tiny):
    m, data, calls = build("aligned_norm", tiny), batch(tiny, 2, 6), []
    hooks = [
        tower.blocks[0].register_forward_hook(lambda *_, kind=tower.kind: calls.append(kind))
        for tower in (tiny.image, tiny.text)
    ]
    try:
        first = m.losses({"image": data[0], "label": data[1]})
        assert sorted(calls) == ["image", "text", "text"]  # class prompts and the zero-shot classifier
        calls.clear()
        second = m.losses({"image": data[0], "label": data[1]})
        assert calls == ["image"]
    finally:
        for hook in hooks:
            hook.remove()
    assert all(torch.equal(first[k], second[k]) for k in first)


# caches


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimiser_step_changes_the_cached_class_features(tiny, fused):
    m, (images, labels) = build("mmrlpp", tiny), batch(tiny, 4, 6)
    optimiser = torch.optim.AdamW(m.trainable().values(), lr=1e-2, fused=fused)
    for _ in range(2):
        sum(m.losses({"image": images, "label": labels}).values()).backward()
        with torch.no_grad():
            before = m.logits(images)
            assert torch.equal(m.logits(images), before)
        optimiser.step()
        with torch.no_grad():
            after = m.logits(images)
            m._features = None
            assert torch.equal(after, m.logits(images))
        assert (after - before).abs().max() > 1e-3


def test_class_features_are_computed_once_in_evaluation(tiny):
    m, (images, _), calls = build("mmrlpp", tiny), batch(tiny, 2, 6), []
    hook = tiny.text.blocks[-1].register_forward_hook(lambda *_: calls.append(1))
    try:
        with torch.no_grad():
            for _ in range(3):
                m.logits(images)
    finally:
        hook.remove()
    assert len(calls) == 1


def test_set_classes_changes_the_logits(tiny):
    m, (images, _) = build("mmrlpp", tiny), batch(tiny, 2, 6)
    with torch.no_grad():
        before = m.logits(images)
        m.set_classes(["house", "boat"], "a drawing of a {}.")
        other = m.logits(images)
        m.set_classes(CLASSES, "a photo of a {}.")
        assert other.shape == (2, 2) and torch.equal(m.logits(images), before)
        m.set_classes([c.replace(" ", "_") for c in CLASSES], "a photo of a {}.")
        assert torch.equal(m.logits(images), before)
        m.set_classes(CLASSES, "a drawing of a {}.")
        assert (m.logits(images) - before).abs().max() > 1e-3


def test_training_goes_on_after_inference_mode(tiny):
    m, (images, labels) = build("aligned_norm", tiny), batch(tiny, 2, 6)
    with torch.inference_mode():
        m.losses({"image": images, "label": labels})
        m.logits(images)
    sum(m.losses({"image": images, "label": labels}).values()).backward()
    (m.class_features() * m.frozen_class_features()).sum().backward()  # saves the cached factor
    assert m.space.grad.abs().max() > 0


@pytest.mark.parametrize(
    "names,template,message",
    [
        ([], "a {}.", "0 class names"),
        (["cat"], "a photo", "exactly one {}"),
        (["cat"], "{} and {}", "exactly one {}"),
        ("cat", "a {}.", "must be a list of texts"),
    ],
)
def test_class_lists_that_are_wrong(tiny, names, template, message):
    m = build("mmrlpp", tiny)
    with pytest.raises(ValueError, match=message):
        m.set_classes(names, template)
    assert m.classnames == CLASSES


# rules


def test_rules(tiny):
    m, (images, _) = build("mmrlpp", tiny), batch(tiny, 2, 6)
    with torch.no_grad():
        by_class, by_prompt = m.branch_logits(m.encode_image(images), m.class_features())
        unified = m.logits(images)
        torch.testing.assert_close(unified, 0.7 * by_class + 0.3 * by_prompt)
        assert torch.equal(m.logits(images, "decoupled", "base"), unified)
        assert torch.equal(m.logits(images, "decoupled", "new"), by_class)
    for split in ("base", "new"):
        with pytest.raises(ValueError, match="unified rule must not know the split"):
            m.logits(images, "unified", split)
    for split in (None, "test"):
        with pytest.raises(ValueError, match=f"needs split='base' or split='new', got {split!r}"):
            m.logits(images, "decoupled", split)
    with pytest.raises(ValueError, match="MMRLpp has no rule 'best'; it has unified, decoupled"):
        m.logits(images, "best")
    with pytest.raises(ValueError, match="ZeroShot has no rule 'decoupled'; it has unified"):
        methods.build("zero_shot", tiny, CLASSES).logits(images, "decoupled", "new")


# build


def test_unknown_method_and_parameter(tiny):
    with pytest.raises(
        ValueError, match=r"unknown method 'mmrl\+\+'; did you mean .*; there are .*mmrlpp.*zero_shot"
    ):
        methods.build("mmrl++", tiny, CLASSES)
    with pytest.raises(ValueError, match=r"mmrlpp has no parameter 'w_proj'; it has first_block, .*rank"):
        methods.build("mmrlpp", tiny, CLASSES, w_proj=0.1)
    with pytest.raises(ValueError, match="zero_shot has no parameter 'tokens'; it has none"):
        methods.build("zero_shot", tiny, CLASSES, tokens=3)


@pytest.mark.parametrize(
    "key,value,message",
    [
        ("w_proj", "0.1", "'0.1': expected `float`, got `str`"),
        ("w_proj", True, "True: expected `float`, got `bool`"),
        ("w_proj", None, "None: expected `float`, got `null`"),
        ("tokens", 5.0, "5.0: expected `int`, got `float`"),
        ("tokens", "5", "'5': expected `int`, got `str`"),
        ("tokens", True, "True: expected `int`, got `bool`"),
        ("tokens", [5], "[5]: expected `int`, got `array`"),
    ],
)
def test_wrong_types(tiny, key, value, message):
    with pytest.raises(ValueError, match=re.escape(f"{key} is {message}")):
        methods.build("aligned_norm", tiny, CLASSES, **{key: value})


def test_an_int_is_a_float(tiny):
    m = methods.build("aligned_norm", tiny, CLASSES, w_proj=1)
    assert m.config.w_proj == 1.0 and type(m.config.w_proj) is float
    assert type(m.config.tokens) is int and m.config.w_token == 0.005


@pytest.mark.parametrize("key", ["first_block", "tokens", "rep_dim", "rank", "proj_rank"])
def test_sizes_start_at_one(tiny, key):
    with pytest.raises(ValueError, match=f"{key}=0.*at least 1"):
        methods.build("mmrlpp", tiny, CLASSES, **{key: 0})


@pytest.mark.parametrize("block", [-1, 0, 13])
def test_first_block_beyond_the_towers(tiny, block):
    with pytest.raises(
        ValueError, match=rf"first_block={block} .*block.* they have 12 and 12|must be at least 1"
    ):
        methods.build("mmrlpp", tiny, CLASSES, first_block=block)


@pytest.mark.parametrize("block", [1, 12])
def test_the_first_and_the_last_block_can_be_the_first_with_tokens(tiny, block):
    method = methods.build("mmrlpp", tiny, CLASSES, first_block=block)
    assert [*method.image_edits()] == [*method.text_edits()] == [*range(block, 13)]


# sizes of the paper


def test_parameters_of_mmrlpp_on_vit_b16():
    m = methods.build("mmrlpp", load(BASE, device="meta"), ["cat"])
    sizes = {k: p.numel() for k, p in m.trainable().items()}

    def count(prefix, but=""):
        return sum(n for k, n in sizes.items() if k.startswith(prefix) and k != but)

    assert count("space") == 2_560 and count("proj_") == 81_920
    assert sizes["image_aligner.weight"] == 393_216
    assert count("image_aligner", but="image_aligner.weight") == 41_216
    assert sizes["text_aligner.weight"] == 262_144
    assert count("text_aligner", but="text_aligner.weight") == 32_256
    assert sum(sizes.values()) == 813_312
    aligned = methods.build("aligned_norm", m.vlm, ["cat"]).trainable()
    assert {k: v.shape for k, v in aligned.items()} == {k: v.shape for k, v in m.trainable().items()}
