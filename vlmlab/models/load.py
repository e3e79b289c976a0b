"""`load`: one frozen model, from any source, with device and precision decided here."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..paths import data_dir
from ..precision import PRECISIONS
from .files import clip_tokenizer, from_folder, from_state_dict
from .huggingface import LanguageModel, from_pretrained, is_folder, is_language_model
from .model import Model
from .open_clip_names import architectures, from_open_clip, is_architecture
from .vlm import VLM

EMBEDDED = data_dir() / "models"


def load(
    model: str | Path | nn.Module | None = None,
    pretrained: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    tokenizer: Callable | None = None,
    name: str | None = None,
) -> Model:
    """Load a frozen model.

    model: an embedded model ("tiny", the default), an open_clip architecture ("ViT-B-16-quickgelu"; the same
    random weights each time unless `pretrained` names a tag or a local file), a folder with config.json and
    model.safetensors, a folder that Hugging Face's `save_pretrained` wrote of a model that generates, a file
    with OpenAI-style weights (.safetensors, or .pt read with weights_only), or a module of open_clip or
    transformers, which is taken over as it is: frozen, in evaluation mode, on `device`.
    device: default is the GPU when there is one, for a module where it is. precision: fp32 (default on CPU),
    amp_bf16 (default on GPU), amp_fp16. tokenizer: texts -> (text, context) token ids, for a module, and
    instead of the one a model would come with; of a Hugging Face model its tokenizer or processor. name: what
    a module is called; without `model`, the model.

    Raises ValueError or FileNotFoundError with what there is and what to do.

    >>> vlm = vlmlab.load("tiny")
    >>> vlm = vlmlab.load("ViT-B-16-quickgelu", "openai", precision="fp32")
    >>> features = vlm.encode_text(["a photo of a cat."])  # (text, joint)
    """
    if model is None:
        model, name = name or "tiny", None
    if isinstance(model, nn.Module):
        return of_module(model, pretrained, device, precision, tokenizer, name)
    device = check_device(device)
    precision = check_precision(precision, device)
    path = EMBEDDED / model if (EMBEDDED / model / "config.json").exists() else Path(model)
    if path.exists() and pretrained is not None:
        raise ValueError(
            f"{path} has its own weights; leave out pretrained={str(pretrained)!r}, or name an "
            "open_clip architecture for it"
        )
    given, kind = tokenizer is not None, VLM
    if is_folder(path):
        kind, (module, tokenizer) = LanguageModel, from_pretrained(path, tokenizer)
    elif path.is_dir():
        module, tokenizer = from_folder(path, tokenizer)
    elif path.is_file():
        module, tokenizer = from_state_dict(path, tokenizer)
    elif is_architecture(str(model)):
        module, tokenizer = from_open_clip(str(model), pretrained, tokenizer)
    else:
        raise unknown(str(model))
    source = None if given else {"name": where(path), "pretrained": where(pretrained), "precision": precision}
    return kind(module, tokenizer, name or Path(model).name, device, precision, source)


def unknown(name: str) -> ValueError:
    """What there is instead, and how to fetch what the Hugging Face hub may have."""
    message = (
        f"unknown model {name!r}: no embedded model ({', '.join(embedded())}), no file or folder, and no "
        "open_clip architecture (open_clip.list_models() lists them)"
    )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        message += (
            f"; nothing is fetched from huggingface.co: `hf download {name} --local-dir FOLDER` does it, "
            "then load('FOLDER')"
        )
    return ValueError(message)


def where(place: str | Path | None) -> str | None:
    """What opens the same again from any folder: an absolute path of what is here, else the name as it is."""
    if place is None:
        return None
    path = Path(place)
    if path.parent == EMBEDDED:
        return path.name
    return str(path.resolve()) if path.exists() else str(place)


def of_module(module: nn.Module, pretrained, device, precision, tokenizer, name: str | None) -> Model:
    """A module handed over by the caller, in place."""
    if pretrained is not None:
        raise ValueError(f"{type(module).__name__} has its weights; leave out pretrained={str(pretrained)!r}")
    device = check_device(device or str(next(module.parameters()).device))
    precision, name = check_precision(precision, device), name or type(module).__name__
    if is_language_model(module):
        return LanguageModel(module, tokenizer, name, device, precision)
    if not hasattr(module, "visual") or not hasattr(module, "logit_scale"):
        raise ValueError(
            f"{name} is no model that load knows; a CLIP or CustomTextCLIP of open_clip or a model of transformers "
            "that generates is expected (capture takes any module as it is)"
        )
    return VLM(module, tokenizer or clip_tokenizer(module, name), name, device, precision)


def check_device(device: str | None) -> torch.device:
    """The device, by default the GPU when there is one; ValueError with what there is."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    asked = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if str(asked) not in (*there, "meta", "cuda" if "cuda:0" in there else ""):
        raise ValueError(f"there is no device {str(asked)!r} here; there is {', '.join(there)}")
    return torch.device(asked)


def check_precision(precision: str | None, device: torch.device) -> str:
    """The precision, by default full on the CPU; ValueError for another name."""
    precision = precision or ("amp_bf16" if device.type == "cuda" else "fp32")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    return precision


def embedded() -> list[str]:
    """Names of the models in data/models."""
    return sorted(p.parent.name for p in EMBEDDED.glob("*/config.json"))


def names() -> list[str]:
    """The embedded models and open_clip's architectures."""
    return [*embedded(), *architectures()]
