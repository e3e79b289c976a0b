"""What shapes tell, number by number, and how images are prepared, by every file that says so."""

import json
import re

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from vlmlab.models import pixels
from vlmlab.models.sizes import NEEDED, alike, gelu, hint, same, sizes_of
from vlmlab.models.weights import Weights

SIZES = {  # none of them what open_clip takes where nothing is said
    "embed_dim": 24,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 64, "layers": 3, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 12, "vocab_size": 60, "width": 48, "layers": 2, "mlp_ratio": 3.0},
}
with torch.device("meta"):
    STATE = CLIP(24, SIZES["vision_cfg"] | {"head_width": 16}, SIZES["text_cfg"] | {"heads": 4}).state_dict()


def weights(**change) -> Weights:
    named = {name.replace("__", "."): value for name, value in change.items()}
    return Weights("mine.pt", {k: v for k, v in (STATE | named).items() if v is not None})


def test_sizes_of_weights():
    assert sizes_of(weights()) == SIZES
    apart = {k if k.startswith(("visual.", "logit_")) else f"text.{k}": v for k, v in STATE.items()}
    assert sizes_of(Weights("mine.pt", apart)) == SIZES
    bare = {k: v for k, v in STATE.items() if "c_fc.bias" not in k}
    found = sizes_of(Weights("mine.pt", bare))
    assert found["vision_cfg"]["mlp_ratio"] == found["text_cfg"]["mlp_ratio"] == 4.0


DIMENSIONS = {
    "visual.proj": (64, 24),
    "visual.conv1.weight": (64, 3, 8, 8),
    "visual.positional_embedding": (10, 64),
    "text_projection": (48, 24),
    "ln_final.weight": (48,),
    "token_embedding.weight": (60, 48),
    "positional_embedding": (12, 48),
}


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_clip_vit_has_these_tensors_of_so_many_dimensions(name):
    shape = DIMENSIONS[name]
    assert set(NEEDED) == set(DIMENSIONS) and tuple(STATE[name].shape) == shape
    with pytest.raises(
        ValueError, match=rf"^mine.pt has no {name}; a CLIP ViT .*it holds \d+ tensors, as ln_"
    ):
        sizes_of(weights(**{name: None}))
    for wrong in ((*shape, 1), shape[:-1]):
        with pytest.raises(ValueError, match=re.escape(f"none of a CLIP ViT ({name}: {wrong});")):
            sizes_of(weights(**{name: torch.empty(wrong)}))


@pytest.mark.parametrize(("positions", "patches"), [(1, 0), (8, 7), (9, 8), (11, 10), (3, 2)])
def test_patches_are_a_square(positions, patches):
    place = {"visual.positional_embedding": torch.empty(positions, 64)}
    with pytest.raises(ValueError, match=rf"\({patches} positions of patches are no square\)"):
        sizes_of(weights(**place))


@pytest.mark.parametrize(
    ("config", "there"),
    [
        ({}, True),
        (
            {
                "text_cfg": {
                    "width": 64,
                    "layers": 2,
                    "mlp_ratio": 4.0,
                    "context_length": 77,
                    "vocab_size": 49408,
                }
            },
            True,
        ),
        ({"text_cfg": {"width": 64, "layers": 2, "heads": 3}}, True),  # shapes say no heads
        ({"text_cfg": {"width": 64, "layers": 3}}, False),
        ({"text_cfg": {"width": 64}}, False),
        *[
            ({"text_cfg": {"width": 64, "layers": 2, k: v}}, False)
            for k, v in (("mlp_ratio", 3.0), ("context_length", 76), ("vocab_size", 49407))
        ],
        *[
            ({"text_cfg": {"width": 64, "layers": 2, name: "x"}}, False)
            for name in ("timm_model_name", "hf_model_name")
        ],
        ({"multimodal_cfg": {}}, False),
    ],
)
def test_an_architecture_of_these_sizes(config, there):
    """What it leaves out is open_clip's: 77 tokens of 49,408, four times the width."""
    told = {"width": 64, "layers": 2, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408}
    assert same({"text_cfg": {"width": 64, "layers": 2}} | config, {"text_cfg": told}, "text_cfg") is there


def test_architectures_are_told_by_both_towers_and_the_joint_width(monkeypatch):
    changes = {
        "mine": {},
        "wider": {"embed_dim": 32},
        "deeper": {"vision_cfg": SIZES["vision_cfg"] | {"layers": 4}},
        "longer": {"text_cfg": SIZES["text_cfg"] | {"context_length": 13}},
        "twin": {"quick_gelu": True},
    }
    for name, change in changes.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, SIZES | change)
    assert set(alike(SIZES)) == {"mine", "twin"} and alike(SIZES)["twin"]["quick_gelu"]
    assert hint(weights()) == "; its sizes are those of mine or twin"
    assert hint(weights(**{"visual.proj": None})) == ""
    monkeypatch.delitem(open_clip.factory._MODEL_CONFIGS, "mine")
    monkeypatch.delitem(open_clip.factory._MODEL_CONFIGS, "twin")
    assert hint(weights()) == "" and (gelu(True), gelu(False)) == ("QuickGELU", "GELU")


# pixels


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, {"interpolation": "bicubic", "resize_mode": "squash"}),
        ({"resample": 2}, {"interpolation": "bilinear", "resize_mode": "squash"}),
        ({"resample": 3}, {"interpolation": "bicubic", "resize_mode": "squash"}),
        ({"do_center_crop": True}, {"interpolation": "bicubic", "resize_mode": "shortest"}),
        ({"do_center_crop": False, "image_mean": [1, 2, 3]}, {"mean": [1, 2, 3]}),
        ({"image_std": [1, 2, 3], "do_normalize": True}, {"std": [1, 2, 3]}),
        (
            {"image_mean": [1, 2, 3], "image_std": [1, 2, 3], "do_normalize": False},
            {"mean": (0, 0, 0), "std": (1, 1, 1)},
        ),
    ],
)
def test_what_an_image_processor_does(tmp_path, said, found):
    usual = {"interpolation": "bicubic", "resize_mode": "squash"}
    assert pixels.of_processor(tmp_path) is None
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": said}))
    assert pixels.of_processor(tmp_path) == usual | found
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"resample": 0}}))
    with pytest.raises(ValueError, match=r"processor_config.json resizes images by Pillow's filter 0"):
        pixels.of_processor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))  # comes first
    assert pixels.of_processor(tmp_path) == usual | found


HALF = {"mean": (0.5, 0.5, 0.5), "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({}, ({}, True)),
        ({"a": {}}, ({}, True)),
        ({"a": HALF | {"url": "x"}}, (HALF, True)),
        ({"a": HALF, "b": HALF | {"hf_hub": "y"}}, (HALF, True)),
        ({"a": HALF, "b": HALF | {"resize_mode": "squash"}}, ({}, False)),
        ({"a": HALF, "b": {}}, ({}, False)),
    ],
)
def test_published_weights_that_prepare_images_alike(monkeypatch, tags, found):
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "mine", tags)
    assert pixels.published("mine") == found


def test_pixels_are_kept_with_the_model_in_its_size():
    clip = CLIP(24, SIZES["vision_cfg"] | {"head_width": 16}, SIZES["text_cfg"] | {"heads": 4})
    usual = {"interpolation": "bicubic", "resize_mode": "shortest"}
    mean, std = list(open_clip.OPENAI_DATASET_MEAN), list(open_clip.OPENAI_DATASET_STD)
    assert pixels.kept(clip) == {"mean": mean, "std": std} | usual
    pixels.set_pixels(clip, {"mean": [0.1, 0.2, 0.3], "size": 224}, "here")
    assert clip.visual.preprocess_cfg["size"] == clip.visual.image_size == (24, 24)
    assert clip.visual.preprocess_cfg["mean"] == (0.1, 0.2, 0.3)
    pixels.set_pixels(clip, {"std": (0.5, 0.5, 0.5), "resize_mode": "squash"}, "here")  # beside what is there
    found = {"mean": [0.1, 0.2, 0.3], "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    assert pixels.kept(clip) == found == json.loads(json.dumps(found))
    with pytest.raises(ValueError, match=r"^here: mean must be three numbers.*expected are mean and std"):
        pixels.set_pixels(clip, {"mean": [1, 2]}, "here")
