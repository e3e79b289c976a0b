"""How many numbers each method trains with ViT-B/16 (built without weights), and that all of them learn."""

import fnmatch
import math

import open_clip
import pytest
import small_clip
import torch
from open_clip.model import CLIP

import vlmlab
from vlmlab import methods
from vlmlab.models.load import VLM

COUNTS = [
    ("zero_shot", {}, 0),
    ("linear_probe", {}, 513 * 10),
    ("coop", {}, 2_048),
    ("coop", dict(tokens=16), 8_192),
    ("coop", dict(class_specific=True), 10 * 2_048),
    ("maple", {}, 3_555_072),
    ("maple", dict(depth=3), 1_185_024),
    ("promptsrc", {}, 46_080),
    ("promptsrc", dict(depth=3), 15_360),
    ("promptsrc", dict(tokens=2, depth=3, image_tokens=8, image_depth=6), 2 * 3 * 512 + 8 * 6 * 768),
    ("mmrl", {}, 4_992_256),
    ("mmrl", dict(rep_dim=2048), 18_762_496),
    ("mmrlpp", {}, 813_312),
    ("aligned_norm", {}, 813_312),
    ("hicropl", {}, 33_431_040),
    ("hicropl", dict(tokens=2, depth=6, cross_layer=5), 20_316_416),
    ("lafter", {}, 38_400 + 5_120 + 39_936),
    ("lafter_nga", {}, 36_869 + 5_120 + 38_400),
    ("lafter_nga", dict(stages="b32", aggregate="sketch", fusion="raw", norms="none"), 49_160 + 5_120),
    ("aligned_norm", dict(norm_loss="ring"), 813_313),
    ("lafter_nga", dict(stages="12", aggregate="fixed", norms="none"), 16 * 768 + 5_120),
    (
        "lafter_nga",
        dict(stages="11,12", classifiers="separate", norms="none"),
        2 * (16 * 768 + 1) + 3 * 5_120,
    ),
]
# method -> what it keeps beside what it trains, (shape); the rest is made again or is the frozen model's
BESIDE = {
    "promptsrc": {"text_average": (9, 4, 512), "image_average": (9, 4, 768)},
    "lafter": {"teacher": (10, 512), "history": (50, 83_456), "epochs_kept": ()},
    "lafter_nga": {"teacher": (10, 512), "history": (8, 80_389), "epochs_kept": ()},
}


@pytest.fixture(scope="module")
def vit_b16():
    with torch.device("meta"):
        clip = CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu"))
    return VLM(clip, open_clip.get_tokenizer("ViT-B-16-quickgelu"), "ViT-B-16", torch.device("meta"), "fp32")


@pytest.mark.parametrize("name,config,wanted", COUNTS)
def test_counts(vit_b16, name, config, wanted):
    m = methods.build(name, vit_b16, [f"class {i}" for i in range(10)], **config)
    assert sum(p.numel() for p in m.trainable().values()) == wanted
    # all of it stands where the model stands, as a GPU needs it
    assert {x.device.type for x in (*m.parameters(), *m.buffers())} == {"meta"}
    assert name != "lafter_nga" or m.stage_weights().device.type == "meta"


def test_every_method_is_counted():
    assert {name for name, _, _ in COUNTS} == set(methods.names())


@pytest.mark.parametrize("name", methods.names())
def test_what_is_kept_beside_what_trains(vit_b16, name):
    m = methods.build(name, vit_b16, [f"class {i}" for i in range(10)])
    kept = {k: v for k, v in m.own().items() if k not in m.trainable()}
    kept = {k: v for k, v in kept.items() if not k.startswith("vlm.")}
    assert {k: tuple(v.shape) for k, v in kept.items()} == BESIDE.get(name, {})
    assert {v.dtype for k, v in kept.items() if k == "epochs_kept"} <= {torch.int64}
    assert {v.dtype for k, v in kept.items() if k != "epochs_kept"} <= {torch.float32}


@pytest.mark.parametrize("kind", ["gaussian", "fixed"])
def test_what_follows_from_the_settings_is_not_kept(vit_b16, kind):
    m = methods.build("lafter_nga", vit_b16, ["cat", "dog"], aggregate=kind)
    learned = {k for k in m.own() if k.startswith("agg")}
    assert learned == ({f"aggregations.{i}.value" for i in (0, 1)} if kind == "gaussian" else set())


# zero-shot and the linear probe take no steps; HiCroPL, known for what does not learn, and LaFTer's two stages have
# their own tests
OTHERWISE = {"zero_shot", "linear_probe", "hicropl", "lafter", "lafter_nga"}


@pytest.mark.parametrize("name", sorted(set(methods.names()) - OTHERWISE))
def test_every_trainable_gets_a_gradient_in_every_slice(small_vlm, name):
    m = methods.build(name, small_vlm, small_clip.CLASSES, small_clip.TEMPLATE).train()
    with torch.no_grad():
        for p in m.trainable().values():  # away from zeros that hide others
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    sum(m.losses({"image": small_clip.images(), "label": small_clip.LABELS}).values()).backward()
    for key, p in m.trainable().items():
        assert p.grad is not None and torch.isfinite(p.grad).all(), key
        assert p.grad.flatten(1).norm(dim=1).min() > 0 if p.ndim > 1 else p.grad.norm() > 0, key
    assert all(p.grad is None for p in small_vlm.parameters())


def within(bound):
    """Spread and largest value of numbers drawn evenly from -bound to bound."""
    return bound / math.sqrt(3), bound


DRAWN = {"space": (0.02, None), "*_aligner.bias": within(1 / math.sqrt(512))}  # a row of 512 numbers comes in
LOW_RANK = {
    **DRAWN,
    "*_aligner.weight": within(1 / math.sqrt(512)),
    "*_aligner.A": within(1 / math.sqrt(4)),
    "*_aligner.B": (0, 0),
    "proj_A": within(1 / math.sqrt(64)),
    "proj_B": (0, 0),
}
# method -> parameter -> (standard deviation, largest absolute value) before the first step; towers 128 wide
STARTS = {
    "mmrl": {**DRAWN, "*_aligner.weight": within(1 / math.sqrt(512)), "proj_rep": (1 / math.sqrt(128), None)},
    "mmrlpp": LOW_RANK,
    "aligned_norm": LOW_RANK,
    "maple": {"weight": within(1 / math.sqrt(128)), "bias": within(1 / math.sqrt(128))},
    "promptsrc": {"image": (0.02, None)},
    "hicropl": {
        "image": (0.02, None),
        "*_queries": (1, None),
        "to_*.query.weight": within(1 / math.sqrt(128)),
    },
    "linear_probe": {"weight": (0, 0), "bias": (0, 0)},
    # published for ViT-B/16: 0.0625, the square root of 6 / (3 * 16 * 16 + width)
    "lafter": {
        "prompt": within(math.sqrt(6 / (768 + 128))),
        "adapter": within(1 / math.sqrt(128)),
    },
    "lafter_nga": {"prompt.*": within(math.sqrt(6 / (768 + 128)))},
}


@pytest.mark.parametrize("name", STARTS)
def test_parameters_start_as_the_published_code_draws_them(name):
    torch.manual_seed(0)
    trained = methods.build(name, vlmlab.load("tiny", device="cpu"), ["dog", "cat"]).trainable()
    for pattern, (spread, most) in STARTS[name].items():
        found = fnmatch.filter(trained, pattern)
        assert found, pattern
        for key in found:
            assert trained[key].std().item() == pytest.approx(spread, rel=0.1), key
            assert most is None or 0.98 * most <= trained[key].abs().max() <= most * (1 + 1e-6), key


@pytest.mark.parametrize("name", ["promptsrc", "maple", "hicropl"])
def test_deeper_prompts_start_small_behind_written_words(name):
    torch.manual_seed(0)
    text = methods.build(name, vlmlab.load("tiny", device="cpu"), ["dog", "cat"]).text
    assert text[1:].std().item() == pytest.approx(0.02, rel=0.05)
    assert text[0].std() > 0 and not torch.isclose(text[0], text[1]).any()
