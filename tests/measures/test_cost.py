"""Counts against the papers' and closed forms; protocols by what they record, never by how fast they are."""

import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP
from torch import nn

from vlmlab import measures, methods
from vlmlab.measures import cost
from vlmlab.models.load import VLM, load

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import small_clip


@pytest.fixture(scope="module")
def tiny():
    return load("tiny", device="cpu")


@pytest.fixture(scope="module")
def vit_b16():
    """Real shapes; the frozen weights are whatever the memory holds."""
    with torch.device("meta"):
        clip = CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu"))
    return VLM(
        clip.to_empty(device="cpu"),
        open_clip.get_tokenizer("ViT-B-16-quickgelu"),
        "ViT-B-16",
        torch.device("cpu"),
        "fp32",
    )


# GFLOP of an image of 224 pixels and of a text of 77 tokens
CLIPS = {"ViT-B-32": (8.818, 5.960), "ViT-B-16": (35.127, 5.960), "ViT-L-14": (162.026, 13.300)}


def closed_form(config: dict) -> tuple[float, float]:
    v, t, joint = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    patches = (v["image_size"] // v["patch_size"]) ** 2
    image = (
        measures.transformer_flops(patches + 1, v["width"], v["layers"])
        + 2 * patches * 3 * v["patch_size"] ** 2 * v["width"]
        + 2 * v["width"] * joint
    )
    text = measures.transformer_flops(t["context_length"], t["width"], t["layers"]) + 2 * t["width"] * joint
    return image, text


@pytest.mark.parametrize("name", CLIPS)
def test_flops_of_clip_are_the_closed_form(name):
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        clip = CLIP(**config).eval()
        inputs = torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long)
    found = [int(measures.flops(f, x).sum()) for f, x in zip((clip.encode_image, clip.encode_text), inputs)]
    assert np.round(np.array(found) / 1e9, 3).tolist() == list(CLIPS[name])
    assert np.allclose(found, closed_form(config), rtol=1e-4)


def test_flops_see_the_attention_that_the_fast_path_hides(tiny):
    """In evaluation mode without gradients nn.MultiheadAttention is one operator no counter knows."""
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(3, 3, tiny.image_size, tiny.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as naive:
        tiny.encode_image(x)
    found = measures.flops(tiny.encode_image, x)
    assert naive.get_total_flops() < 0.8 * int(found.sum())
    assert torch.backends.mha.get_fastpath_enabled()
    patches, width, blocks = (tiny.image_size // 8) ** 2, tiny.image.width, tiny.image.depth
    one = (
        measures.transformer_flops(patches + 1, width, blocks)
        + 2 * patches * 3 * 64 * width
        + 2 * width * tiny.clip.visual.proj.shape[1]
    )
    assert int(found.sum()) == pytest.approx(3 * one, rel=1e-4) and found.attrs["units"] == "FLOP"
    per_patch = measures.flops(tiny.clip.visual.conv1, x)
    assert int(per_patch.sum()) == 3 * 2 * patches * 3 * 64 * width


def test_an_attention_that_cannot_be_counted_is_an_error():
    library = torch.library.Library("vlmlab_test", "DEF")
    library.define("flash_attention(Tensor q) -> Tensor")
    library.impl("flash_attention", lambda q: q + 1, "CPU")
    with pytest.raises(ValueError, match=r"vlmlab_test\.flash_attention could not be counted"):
        measures.flops(lambda q: torch.ops.vlmlab_test.flash_attention(q @ q), torch.ones(2, 2))
    with pytest.raises(ValueError, match="this call ran no operator that is counted"):
        measures.flops(torch.exp, torch.ones(2))
    assert torch.backends.mha.get_fastpath_enabled()


# what the papers' tables call parameters: token values written into both towers, ViT-B/16
INJECTED = [
    ("zero_shot", {}, 0, 0),
    ("linear_probe", {}, 0, 0),
    ("coop", {}, 0, 2_048),
    ("coop", dict(tokens=16), 0, 8_192),
    ("coop", dict(class_position="middle"), 0, 2_048),
    ("coop", dict(class_specific=True), 0, 2_048),
    ("maple", {}, 9 * 2 * 768, 9 * 2 * 512),
    ("maple", dict(depth=3), 4_608, 3_072),
    ("promptsrc", {}, 27_648, 18_432),
    ("hicropl", {}, 147_456, 98_304),
    ("mmrl", {}, 7 * 5 * 768, 7 * 5 * 512),
    ("mmrlpp", {}, 26_880, 17_920),
    ("aligned_norm", {}, 26_880, 17_920),
    ("lafter", {}, 38_400, 0),
    ("lafter_nga", {}, 36_864, 0),
    ("lafter_nga", dict(stages="b32", placement="append"), 49_152, 0),
]


@pytest.mark.parametrize("name,config,image,text", INJECTED)
def test_injected_numbers_are_the_papers(vit_b16, name, config, image, text):
    method = methods.build(name, vit_b16, ["dog", "great pyrenees", "cat"], **config)
    assert cost.injected(method) == {"image": image, "text": text}


def test_every_method_is_counted():
    assert {name for name, *_ in INJECTED} == set(methods.names())


def test_parts_of_a_vlm(tiny):
    found = measures.parameters(tiny)
    numbers = found.to_series()
    assert numbers["image"] == sum(p.numel() for p in tiny.clip.visual.parameters())
    assert numbers["image"] + numbers["text"] == numbers["deployed"] == numbers["total"] - 1  # logit_scale
    assert numbers["trainable"] == numbers["deployed_trained"] == 0 and "injected" not in numbers
    assert found.dims == ("part",) and "shipped" in found.attrs["deployed"]


def test_parts_of_a_method_and_that_it_is_left_as_it_was(tiny):
    method = methods.build("hicropl", tiny, small_clip.CLASSES).train()  # inference writes to its parameters
    before = {k: v.clone() for k, v in method.state_dict().items()}
    numbers = measures.parameters(method).to_series()
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert method.training and tiny.shortcuts
    trained = sum(p.numel() for p in method.trainable().values())
    assert numbers["trainable"] == numbers["deployed_trained"] == trained
    assert numbers["deployed"] == numbers["total"] and numbers["injected"] == 12 * 16 * (
        tiny.image.width + tiny.text.width
    )


def test_a_linear_probe_ships_no_text_tower(tiny):
    numbers = measures.parameters(methods.build("linear_probe", tiny, ["a", "b", "c"])).to_series()
    assert numbers["deployed"] == numbers["image"] + numbers["trainable"]
    assert numbers["deployed"] < numbers["total"] - numbers["text"]


class WithHead(nn.Module):
    """A student with a head that serves its training only, and a table that two modules share."""

    def __init__(self):
        super().__init__()
        self.body, self.tied, self.head = nn.Linear(4, 3), nn.Linear(3, 4, bias=False), nn.Linear(3, 99)
        self.again = nn.Linear(3, 4, bias=False)
        self.again.weight = self.tied.weight

    def forward(self, x):
        h = self.body(x)
        return self.tied(h) + self.again(h) + (self.head(h) if self.training else 0)


def test_what_only_training_needs_is_not_deployed():
    model = WithHead().train()
    model.body.requires_grad_(False)
    numbers = measures.parameters(model, torch.ones(1, 4)).to_series()
    assert numbers.to_dict() == {
        "total": 15 + 12 + 396,
        "trainable": 12 + 396,
        "deployed": 27,
        "deployed_trained": 12,
    }
    assert model.training
    assert measures.parameters(model).to_series().to_dict() == {"total": 423, "trainable": 408}


def timm_vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=0)


def hugging_face_vit():
    hf = pytest.importorskip("transformers")
    return hf.CLIPVisionModel(
        hf.CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        )
    )


@pytest.mark.parametrize(("make", "width"), [(timm_vit, 192), (hugging_face_vit, 64)])
def test_modules_of_other_libraries(make, width):
    model, x = make().eval(), torch.zeros(2, 3, 32, 32)
    one = measures.transformer_flops(17, width, 2) + 2 * 16 * 192 * width
    assert int(measures.flops(model, x).sum()) == pytest.approx(2 * one, rel=1e-6)
    numbers = measures.parameters(model, x).to_series()
    assert numbers["deployed"] == numbers["total"] == sum(p.numel() for p in model.parameters())
    assert measures.latency(model, x, warmup=1, repeats=3).attrs["batch"] == 2
    assert float(measures.peak_memory(model, x)) > 0
