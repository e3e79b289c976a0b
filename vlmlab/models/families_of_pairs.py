"""Families of image and text towers: CLIP, SigLIP, CoCa, ViT in open_clip, timm and Hugging Face."""

from collections.abc import Callable
from typing import Any

from . import site_paths as paths
from .family import Family, Words, at, has

CAUSAL, PLAIN = Words("sos word*", "eos"), Words("word*", "last")


def timm_tokens(module: Any) -> str:
    """Prefix tokens of a timm VisionTransformer, wherever it stands in the module."""
    trunk = at(module, "visual.trunk" if has(module, "visual.trunk") else "")
    registers = trunk.num_prefix_tokens - (trunk.cls_token is not None)
    cls = "cls " if trunk.cls_token is not None else ""
    return f"{cls}{f'register:{registers} ' if registers else ''}patch*"


def coca_tokens(module: Any) -> Words:
    """CoCa's text tower appends its class token."""
    return Words("sos word* cls" if has(module, "text.cls_emb") else "sos word*", "eos")


def cls_first(name: str) -> Callable[[Any], str]:
    """A class token where the embeddings have one: what tells CLIP's image tower from SigLIP's."""

    def tokens(module: Any) -> str:
        return "cls patch*" if has(module, f"{name}.class_embedding") else "patch*"

    return tokens


OPEN_CLIP: dict[str, Family] = {
    "open_clip ViT": Family(
        "visual.transformer.resblocks",
        paths.OPEN_CLIP,
        forward="encode_image",
        marks=("visual.class_embedding",),
    ),
    "open_clip timm tower": Family("visual.trunk.blocks", paths.TIMM, timm_tokens, forward="encode_image"),
    "open_clip text": Family(
        "transformer.resblocks", paths.OPEN_CLIP, CAUSAL, "text", "encode_text", marks=("token_embedding",)
    ),
    "open_clip text tower, causal": Family(
        "text.transformer.resblocks",
        paths.OPEN_CLIP,
        coca_tokens,
        "text",
        "encode_text",
        marks=("text.attn_mask",),
    ),
    "open_clip text tower, SigLIP": Family(
        "text.transformer.resblocks", paths.OPEN_CLIP, PLAIN, "text", "encode_text"
    ),
    "timm ViT": Family("blocks", paths.TIMM, timm_tokens),
}
HUGGING_FACE: dict[str, Family] = {
    "HF CLIP or SigLIP image": Family(
        "vision_model.encoder.layers",
        paths.HF_CLIP,
        cls_first("vision_model.embeddings"),
        forward="get_image_features",
    ),
    "HF CLIP text": Family(
        "text_model.encoder.layers",
        paths.HF_CLIP,
        CAUSAL,
        "text",
        "get_text_features",
        marks=("visual_projection",),
    ),
    "HF SigLIP text": Family("text_model.encoder.layers", paths.HF_CLIP, PLAIN, "text", "get_text_features"),
    "HF CLIP image with projection": Family(
        "vision_model.encoder.layers", paths.HF_CLIP, cls_first("vision_model.embeddings")
    ),
    "HF CLIP text with projection": Family(
        "text_model.encoder.layers", paths.HF_CLIP, CAUSAL, "text", marks=("text_projection",)
    ),
    "HF CLIP or SigLIP image tower": Family(
        "base_model.encoder.layers",
        paths.HF_CLIP,
        cls_first("base_model.embeddings"),
        marks=("base_model.embeddings.patch_embedding",),
    ),
    "HF CLIP text tower": Family(
        "base_model.encoder.layers",
        paths.HF_CLIP,
        CAUSAL,
        "text",
        marks=("base_model.embeddings.token_embedding", "base_model.eos_token_id"),
    ),
    "HF SigLIP text tower": Family(
        "base_model.encoder.layers",
        paths.HF_CLIP,
        PLAIN,
        "text",
        marks=("base_model.embeddings.token_embedding",),
    ),
    # base_model is the model itself, or what a model with a head on top holds
    "HF ViT": Family("base_model.layers", paths.HF_VIT, marks=("base_model.embeddings.cls_token",)),
}
PAIRS = OPEN_CLIP | HUGGING_FACE
