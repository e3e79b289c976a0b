"""Modules that a caller hands over: unwrapped, and copied into open_clip's where another library made them."""

from pathlib import Path

import torch
from torch import nn

from . import translate
from .files import Described, build, fit_weights, made
from .sizes import sizes_of
from .weights import Weights, is_openai, plain

PACKED = "it is a TorchScript module, whose code is fixed; load the file itself, load('ViT-B-16.pt')"


def unwrapped(module: nn.Module) -> nn.Module:
    """The model within DataParallel and torch.compile. ValueError for LoRA's and TorchScript's."""
    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            break
    name = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(f"{name} cannot be taken over: {PACKED}")
    lora = next((n for n, _ in module.named_parameters() if "lora_" in n), None)
    if lora or name.startswith("Peft"):
        raise ValueError(
            f"{name} is wrapped by LoRA ({lora or 'peft'}); hand over what model.merge_and_unload() returns"
        )
    if next(module.parameters(), None) is None:
        raise ValueError(f"{name} has no parameters; it is no model")
    return module


def copied(module: nn.Module, name: str) -> nn.Module:
    """An open_clip module as it is, or the copy in open_clip of a CLIP of transformers or of OpenAI's package.

    ValueError for another module, and for an open_clip one in half precision.
    """
    config = getattr(module, "config", None)
    if getattr(config, "model_type", None) in ("clip", "siglip") and hasattr(config, "vision_config"):
        make = translate.siglip if config.model_type == "siglip" else build
        about = Described(Path(name), translate.model_cfg(config), make, None, ())
        clip = made(about, Weights(Path(name), translate.translated(plain(module.state_dict()))))
        about.prepare(clip, {})
        return clip
    if not hasattr(module, "visual") or not hasattr(module, "logit_scale"):
        raise ValueError(
            f"{name} is no model that load knows; a CLIP or CustomTextCLIP of open_clip, a CLIPModel or "
            "SiglipModel of transformers, or a model of transformers that generates is expected (capture takes any "
            "module as it is)"
        )
    if is_openai(module.state_dict()) and not hasattr(module, "output_dict"):
        return of_openai(module, name)
    half = {p.dtype for p in module.parameters() if p.is_floating_point() and p.dtype != torch.float32}
    if half:
        raise ValueError(
            f"{name} has weights in {', '.join(sorted(str(d).removeprefix('torch.') for d in half))}; hand over "
            "module.float(), precision='amp_bf16' computes in half precision"
        )
    return module


def of_openai(module: nn.Module, name: str) -> nn.Module:
    """A copy of a CLIP of OpenAI's package or of one built like it; its modules say activation and heads."""
    quick = type(module.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    weights = Weights(Path(name), plain(module.state_dict()), quick, "OpenAI")
    config = sizes_of(weights)
    vision, text = config["vision_cfg"], config["text_cfg"]
    vision["head_width"] = vision["width"] // module.visual.transformer.resblocks[0].attn.num_heads
    text["heads"] = module.transformer.resblocks[0].attn.num_heads
    return fit_weights(build(config | {"quick_gelu": quick}), weights)
