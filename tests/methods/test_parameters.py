"""How many numbers each method trains with ViT-B/16 (built without weights), and that all of them learn."""

import open_clip
import pytest
import small_clip
import torch
from open_clip.model import CLIP

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
    ("mmrl", {}, 4_992_256),
    ("mmrl", dict(rep_dim=2048), 18_762_496),
    ("mmrlpp", {}, 813_312),
    ("aligned_norm", {}, 813_312),
    ("hicropl", {}, 33_431_040),
    ("hicropl", dict(tokens=2, depth=6, cross_layer=5), 20_316_416),
]


@pytest.fixture(scope="module")
def vit_b16():
    with torch.device("meta"):
        clip = CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu"))
    return VLM(clip, open_clip.get_tokenizer("ViT-B-16-quickgelu"), "ViT-B-16", torch.device("meta"), "fp32")


@pytest.mark.parametrize("name,config,wanted", COUNTS)
def test_counts(vit_b16, name, config, wanted):
    m = methods.build(name, vit_b16, [f"class {i}" for i in range(10)], **config)
    assert sum(p.numel() for p in m.trainable().values()) == wanted


def test_every_method_is_counted():
    assert {name for name, _, _ in COUNTS} == set(methods.names())


# zero-shot and the linear probe take no steps; HiCroPL, known for what does not learn, has its own test
@pytest.mark.parametrize("name", sorted(set(methods.names()) - {"zero_shot", "linear_probe", "hicropl"}))
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
