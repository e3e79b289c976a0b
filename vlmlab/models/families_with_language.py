"""Families of language models, encoder-decoders and models that hand images to a language model.

All of Hugging Face. `base_model` is the model itself, or what a model with a head on top holds. Image towers
take pixel values, Q-Formers too; language towers take what the processor returns. What the cross-attention of
a BERT or GPT-2 looks at, image or text, the module does not tell: pass
family=dataclasses.replace(FAMILIES["HF BERT"], keys={"cross": "cls patch*"}).
"""

from collections.abc import Callable
from typing import Any

from . import site_paths as paths
from .family import Family, Words

# before transformers 4.52 the language model within another had its head with it, and towers were models
IMAGE_ID = "config.image_token_id|config.image_token_index"
SHOWN = Words("word*", "mask")
LLAMA = {"norm": "base_model.norm", "head": "lm_head"}
INNER = {
    "norm": "base_model.language_model.norm|language_model.model.norm|base_model.norm",
    "head": "lm_head|language_model.lm_head",
}


def t5_head(module: Any) -> Callable:
    """T5 1.0 shares the matrix of the head with the embedding and scales before it."""
    config = module.config
    scales = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)  # new in transformers 5
    scale = module.model_dim**-0.5 if scales else 1.0
    return lambda x: module.lm_head(x * scale)


LANGUAGE: dict[str, Family] = {
    "HF BERT": Family(
        "base_model.encoder.layer",
        paths.BERT,
        Words("cls word*", "mask"),
        "text",
        marks=("base_model.embeddings.word_embeddings",),
        attention={"attn": "attention", "cross": "crossattention"},
    ),
    "HF Qwen2-VL text": Family(
        "base_model.language_model.layers|base_model.layers",
        paths.LLAMA,
        Words("word*", "mask", image=IMAGE_ID),
        "text",
        marks=("base_model.visual|visual", IMAGE_ID),
        **INNER,
    ),
    "HF LLaMA": Family(
        "base_model.layers",
        paths.LLAMA,
        Words("sos word*", "mask"),
        "text",
        marks=("base_model.embed_tokens",),
        **LLAMA,
    ),
    "HF GPT-2": Family(
        "base_model.h",
        paths.GPT2,
        SHOWN,
        "text",
        marks=("base_model.wte",),
        attention={"attn": "attn", "cross": "crossattention"},
        norm="base_model.ln_f",
        head="lm_head",
    ),
    "HF T5 encoder": Family("encoder.block", paths.T5_ENCODER, SHOWN, "text", "encoder"),
    "HF T5 decoder": Family(
        "decoder.block",
        paths.T5_DECODER,
        Words("sos word*", "mask", "decoder_input_ids", "decoder_attention_mask"),
        "decoder",
        attention={"attn": "layer.0", "cross": "layer.1"},
        keys={"cross": SHOWN},
        norm="decoder.final_layer_norm",
        head=t5_head,
    ),
    "HF LLaVA image": Family(
        "base_model.vision_tower.encoder.layers|vision_tower.vision_model.encoder.layers",
        paths.HF_CLIP,
        forward="base_model.vision_tower",
    ),
    "HF Janus image": Family(
        "base_model.vision_model.encoder.layers",
        paths.HF_CLIP,
        "patch*",
        forward="base_model.vision_model",
        marks=("base_model.aligner",),
    ),
    "HF LLaVA or Janus text": Family(
        "base_model.language_model.layers|language_model.model.layers",
        paths.LLAMA,
        Words("sos word*", "mask", image=IMAGE_ID),
        "text",
        marks=(IMAGE_ID,),
        **INNER,
    ),
    "HF BLIP-2 image": Family(
        "vision_model.encoder.layers", paths.HF_CLIP, forward="vision_model", marks=("qformer",)
    ),
    "HF BLIP-2 Q-Former": Family(
        "qformer.encoder.layer",
        paths.QFORMER,
        "latent*",
        "qformer",
        "get_qformer_features",
        attention={"attn": "attention", "cross": "crossattention"},
        keys={"cross": "cls patch*"},
    ),
    "HF BLIP-2 Q-Former before a language model": Family(
        "qformer.encoder.layer",
        paths.QFORMER,
        "latent*",
        "qformer",
        "get_image_features",
        attention={"attn": "attention", "cross": "crossattention"},
        keys={"cross": "cls patch*"},
    ),
    "HF BLIP-2 text": Family(
        "language_model.model.decoder.layers",
        paths.OPT,
        Words("sos word*", "mask", image=IMAGE_ID),
        "text",
        marks=("qformer",),
        norm="language_model.model.decoder.final_layer_norm",
        head="language_model.lm_head",
    ),
}
