"""Families of image and text towers: CLIP, SigLIP, CoCa, ViT in open_clip, timm and Hugging Face."""

from collections.abc import Callable
from typing import Any

from . import site_paths as paths
from .check_towers import pool_type
from .family import Family, Patches, Words, at, has

PLAIN = Words("word*", "last")


def timm_tokens(module: Any) -> str | Patches:
    """Prefix tokens of timm's ViT and what is like it, wherever it stands in the module."""
    trunk = at(module, "visual.trunk" if has(module, "visual.trunk") else "")
    stem, prefix = getattr(trunk, "embeds", trunk), getattr(trunk, "num_prefix_tokens", 0)
    cls, distill = (int(has(stem, name)) for name in ("cls_token", "dist_token"))
    counts = {"cls": cls, "distill": distill, "register": max(0, prefix - cls - distill)}
    named = [f"{role}:{n}" for role, n in counts.items() if n]
    layout = " ".join([*named, "patch*"])
    if stem is trunk:
        return layout
    return Patches(layout, "patch_valid", places="patch_coord", whole=True)  # NaFlexVit


def open_clip_words(module: Any) -> Words:
    """A text tower's tokens, read where its pooling says; CoCa appends its class token."""
    text = getattr(module, "text", module)
    if has(text, "cls_emb"):
        return Words("sos word* cls", "argmax")
    end = pool_type(text) or "argmax"
    eos_id = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
    return Words("sos word*" if end in ("argmax", "eos") else "word*", end, eos_id=eos_id)


def clip_words(module: Any) -> Words:
    """CLIP in Hugging Face: read at the first EOS, of old configurations (id 2) at the largest id."""
    config = getattr(module.config, "text_config", module.config)
    by_id = config.eos_token_id not in (None, 2)
    return Words("sos word*", "eos" if by_id else "argmax", eos_id=config.eos_token_id if by_id else None)


def vit_tokens(module: Any) -> str:
    """Class token, DeiT's distillation token and the registers of a Hugging Face ViT."""
    stem = at(module, "base_model.embeddings|embeddings")
    registers = stem.register_tokens.shape[1] if has(stem, "register_tokens") else 0
    distill = "distill " if has(stem, "distillation_token") else ""
    return f"cls {distill}{f'register:{registers} ' if registers else ''}patch*"


def cls_first(name: str) -> Callable[[Any], str | Patches]:
    """A class token where the embeddings have one: what tells CLIP's image tower from SigLIP's. SigLIP 2 in the
    form NaFlex takes patches of images of different sizes."""

    def tokens(module: Any) -> str | Patches:
        if has(module, f"{name}.position_embedding_size"):
            return Patches("patch*", "pixel_attention_mask", "spatial_shapes")
        return "cls patch*" if has(module, f"{name}.class_embedding") else "patch*"

    return tokens


OPEN_CLIP: dict[str, Family] = {
    "open_clip ViT": Family(
        "visual.transformer.resblocks",
        paths.OPEN_CLIP,
        forward="encode_image",
        marks=("visual.class_embedding",),
    ),
    "open_clip timm tower, post-norm": Family(
        "visual.trunk.blocks",
        paths.TIMM_POST_NORM,
        timm_tokens,
        forward="encode_image",
        block_types=("EvaBlockPostNorm", "ResPostBlock"),
    ),
    "open_clip timm tower": Family("visual.trunk.blocks", paths.TIMM, timm_tokens, forward="encode_image"),
    "open_clip text": Family(
        "transformer.resblocks",
        paths.OPEN_CLIP,
        open_clip_words,
        "text",
        "encode_text",
        marks=("token_embedding",),
    ),
    "open_clip text tower": Family(
        "text.transformer.resblocks", paths.OPEN_CLIP, open_clip_words, "text", "encode_text"
    ),
    "timm SAM image encoder": Family(
        "blocks", paths.TIMM_SAM, "patch*", marks=("blocks.0.window_size", "neck"), attention={}
    ),
    "timm ViT, post-norm": Family(
        "blocks", paths.TIMM_POST_NORM, timm_tokens, block_types=("EvaBlockPostNorm", "ResPostBlock")
    ),
    "timm ViT": Family("blocks", paths.TIMM, timm_tokens),
    "timm EfficientNet or MobileNet": Family(
        "blocks", paths.STAGES, "patch*", maps=True, marks=("conv_stem", "global_pool"), attention={}
    ),
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
        clip_words,
        "text",
        "get_text_features",
        marks=("visual_projection",),
    ),
    "HF SigLIP text": Family("text_model.encoder.layers", paths.HF_CLIP, PLAIN, "text", "get_text_features"),
    "HF CLIP image with projection": Family(
        "vision_model.encoder.layers", paths.HF_CLIP, cls_first("vision_model.embeddings")
    ),
    "HF CLIP text with projection": Family(
        "text_model.encoder.layers", paths.HF_CLIP, clip_words, "text", marks=("text_projection",)
    ),
    "HF CLIP or SigLIP image tower": Family(
        "base_model.encoder.layers",
        paths.HF_CLIP,
        cls_first("base_model.embeddings"),
        marks=("base_model.embeddings.patch_embedding",),
    ),
    "HF CLIP text tower": Family(
        "base_model.encoder.layers|text_model.encoder.layers",
        paths.HF_CLIP,
        clip_words,
        "text",
        marks=(
            "base_model.embeddings.token_embedding|text_model.embeddings.token_embedding",
            "base_model.eos_token_id|text_model.eos_token_id",
        ),
    ),
    "HF SigLIP text tower": Family(
        "base_model.encoder.layers|text_model.encoder.layers",
        paths.HF_CLIP,
        PLAIN,
        "text",
        marks=("base_model.embeddings.token_embedding|text_model.embeddings.token_embedding",),
    ),
    # base_model is the model itself, or what a model with a head on top holds
    "HF ViT or DeiT": Family(
        "base_model.layers|base_model.encoder.layer",
        paths.HF_VIT,
        vit_tokens,
        marks=("base_model.embeddings.cls_token", "base_model.embeddings.position_embeddings"),
    ),
    "HF DINO": Family(
        "base_model.encoder.layer|model.layer|layer",
        paths.DINO,
        vit_tokens,
        marks=("base_model.embeddings.cls_token|embeddings.cls_token",),
    ),
    "HF AIMv2 image tower": Family(
        "base_model.encoder.layers", paths.AIM, "patch*", marks=("base_model.embeddings.patch_embed",)
    ),
    "HF SAM image encoder": Family(
        "vision_encoder.layers",
        paths.HF_SAM,
        "patch*",
        forward="vision_encoder",
        marks=("vision_encoder.neck",),
        attention={},
    ),
}
PAIRS = OPEN_CLIP | HUGGING_FACE
