"""Weights and configurations in local files; nothing is unpickled beyond tensors."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from safetensors.torch import load_file
from torch import Tensor, nn


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Weights of a local file; nothing is unpickled beyond tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as e:
        # torch's own text explains how to unpickle anyway; that is not on offer here
        why = "not plain tensors" if isinstance(e, pickle.UnpicklingError) else first_line(e)
        raise ValueError(
            f"{path} is not a readable weight file ({why}); nothing but tensors is unpickled, "
            "save a state dict as .safetensors"
        ) from e
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict; save model.state_dict()")
    state = state.get("state_dict", state)
    numbers = ("input_resolution", "context_length", "vocab_size")  # among the weights in OpenAI's files
    return {
        k.removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor) and k not in numbers
    }


def first_line(e: Exception) -> str:
    """The kind of an error and the first line of its text."""
    return f"{type(e).__name__}: {str(e).strip()}".splitlines()[0]


def fit_weights(clip: nn.Module, state: dict[str, Tensor], path: Path) -> nn.Module:
    """Strict load; ValueError names the first missing, unexpected or misshapen tensors."""
    own = clip.state_dict()
    wrong = [
        f"{k}: {tuple(state[k].shape)} instead of {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if wrong or missing or extra:
        raise ValueError(
            f"{path} does not fit the architecture: shapes {wrong[:3]}, missing {missing[:3]}, "
            f"unexpected {extra[:3]}; name the architecture it was made with"
        )
    clip.load_state_dict(state)
    return clip


def from_folder(path: Path, tokenizer: Callable | None = None) -> tuple[nn.Module, Callable]:
    """config.json with `model_cfg`, model.safetensors, and bpe.txt.gz for a vocabulary of its own.

    Also a folder as open_clip publishes it: open_clip_config.json, open_clip_model.safetensors, and the files
    of a Hugging Face tokenizer.
    """
    file, weights = (first_of(path, name) for name in ("config.json", "model.safetensors"))
    if not file.is_file():
        raise FileNotFoundError(
            f"the folder {path} has no config.json; a model folder holds config.json, "
            "model.safetensors and, for a vocabulary of its own, bpe.txt.gz"
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        config = about["model_cfg"]
        clip = build(config)
        if "preprocess_cfg" in about:
            clip.visual.preprocess_cfg = {"size": clip.visual.image_size, **about["preprocess_cfg"]}
    except Exception as e:
        raise ValueError(
            f"{file} does not describe a model ({first_line(e)}); expected is JSON with "
            "model_cfg: embed_dim, vision_cfg, text_cfg as in open_clip"
        ) from e
    fit_weights(clip, read_state_dict(weights), weights)
    return clip, tokenizer or folder_tokenizer(clip, path, config["text_cfg"])


def first_of(path: Path, name: str) -> Path:
    """A file under its name as open_clip publishes it, where there is one, else under its plain name."""
    published = path / f"open_clip_{name}"
    return published if published.is_file() else path / name


def build(config: dict) -> nn.Module:
    """open_clip's model of a `model_cfg`: random weights, nothing is fetched."""
    config = copy.deepcopy(config)
    if config.get("text_cfg", {}).get("hf_model_name"):
        raise ValueError(
            f"the text tower is Hugging Face's {config['text_cfg']['hf_model_name']}; towers run "
            "open_clip's TextTransformer"
        )
    if config.get("vision_cfg", {}).get("timm_model_name"):
        config["vision_cfg"]["timm_model_pretrained"] = False
    return CustomTextCLIP(**config) if config.pop("custom_text", False) else CLIP(**config)


def folder_tokenizer(clip: nn.Module, path: Path, config: dict) -> Callable:
    """The tokenizer whose files lie in a model folder, else CLIP's. ValueError when another is asked for."""
    if any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        options = {"local_files_only": True, **config.get("tokenizer_kwargs", {})}
        return HFTokenizer(str(path), context_length=clip.context_length, **options)
    if config.get("hf_tokenizer_name"):
        raise ValueError(
            f"{path} reads texts with the tokenizer {config['hf_tokenizer_name']!r}, whose files are not in the "
            "folder; put its tokenizer.json and tokenizer_config.json there, or pass tokenizer="
        )
    return clip_tokenizer(clip, path, path / "bpe.txt.gz")


def clip_tokenizer(clip: nn.Module, path: Path | str, merges: Path | None = None) -> Callable:
    """CLIP's tokenizer, with the model's own merges where there are any.

    Raises ValueError when it does not have the vocabulary of the model at `path`.
    """
    own = {"bpe_path": str(merges)} if merges is not None and merges.exists() else {}
    try:
        tokenizer = SimpleTokenizer(**own, context_length=clip.context_length)
    except Exception as e:
        raise ValueError(f"{merges} is not a readable merge file ({first_line(e)})") from e
    if tokenizer.vocab_size != clip.vocab_size:
        raise ValueError(
            f"{path} has a vocabulary of {clip.vocab_size}, but {'its' if own else 'the CLIP'} "
            f"tokenizer has {tokenizer.vocab_size}; load a folder with config.json, "
            "model.safetensors and the bpe.txt.gz it was trained with, or pass tokenizer="
        )
    return tokenizer


def from_state_dict(path: Path, tokenizer: Callable | None = None) -> tuple[nn.Module, Callable]:
    """A CLIP ViT whose sizes are read off OpenAI-style weights (QuickGELU, heads of width 64)."""
    state = read_state_dict(path)
    needed = (
        "visual.proj",
        "visual.conv1.weight",
        "visual.positional_embedding",
        "text_projection",
        "ln_final.weight",
        "token_embedding.weight",
        "positional_embedding",
    )
    lacks = [k for k in needed if k not in state]
    if lacks:
        raise ValueError(
            f"{path} has no {', '.join(lacks)}; a CLIP ViT in OpenAI's naming is expected, "
            "or name the architecture: load('ViT-B-16-quickgelu', pretrained=path)"
        )
    conv, width = state["visual.conv1.weight"], len(state["ln_final.weight"])
    if conv.shape[0] % 64 or width % 64:
        raise ValueError(
            f"{path} has widths {conv.shape[0]} and {width}, OpenAI's heads have width 64; "
            "load a folder with config.json and model.safetensors"
        )

    def depth(prefix):
        root = f"{prefix}transformer.resblocks."
        return len({k.removeprefix(root).split(".")[0] for k in state if k.startswith(root)})

    grid, patch = round((len(state["visual.positional_embedding"]) - 1) ** 0.5), conv.shape[-1]
    context, vocab = len(state["positional_embedding"]), len(state["token_embedding.weight"])
    clip = CLIP(
        embed_dim=state["text_projection"].shape[1],
        quick_gelu=True,
        vision_cfg={
            "image_size": grid * patch,
            "patch_size": patch,
            "width": conv.shape[0],
            "layers": depth("visual."),
            "head_width": 64,
        },
        text_cfg={
            "context_length": context,
            "vocab_size": vocab,
            "width": width,
            "heads": width // 64,
            "layers": depth(""),
        },
    )
    return fit_weights(clip, state, path), tokenizer or clip_tokenizer(clip, path)
