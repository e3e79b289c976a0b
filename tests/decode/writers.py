"""Small random models of every family that decoding knows, with inputs padded on the left where a text is short."""

import dataclasses
import inspect
from collections.abc import Callable

import family_models
import torch
from family_models import CASES, built, of_transformers, pixels, text_like
from torch import nn

from vlmlab.decode import Dola

NEW = 8  # tokens
STATIC = Dola(contrast_layer=2, fusion_strength=0)
BY_NAME = {case.name: case for case in CASES}
LEFT = ("sos word:3 patch:16 word:3 eos", "pad:2 sos word:3 patch:16 word eos")
TEXTS = ("sos word:6 eos", "pad:3 sos word:3 eos")
BLIP2 = ("patch:4 word:7 eos", "pad:3 patch:4 word:4 eos")


def two(layouts: tuple[str, ...]) -> dict:
    """Token ids and mask of two texts with such layouts."""
    return {k: v[:2] for k, v in text_like((*layouts, layouts[0])).items()}


def with_pixels(layouts: tuple[str, ...]) -> dict:
    return {**two(layouts), "pixel_values": pixels()[:2]}


def qwen() -> dict:
    data = family_models.qwen2_vl()
    rows = torch.tensor([0, 2])  # that of four patches each; the second is padded on the left
    patches = torch.cat([data["pixel_values"][:16], data["pixel_values"][-16:]])
    (kind,) = of_transformers("Qwen2VLForConditionalGeneration")
    takes = inspect.signature(kind.forward).parameters  # kinds of tokens since version 5
    found = {k: v[rows] for k, v in data.items() if k != "pixel_values" and k in takes}
    return {**found, "pixel_values": patches}


def idefics() -> nn.Module:
    kind, about = of_transformers("IdeficsForVisionText2Text", "IdeficsConfig")
    vision = {"embed_dim": 32, "image_size": 32, "intermediate_size": 64, "patch_size": 8}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    llama = {k: v for k, v in family_models.LLAMA.items() if k != "num_key_value_heads"}
    gates = {"alpha_initializer": "ones", "alpha_type": "float"}
    return kind(about(**llama, **gates, vision_config=vision, additional_vocab_size=2))


def idefics_inputs() -> dict:
    texts = two(TEXTS)
    images = torch.ones(*texts["input_ids"].shape, 1)
    return {**texts, "pixel_values": pixels()[:2, None], "image_attention_mask": images}


@dataclasses.dataclass
class Written:
    """A model that writes: build, its inputs for two texts, how many new words its output begins with."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict]


def known(name: str, inputs: Callable[[], dict]) -> Written:
    return Written(name, lambda: built(BY_NAME[name]), inputs)


WRITERS = [
    known("HF LLaMA with head", lambda: two(TEXTS)),
    known("HF GPT-2", lambda: two(TEXTS)),
    known("HF T5", lambda: two(TEXTS[:1] * 2)),
    known("HF LLaVA", lambda: with_pixels(LEFT)),
    known("HF Janus", lambda: with_pixels(LEFT)),
    known("HF Qwen2-VL", qwen),
    known("HF BLIP-2", lambda: with_pixels(BLIP2)),
    Written("HF IDEFICS", lambda: built(family_models.Case("HF IDEFICS", idefics, {})), idefics_inputs),
]


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def plain(model, inputs, **kwargs):
    """The call of transformers that asks its processors."""
    from transformers import GenerationMixin

    skip = {"guidance_scale": None} if type(model).__name__.startswith("Janus") else {}
    call = GenerationMixin.generate if skip else type(model).generate
    return call(model, **inputs, **skip, max_new_tokens=NEW, **kwargs)
