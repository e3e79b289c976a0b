"""Settings of transformers' CLIP and SigLIP in open_clip's words, number by number."""

import copy
import json

import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from vlmlab.models import translate
from vlmlab.models.files import SIGLIP_PIXELS, build
from vlmlab.models.load import load

TOWER = {"num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TOWER | {"hidden_size": 64, "intermediate_size": 100, "image_size": 24, "patch_size": 8}
TEXT = TOWER | {"hidden_size": 48, "intermediate_size": 96, "max_position_embeddings": 20}


def clip(vision=(), text=(), act="quick_gelu"):
    words = TEXT | {"vocab_size": 90, "hidden_act": act, "eos_token_id": 89} | dict(text)
    pixels = VISION | {"hidden_act": act} | dict(vision)
    return CLIPConfig(text_config=words, vision_config=pixels, projection_dim=24)


def siglip(vision=(), text=()):
    words = TEXT | {"hidden_size": 64, "vocab_size": 90} | dict(text)
    return SiglipConfig(text_config=words, vision_config=VISION | dict(vision))


def test_settings_of_clip():
    assert translate.model_cfg(clip()) == {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {
            "width": 64,
            "layers": 2,
            "mlp_ratio": 100 / 64,
            "image_size": 24,
            "patch_size": 8,
            "head_width": 32,
        },
        "text_cfg": {
            "width": 48,
            "layers": 2,
            "mlp_ratio": 2.0,
            "context_length": 20,
            "vocab_size": 90,
            "heads": 2,
        },
    }


def test_settings_of_siglip():
    found = translate.model_cfg(siglip())
    assert set(found) == {"embed_dim", "vision_cfg", "text_cfg"} and found["embed_dim"] == 64
    both = {"width": 64, "layers": 2, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6}}
    pixels = {"image_size": 24, "patch_size": 8, "head_width": 32}
    assert found["vision_cfg"] == both | pixels | {"mlp_ratio": 100 / 64}
    words = {"context_length": 20, "vocab_size": 90, "heads": 2, "mlp_ratio": 1.5}
    words |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    assert found["text_cfg"] == both | words


@pytest.mark.parametrize(
    ("eos", "said"),
    [(2, {}), (89, {}), (3, {"pool_type": "eos", "eos_id": 3}), (88, {"pool_type": "eos", "eos_id": 88})],
)
def test_where_a_text_of_clip_ends(eos, said):
    text = translate.model_cfg(clip(text={"eos_token_id": eos}))["text_cfg"]
    assert {k: v for k, v in text.items() if k in ("pool_type", "eos_id")} == said


TANH = {"approximate": "tanh"}
ACTIVATIONS = {
    "quick_gelu": (True, None),
    "gelu": (False, None),
    "gelu_new": (False, TANH),
    "gelu_pytorch_tanh": (False, TANH),
}


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_activations(act):
    quick, kwargs = ACTIVATIONS[act]
    found = translate.model_cfg(clip(act=act))
    assert found["quick_gelu"] is quick
    for tower in ("vision_cfg", "text_cfg"):
        assert found[tower].get("act_kwargs") == kwargs


@pytest.mark.parametrize(
    ("image", "words", "message"),
    [
        (
            "gelu",
            "quick_gelu",
            "the activations are gelu and quick_gelu; towers run one of quick_gelu, gelu, ",
        ),
        ("quick_gelu", "gelu", "the activations are gelu and quick_gelu;"),
        ("relu", "relu", "the activations are relu;"),
        ("gelu", "relu", "the activations are gelu and relu;"),
        ("relu", "gelu", "the activations are gelu and relu;"),
    ],
)
def test_both_towers_have_one_activation_that_towers_run(image, words, message):
    with pytest.raises(ValueError, match=message):
        translate.model_cfg(clip({"hidden_act": image}, {"hidden_act": words}))


@pytest.mark.parametrize(("width", "neurons"), [(64, 100), (11, 15), (22, 30), (44, 60), (64, 256)])
def test_a_ratio_gives_the_number_of_neurons_back(width, neurons):
    """open_clip rounds width * ratio down; 11 * (15 / 11) is a little less than 15."""
    config = clip(text={"hidden_size": width, "intermediate_size": neurons, "num_attention_heads": 1})
    about = translate.model_cfg(config)
    assert about["text_cfg"]["mlp_ratio"] == pytest.approx(neurons / width, rel=1e-12)
    assert build(about).transformer.resblocks[1].mlp.c_fc.out_features == neurons


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-3])
def test_norms_divide_as_the_library_s(kind, eps):
    config = (clip if kind == "clip" else siglip)({"layer_norm_eps": eps}, {"layer_norm_eps": eps})
    about = translate.model_cfg(config)
    assert about["text_cfg"].get("norm_kwargs") == (None if eps == 1e-5 else {"eps": eps})
    module = (build if kind == "clip" else translate.siglip)(about)
    assert {m.eps for m in module.modules() if isinstance(m, nn.LayerNorm)} == {eps}


def test_a_siglip_is_built_with_its_sizes():
    module = translate.siglip(translate.model_cfg(siglip()))
    trunk = module.visual.trunk
    assert (len(trunk.blocks), trunk.embed_dim, trunk.blocks[0].attn.num_heads) == (2, 64, 2)
    assert trunk.patch_embed.grid_size == (3, 3) and trunk.cls_token is None and trunk.global_pool == "map"
    assert not list(trunk.head.parameters()) and not list(module.visual.head.parameters())
    acts = [m for m in trunk.modules() if isinstance(m, nn.GELU)]
    assert len(acts) == 3 and {m.approximate for m in acts} == {"tanh"}
    assert module.logit_bias.item() == -10 and len(module.text.transformer.resblocks) == 2


def test_images_of_a_folder_without_a_word_on_them(tmp_path):
    """SigLIP's are squashed to a half and a half, CLIP's cropped to its own mean."""
    both = {"clip": CLIPModel(clip(text={"vocab_size": 49408})), "siglip": SiglipModel(siglip())}
    for kind, model in both.items():
        model.save_pretrained(tmp_path / kind)
        words = {"tokenizer": lambda texts: torch.zeros(len(texts), 20, dtype=torch.long)}
        with pytest.warns(UserWarning, match="no preprocessor_config.json: assumed mean"):
            vlm = load(tmp_path / kind, device="cpu", **words)
        said = vlm.clip.visual.preprocess_cfg
        if kind == "siglip":
            half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}
            assert half == SIGLIP_PIXELS and {k: said[k] for k in half} == half
        else:
            assert vlm.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
            assert said["resize_mode"] == "shortest"


def test_pixels_that_are_given_are_not_assumed(tmp_path, recwarn):
    CLIPModel(clip(text={"vocab_size": 49408})).save_pretrained(tmp_path)
    vlm = load(tmp_path, device="cpu", pixels={"mean": (0.1, 0.2, 0.3)})
    assert not [w for w in recwarn if "assumed" in str(w.message)]
    assert vlm.mean == (0.1, 0.2, 0.3) and vlm.source["pixels"]["mean"] == [0.1, 0.2, 0.3]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.4, 0.4]}))
    vlm = load(tmp_path, device="cpu")
    assert vlm.mean == (0.4, 0.4, 0.4) and "pixels" not in vlm.source
    assert not [w for w in recwarn if "assumed" in str(w.message)]


def test_the_same_names_of_tensors_come_back_once():
    """Every tensor of transformers has a name in open_clip, in the model that is built."""
    for config, kind, make in ((clip(), CLIPModel, build), (siglip(), SiglipModel, translate.siglip)):
        state = copy.deepcopy(kind(config).state_dict())
        state = {k: v for k, v in state.items() if not k.endswith("position_ids")}
        own, found = make(translate.model_cfg(config)).state_dict(), translate.translated(state)
        assert found.keys() == {k for k in own if k != "attn_mask"}
        assert {k for k, v in found.items() if v.shape != own[k].shape} <= {"logit_scale", "logit_bias"}
