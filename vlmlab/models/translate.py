"""Weights and settings of CLIP and SigLIP as transformers keeps them, in open_clip's names."""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
TRUNK_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
WORDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
}
CLIP_NAMES = WORDS | {
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "visual_projection.weight": "visual.proj",
}
SIGLIP_NAMES = {old: f"text.{new}" for old, new in WORDS.items()} | {
    "text_model.head": "text.text_projection",
    "vision_model.embeddings.patch_embedding": "visual.trunk.patch_embed.proj",
    "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
    "vision_model.post_layernorm": "visual.trunk.norm",
    "vision_model.head.probe": "visual.trunk.attn_pool.latent",
    "vision_model.head.attention.out_proj": "visual.trunk.attn_pool.proj",
    "vision_model.head.layernorm": "visual.trunk.attn_pool.norm",
    "vision_model.head.mlp.fc1": "visual.trunk.attn_pool.mlp.fc1",
    "vision_model.head.mlp.fc2": "visual.trunk.attn_pool.mlp.fc2",
}
ACTIVATIONS = {  # transformers' name -> QuickGELU or not, keywords of GELU
    "quick_gelu": (True, None),
    "gelu": (False, None),
    "gelu_pytorch_tanh": (False, {"approximate": "tanh"}),
    "gelu_new": (False, {"approximate": "tanh"}),
}
LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def is_of_transformers(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of transformers' CLIP or SigLIP."""
    return any(k.startswith(("text_model.", "vision_model.")) for k in state)


def translated(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under open_clip's names and in its shapes; those without a name there keep their own."""
    siglip = "vision_model.head.probe" in state
    names, found = SIGLIP_NAMES if siglip else CLIP_NAMES, {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if layer := LAYER.fullmatch(name):
            tower, number, part, kind = layer.groups()
            root, table, fused = home(siglip, tower)
            if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                joined.setdefault(f"{root}.{number}.{fused}{kind}", {})[part] = value
                continue
            found[f"{root}.{number}.{table.get(part, part)}.{kind}"] = value
        elif name.startswith("vision_model.head.attention.in_proj_") and siglip:
            q, kv = value.split([len(value) // 3, len(value) // 3 * 2])
            kind = name.rpartition("_")[2]
            found |= {f"visual.trunk.attn_pool.{to}.{kind}": x for to, x in (("q", q), ("kv", kv))}
        else:
            whole, (stem, _, kind) = names.get(name), name.rpartition(".")
            new = whole or (f"{names[stem]}.{kind}" if stem in names else name)
            found[new] = shaped(new, value)
    for name, parts in joined.items():
        found[name] = torch.cat([parts[k] for k in sorted(parts, key=ORDER.index)])
    return found


ORDER = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


def home(siglip: bool, tower: str) -> tuple[str, dict[str, str], str]:
    """Where a tower's blocks stand, the names in them, and how that of the joint projection begins."""
    if not siglip:
        return ("visual." if tower == "vision" else "") + "transformer.resblocks", BLOCK, "attn.in_proj_"
    if tower == "text":
        return "text.transformer.resblocks", BLOCK, "attn.in_proj_"
    return "visual.trunk.blocks", TRUNK_BLOCK, "attn.qkv."


def shaped(name: str, value: Tensor) -> Tensor:
    """open_clip multiplies by projections from the right; timm's positions have a batch dimension."""
    if name in ("visual.proj", "text_projection"):
        return value.T
    return value[None] if name == "visual.trunk.pos_embed" else value


def model_cfg(config: Any) -> dict:
    """open_clip's model_cfg of transformers' CLIPConfig or SiglipConfig. ValueError for what it cannot say."""
    vision, text = config.vision_config, config.text_config
    quick, kwargs = activation(config)
    words = tower(text, kwargs) | {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "heads": text.num_attention_heads,
    }
    pixels = tower(vision, kwargs) | {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
    }
    if config.model_type == "siglip":
        words |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
        return {"embed_dim": vision.hidden_size, "vision_cfg": pixels, "text_cfg": words}
    if text.eos_token_id not in (2, text.vocab_size - 1):  # 2 is an old mistake: the largest id is read
        words |= {"pool_type": "eos", "eos_id": text.eos_token_id}
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": quick,
        "vision_cfg": pixels,
        "text_cfg": words,
    }


def activation(config: Any) -> tuple[bool, dict | None]:
    """QuickGELU or not, and the keywords of GELU."""
    named = {config.vision_config.hidden_act, config.text_config.hidden_act}
    if len(named) > 1 or not named <= ACTIVATIONS.keys():
        raise ValueError(
            f"the activations are {' and '.join(sorted(named))}; towers run one of {', '.join(ACTIVATIONS)} "
            "(capture takes the module as it is)"
        )
    return ACTIVATIONS[named.pop()]


def tower(config: Any, act_kwargs: dict | None) -> dict:
    """What both towers say."""
    ratio = config.intermediate_size / config.hidden_size
    if int(config.hidden_size * ratio) != config.intermediate_size:
        ratio = math.nextafter(ratio, math.inf)  # open_clip rounds down
    found = {"width": config.hidden_size, "layers": config.num_hidden_layers, "mlp_ratio": ratio}
    if config.layer_norm_eps != 1e-5:
        found["norm_kwargs"] = {"eps": config.layer_norm_eps}
    return found | ({"act_kwargs": act_kwargs} if act_kwargs else {})


def siglip(config: dict) -> nn.Module:
    """open_clip's SigLIP of any size: its text tower beside a VisionTransformer of timm."""
    import timm
    from open_clip.model import CustomTextCLIP
    from open_clip.timm_model import TimmModel

    vision = config["vision_cfg"]
    small = {
        "width": 32,
        "layers": 1,
        "head_width": 32,
        "image_size": 8,
        "patch_size": 8,
    }  # its place is taken
    clip = CustomTextCLIP(config["embed_dim"], small, config["text_cfg"], init_logit_bias=-10)
    act = functools.partial(nn.GELU, **vision.get("act_kwargs", {}))
    clip.visual = TimmModel("test_vit", config["embed_dim"], vision["image_size"], pool="", proj="none")
    clip.visual.trunk = timm.models.VisionTransformer(
        img_size=vision["image_size"],
        patch_size=vision["patch_size"],
        embed_dim=vision["width"],
        depth=vision["layers"],
        num_heads=vision["width"] // vision["head_width"],
        mlp_ratio=vision["mlp_ratio"],
        norm_layer=functools.partial(nn.LayerNorm, **vision.get("norm_kwargs", {})),
        act_layer=act,
        class_token=False,
        global_pool="map",
        num_classes=0,
    )
    clip.visual.trunk.attn_pool.mlp.act = act()
    return clip
