"""Families: where the models of other libraries keep what vlmlab looks at, as data.

A family describes one tower of a module that vlmlab did not load itself. `FAMILIES` is the list of those it
knows; the first whose paths a module has is used. A family for a module of one's own is passed to
`vlmlab.capture(..., family=...)`:

    Family("layers", {"resid.pre": ("", "in"), "resid.post": ("", "out"), "mlp.out": ("mlp", "out")},
           tokens="cls patch*")
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Path = tuple[str, str]  # (submodule path inside a block, "in" for its first input or "out" for its output)
Layouts = str | Mapping[int, str]


@dataclasses.dataclass(frozen=True)
class Family:
    """How to find one tower's blocks, its sites, and which token is which.

    blocks: path of the list of blocks, as in "vision_model.encoder.layers".
    sites: site -> (submodule path inside a block, "in" or "out"); the empty path is the block itself.
    Attention (q, k, v, z, probs) needs no entry: it is read where torch's kernel is called.
    tokens: layout of what enters a block, "cls patch*" or "sos word*"; {first block: layout} where tokens
    appear on the way; or a function of the module that says so.
    kind: "image" or "text". forward: name of the method that runs this tower on a batch and returns its
    features; "" calls the module.
    end: where a text ends, at the token called eos: "eos" the largest id, as in CLIP; "mask" the last
    token that the attention mask shows; "last" the last one; "" texts have no marked end.
    batch_first: False where blocks take (token, batch, width).
    marks: further paths that a module must have, where blocks alone do not tell families apart.
    """

    blocks: str
    sites: Mapping[str, Path]
    tokens: Layouts | Callable[[Any], Layouts] = "cls patch*"
    kind: str = "image"
    forward: str = ""
    end: str = ""
    batch_first: bool = True
    marks: tuple[str, ...] = ()


RESIDUAL: dict[str, Path] = {"resid.pre": ("", "in"), "resid.post": ("", "out")}
OPEN_CLIP_SITES = RESIDUAL | {
    "resid.mid": ("ln_2", "in"),
    "attn.out": ("ls_1", "out"),  # behind the layer scale, the identity in CLIP
    "mlp.act": ("mlp.gelu", "out"),
    "mlp.out": ("ls_2", "out"),
}
# what dropping paths or scaling does not change in evaluation mode is read behind it: what is added
TIMM_SITES = RESIDUAL | {
    "resid.mid": ("norm2", "in"),
    "attn.out": ("drop_path1", "out"),
    "mlp.act": ("mlp.act", "out"),
    "mlp.out": ("drop_path2", "out"),
}
HF_CLIP_SITES = RESIDUAL | {
    "resid.mid": ("layer_norm2", "in"),
    "attn.out": ("self_attn", "out"),
    "mlp.act": ("mlp.activation_fn", "out"),
    "mlp.out": ("mlp", "out"),
}
HF_VIT_SITES = RESIDUAL | {
    "resid.mid": ("layernorm_after", "in"),
    "attn.out": ("attention", "out"),
    "mlp.act": ("mlp.activation_fn", "out"),
    "mlp.out": ("mlp", "out"),
}
# norms stand behind the sums here: mid = LN(pre + attn.out), post = LN(mid + mlp.out)
BERT_SITES = RESIDUAL | {
    "resid.mid": ("attention.output.LayerNorm", "out"),
    "attn.out": ("attention.output.dropout", "out"),
    "mlp.act": ("intermediate", "out"),
    "mlp.out": ("output.dropout", "out"),
}
# the neurons of a gated MLP are what its last projection reads
LLAMA_SITES = RESIDUAL | {
    "resid.mid": ("post_attention_layernorm", "in"),
    "attn.out": ("self_attn", "out"),
    "mlp.act": ("mlp.down_proj", "in"),
    "mlp.out": ("mlp", "out"),
}


def has(module: Any, path: str) -> bool:
    """Whether a module has an attribute at this path."""
    for name in path.split("."):
        if getattr(module, name, None) is None:
            return False
        module = getattr(module, name)
    return True


def at(module: Any, path: str) -> Any:
    """The attribute at this path; the empty path is the module. ValueError lists what there is instead."""
    for name in filter(None, path.split(".")):
        if not hasattr(module, name):
            there = ", ".join(child for child, _ in module.named_children()) or "nothing"
            raise ValueError(
                f"{type(module).__name__} has no {name!r} (path {path!r} of its family); it has {there}"
            )
        module = getattr(module, name)
    return module


def timm_tokens(module: Any) -> str:
    """Prefix tokens of a timm VisionTransformer, wherever it stands in the module."""
    trunk = at(module, "visual.trunk" if has(module, "visual.trunk") else "")
    registers = trunk.num_prefix_tokens - (trunk.cls_token is not None)
    cls = "cls " if trunk.cls_token is not None else ""
    return f"{cls}{f'register:{registers} ' if registers else ''}patch*"


def coca_tokens(module: Any) -> str:
    """CoCa's text tower appends its class token."""
    return "sos word* cls" if has(module, "text.cls_emb") else "sos word*"


def cls_first(name: str) -> Callable[[Any], str]:
    """A class token where the embeddings have one: what tells CLIP's image tower from SigLIP's."""

    def tokens(module: Any) -> str:
        return "cls patch*" if has(module, f"{name}.class_embedding") else "patch*"

    return tokens


FAMILIES: dict[str, Family] = {
    "open_clip ViT": Family(
        "visual.transformer.resblocks",
        OPEN_CLIP_SITES,
        forward="encode_image",
        marks=("visual.class_embedding",),
    ),
    "open_clip timm tower": Family("visual.trunk.blocks", TIMM_SITES, timm_tokens, forward="encode_image"),
    "open_clip text": Family(
        "transformer.resblocks",
        OPEN_CLIP_SITES,
        "sos word*",
        "text",
        "encode_text",
        end="eos",
        marks=("token_embedding",),
    ),
    "open_clip text tower, causal": Family(
        "text.transformer.resblocks",
        OPEN_CLIP_SITES,
        coca_tokens,
        "text",
        "encode_text",
        end="eos",
        marks=("text.attn_mask",),
    ),
    "open_clip text tower, SigLIP": Family(
        "text.transformer.resblocks", OPEN_CLIP_SITES, "word*", "text", "encode_text", end="last"
    ),
    "timm ViT": Family("blocks", TIMM_SITES, timm_tokens),
    "HF CLIP or SigLIP image": Family(
        "vision_model.encoder.layers",
        HF_CLIP_SITES,
        cls_first("vision_model.embeddings"),
        forward="get_image_features",
    ),
    "HF CLIP text": Family(
        "text_model.encoder.layers",
        HF_CLIP_SITES,
        "sos word*",
        "text",
        "get_text_features",
        end="eos",
        marks=("visual_projection",),
    ),
    "HF SigLIP text": Family(
        "text_model.encoder.layers", HF_CLIP_SITES, "word*", "text", "get_text_features", end="last"
    ),
    "HF CLIP image with projection": Family(
        "vision_model.encoder.layers", HF_CLIP_SITES, cls_first("vision_model.embeddings")
    ),
    "HF CLIP text with projection": Family(
        "text_model.encoder.layers", HF_CLIP_SITES, "sos word*", "text", end="eos", marks=("text_projection",)
    ),
    "HF CLIP or SigLIP image tower": Family(
        "base_model.encoder.layers",
        HF_CLIP_SITES,
        cls_first("base_model.embeddings"),
        marks=("base_model.embeddings.patch_embedding",),
    ),
    "HF CLIP text tower": Family(
        "base_model.encoder.layers",
        HF_CLIP_SITES,
        "sos word*",
        "text",
        end="eos",
        marks=("base_model.embeddings.token_embedding", "base_model.eos_token_id"),
    ),
    "HF SigLIP text tower": Family(
        "base_model.encoder.layers",
        HF_CLIP_SITES,
        "word*",
        "text",
        end="last",
        marks=("base_model.embeddings.token_embedding",),
    ),
    # base_model is the model itself, or what a model with a head on top holds
    "HF ViT": Family("base_model.layers", HF_VIT_SITES, marks=("base_model.embeddings.cls_token",)),
    "HF BERT": Family("base_model.encoder.layer", BERT_SITES, "cls word*", "text", end="mask"),
    "HF LLaMA": Family(
        "base_model.layers", LLAMA_SITES, "sos word*", "text", end="mask", marks=("base_model.embed_tokens",)
    ),
}


def fits(module: Any, family: Family) -> bool:
    """Whether a module has all the paths of a family."""
    if not all(has(module, path) for path in (family.blocks, *family.marks, *filter(None, [family.forward]))):
        return False
    blocks = at(module, family.blocks)
    paths = {path for path, _ in family.sites.values() if path}
    return hasattr(blocks, "__len__") and len(blocks) > 0 and all(has(blocks[0], path) for path in paths)


def families_of(module: Any) -> dict[str, Family]:
    """The towers of a module, {"image": Family, "text": Family}; ValueError when none is known."""
    found: dict[str, Family] = {}
    for family in FAMILIES.values():
        if family.kind not in found and fits(module, family):
            found[family.kind] = family
    if not found:
        raise ValueError(
            f"{type(module).__name__} is of no family that vlmlab knows "
            f"({', '.join(FAMILIES)}); describe its blocks with a vlmlab.models.families.Family "
            "and pass family="
        )
    return found
