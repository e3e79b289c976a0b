"""open_clip's architectures and weights, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

import open_clip
import torch
from torch import nn

from . import hub
from .files import Misfit, check_fit, described, fit_weights, several, tensors
from .pixels import kept, published, set_pixels
from .sizes import gelu
from .weights import Weights, assumed_aloud, first_line, read_weights, weight_files


def architectures() -> list[str]:
    """The architectures that open_clip knows."""
    return open_clip.list_models()


def is_architecture(name: str) -> bool:
    """Whether open_clip builds a model of this name; nothing is asked for elsewhere."""
    return name in open_clip.list_models()


def from_open_clip(
    name: str, pretrained: str | Path | None, tokenizer: Callable | None, pixels: Mapping | None
) -> tuple[nn.Module, Callable, dict]:
    """An open_clip architecture with random weights, a pretrained tag, or a local file; and what was assumed."""
    config, file = open_clip.get_model_config(name), None if pretrained is None else local(pretrained)
    text = config["text_cfg"].get("hf_model_name")
    if text:
        raise ValueError(
            f"the text tower of {name} is Hugging Face's {text}; towers run open_clip's own "
            "(capture takes the module of open_clip.create_model as it is)"
        )
    fetch = pretrained is not None and file is None
    if fetch:
        check_tag(name, str(pretrained), config)
        hub.check_reach(f"{name}/{pretrained}", open_clip.get_pretrained_cfg(name, str(pretrained)))
    weights = read_weights(file) if file else None
    if weights:
        check_activation(name, weights, config)
    tokenizer = tokenizer or tokenizer_of(name, config, fetch)
    try:
        with torch.random.fork_rng(devices=[]), hub.quiet():  # random weights are the same in every process
            torch.manual_seed(0)
            clip = open_clip.create_model(name, pretrained=str(pretrained) if fetch else None)
    except Exception as e:
        if not fetch:
            raise
        raise ValueError(
            f"the weights {name}/{pretrained} could not be fetched ({first_line(e)}); download "
            "them elsewhere and pass the file as `pretrained`"
        ) from e
    if weights is None:
        return clip, tokenizer, {}
    fit_weights(clip, weights)
    return clip, tokenizer, prepared(clip, name, weights, pixels)


def local(pretrained: str | Path) -> Path | None:
    """The weight file that `pretrained` names, also by its folder; None when it names neither."""
    path = Path(pretrained).expanduser()
    if path.is_dir():
        files = weight_files(path, ("open_clip_model.safetensors", "model.safetensors"))
        if len(files) > 1:
            raise several(path, files)
        path = files[0] if files else path
    return path if path.is_file() else None


def prepared(clip: nn.Module, name: str, weights: Weights, given: Mapping | None) -> dict:
    """Say how the images of a local file are prepared: by what lies beside it, or as published weights of
    this architecture. Returns what had to be assumed."""
    beside = beside_of(weights)
    said, alike = published(name)
    if beside is not None and beside.pixels is not None:
        set_pixels(clip, beside.pixels, beside.file)
        return {}
    set_pixels(clip, said, name)
    if alike or given is not None or weights.origin == "OpenAI":
        return {}
    assumed_aloud(
        f"{weights} does not say how images are prepared, and the published weights of {name} do not agree: "
        "assumed CLIP's mean and std, cropped; pass pixels=dict(mean=, std=, resize_mode=)",
    )
    return {"pixels": kept(clip)}


def beside_of(weights: Weights):
    """What describes a CLIP in the folder of a weight file, where it is that of these weights; else None."""
    try:
        about = described(weights.path.parent)
        if about is not None:
            with torch.random.fork_rng(devices=[]):
                check_fit(tensors(about), weights)
        return about
    except Misfit:
        return None
    except ValueError:  # another program's file
        return None


def check_activation(name: str, weights: Weights, config: dict) -> None:
    """ValueError when the file, or what lies beside it, names the other activation than the architecture's."""
    quick, beside = weights.quick_gelu, beside_of(weights)
    if quick is None and beside is not None:
        quick = bool(beside.config.get("quick_gelu", False))
    if quick is not None and "timm_model_name" not in config["vision_cfg"]:
        check_gelu(name, f"the weights {weights}", quick, config)


def tokenizer_of(name: str, config: dict, fetch: bool) -> Callable:
    """The tokenizer of an architecture; one from the Hugging Face hub is fetched only where weights are too.

    Raises ValueError when it is not on this machine.
    """
    named = config["text_cfg"].get("hf_tokenizer_name")
    if not named:
        return open_clip.get_tokenizer(name)
    try:
        with hub.quiet():
            return open_clip.get_tokenizer(name, local_files_only=not fetch)
    except ImportError as e:
        raise ValueError(f"the tokenizer of {name} needs transformers: pip install transformers") from e
    except Exception as e:
        raise ValueError(
            f"{name} reads texts with the tokenizer {named} of huggingface.co, which is not on this machine "
            f"({first_line(e)}); `hf download {named}` fetches it, or pass tokenizer="
        ) from e


def check_tag(name: str, tag: str, config: dict) -> None:
    """A tag must exist and must have been trained with the activation that the architecture builds."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(
            f"unknown weights {tag!r} for {name}: no such file, and the tags are {', '.join(tags) or 'none'}"
        )
    quick = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    check_gelu(name, f"the weights {tag!r}", quick, config)


def check_gelu(name: str, what: str, quick: bool, config: dict) -> None:
    """ValueError when weights of one activation meet an architecture of the other."""
    if quick != config.get("quick_gelu", False):
        other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        raise ValueError(
            f"{what} were trained with {gelu(quick)}, but {name} builds the other activation; use {other!r}"
        )
