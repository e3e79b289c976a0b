"""open_clip's architectures and weights, by name."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from torch import nn

from .files import first_line, fit_weights, read_state_dict


def architectures() -> list[str]:
    """The architectures that open_clip knows."""
    return open_clip.list_models()


def is_architecture(name: str) -> bool:
    """Whether open_clip builds a model of this name."""
    return open_clip.get_model_config(name) is not None


def from_open_clip(
    name: str, pretrained: str | Path | None, tokenizer: Callable | None = None
) -> tuple[nn.Module, Callable]:
    """An open_clip architecture with random weights, a pretrained tag, or a local file."""
    config = open_clip.get_model_config(name)
    text = config["text_cfg"].get("hf_model_name")
    if text:
        raise ValueError(f"the text tower of {name} is Hugging Face's {text}; towers run open_clip's own")
    local = pretrained is not None and Path(pretrained).is_file()
    if pretrained is not None and not local:
        check_tag(name, str(pretrained), config)
    tokenizer = tokenizer or tokenizer_of(name, config, fetch=pretrained is not None and not local)
    try:
        with torch.random.fork_rng(devices=[]):  # random weights are the same in every process
            torch.manual_seed(0)
            clip = open_clip.create_model(name, pretrained=None if local else pretrained)
    except Exception as e:
        if pretrained is None:
            raise
        raise ValueError(
            f"the weights {name}/{pretrained} could not be fetched ({first_line(e)}); download "
            "them elsewhere and pass the file as `pretrained`"
        ) from e
    if local:
        fit_weights(clip, read_state_dict(Path(pretrained)), Path(pretrained))
    return clip, tokenizer


def tokenizer_of(name: str, config: dict, fetch: bool) -> Callable:
    """The tokenizer of an architecture; one from the Hugging Face hub is fetched only where weights are too.

    Raises ValueError when it is not on this machine.
    """
    hub = config["text_cfg"].get("hf_tokenizer_name")
    if not hub:
        return open_clip.get_tokenizer(name)
    try:
        return open_clip.get_tokenizer(name, local_files_only=not fetch)
    except ImportError as e:
        raise ValueError(f"the tokenizer of {name} needs transformers: pip install transformers") from e
    except Exception as e:
        raise ValueError(
            f"{name} reads texts with the tokenizer {hub} of huggingface.co, which is not on this machine "
            f"({first_line(e)}); `hf download {hub}` fetches it, or pass tokenizer="
        ) from e


def check_tag(name: str, tag: str, config: dict) -> None:
    """A tag must exist and must have been trained with the activation that the architecture builds."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(
            f"unknown weights {tag!r} for {name}: no such file, and the tags are {', '.join(tags) or 'none'}"
        )
    quick = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
    if quick != config.get("quick_gelu", False):
        other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        raise ValueError(
            f"the weights {tag!r} were trained with {'QuickGELU' if quick else 'GELU'}, "
            f"but {name} builds the other activation; use {other!r}"
        )
