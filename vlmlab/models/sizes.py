"""What the shapes of weights say of their model, and which of open_clip's architectures have these sizes."""

from collections.abc import Mapping

import open_clip
from torch import Tensor

from .weights import Weights

NEEDED = {  # name -> number of dimensions
    "visual.proj": 2,
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "text_projection": 2,
    "ln_final.weight": 1,
    "token_embedding.weight": 2,
    "positional_embedding": 2,
}
NAMED = "name the architecture: load('ViT-B-16-quickgelu', pretrained=path)"


def sizes_of(weights: Weights) -> dict:
    """open_clip's model_cfg of a CLIP ViT, as far as shapes tell. ValueError for another model."""
    state = {k.removeprefix("text."): v for k, v in weights.state.items()}
    lacks = [k for k in NEEDED if k not in state]
    if lacks:
        raise ValueError(
            f"{weights} has no {', '.join(lacks)}; a CLIP ViT in OpenAI's naming is expected, or {NAMED}; "
            f"{weights.some()} (capture takes any module as it is)"
        )
    wrong = [f"{k}: {tuple(state[k].shape)}" for k, n in NEEDED.items() if state[k].ndim != n]
    patches = len(state["visual.positional_embedding"]) - 1 if not wrong else 0
    grid = round(max(patches, 0) ** 0.5)
    if wrong or grid**2 != patches or not grid:
        what = ", ".join(wrong) or f"{patches} positions of patches are no square"
        raise ValueError(f"{weights} has shapes that are none of a CLIP ViT ({what}); {NAMED}")
    conv = state["visual.conv1.weight"]
    return {
        "embed_dim": state["text_projection"].shape[1],
        "vision_cfg": {
            "image_size": grid * conv.shape[-1],
            "patch_size": conv.shape[-1],
            **blocks(state, "visual.", conv.shape[0]),
        },
        "text_cfg": {
            "context_length": len(state["positional_embedding"]),
            "vocab_size": len(state["token_embedding.weight"]),
            **blocks(state, "", len(state["ln_final.weight"])),
        },
    }


def blocks(state: Mapping[str, Tensor], tower: str, width: int) -> dict:
    """Width, number and MLP of a tower's blocks."""
    root = f"{tower}transformer.resblocks."
    mlp = state.get(f"{root}0.mlp.c_fc.bias")
    layers = len({k.removeprefix(root).split(".")[0] for k in state if k.startswith(root)})
    return {"width": width, "layers": layers, "mlp_ratio": len(mlp) / width if mlp is not None else 4.0}


def alike(sizes: dict) -> dict[str, dict]:
    """open_clip's architectures of these sizes, name -> model_cfg."""
    found = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if all(same(config, sizes, part) for part in ("vision_cfg", "text_cfg")):
            found |= {name: config} if config["embed_dim"] == sizes["embed_dim"] else {}
    return found


def same(config: dict, sizes: dict, part: str) -> bool:
    """Whether an architecture's tower has these sizes; only open_clip's own transformers are told by them."""
    tower = {"mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408} | config[part]
    own = not {"timm_model_name", "hf_model_name"} & tower.keys() and "multimodal_cfg" not in config
    return own and all(tower.get(k) == v for k, v in sizes[part].items())


def hint(weights: Weights) -> str:
    """Architectures that have the sizes of these weights, for messages."""
    try:
        near = alike(sizes_of(weights))
    except ValueError:
        return ""
    return f"; its sizes are those of {' or '.join(near)}" if near else ""


def gelu(quick: bool) -> str:
    return "QuickGELU" if quick else "GELU"
