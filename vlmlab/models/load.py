"""`load`: one frozen vision-language model, from any source, with device and precision decided here."""

import contextlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file
from torch import Tensor, nn

from ..paths import data_dir
from .fingerprint import fingerprint
from .towers import ImageTower, TextTower

EMBEDDED = data_dir() / "models"
PRECISIONS = {"fp32": None, "amp_bf16": torch.bfloat16, "amp_fp16": torch.float16}


class VLM(nn.Module):
    """A frozen two-tower model: `image` and `text` towers, tokenizer, preprocess, logit_scale."""

    def __init__(self, clip: nn.Module, tokenizer: Callable, name: str, device: torch.device, precision: str):
        super().__init__()
        self.clip, self.tokenizer, self.name, self.precision = clip, tokenizer, name, precision
        self.image = ImageTower(clip.visual)
        self.text = TextTower(getattr(clip, "text", clip))
        self.image_size = clip.visual.image_size[0]
        # some weights were trained with squashed or bilinear images; CLIP's own recipe otherwise
        pixels = PreprocessCfg(**getattr(clip.visual, "preprocess_cfg", {"size": clip.visual.image_size}))
        self.mean, self.std = pixels.mean, pixels.std
        self.preprocess = image_transform_v2(pixels, is_train=False)
        self._digest: tuple[list[int], str] | None = None
        self.requires_grad_(False).eval().to(device)

    def train(self, mode: bool = True) -> "VLM":
        """A frozen model stays in evaluation mode, also inside a method that trains."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return self.clip.logit_scale.device

    @property
    def logit_scale(self) -> float:
        """exp of the stored parameter: 100 for OpenAI's CLIP."""
        return self.clip.logit_scale.exp().item()

    @property
    def shortcuts(self) -> bool:
        """Exact shortcuts (cut text, shared and cached frozen blocks); off only to check them."""
        return self.text.shortcuts

    @shortcuts.setter
    def shortcuts(self, on: bool) -> None:
        self.image.shortcuts = self.text.shortcuts = on

    def autocast(self) -> contextlib.AbstractContextManager:
        """The mixed-precision context of this model's precision; does nothing for fp32."""
        dtype = PRECISIONS[self.precision]
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def tokenize(self, texts: list[str]) -> Tensor:
        """(text, context) token ids on the model's device; ValueError for a text that does not fit.

        open_clip's tokenizer would cut it silently.
        """
        if not len(texts):
            raise ValueError("no texts were given; at least one is needed")
        ids = self.tokenizer(texts)
        full = ids[:, -1] == ids.max()
        if full.any():
            raise ValueError(
                f"{int(full.sum())} texts fill all {ids.shape[1]} tokens of {self.name} and may "
                f"be cut, for example {texts[int(full.nonzero()[0])]!r}; shorten the template "
                "or the class names"
            )
        return ids.to(self.device)

    def encode_image(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, joint), not normalised."""
        return self.image(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """list of texts -> (text, joint), not normalised."""
        return self.text(self.tokenize(texts))

    def fingerprint(self) -> str:
        """sha256 of all frozen weights with names and shapes; computed again after a write to one."""
        versions = [value._version for value in self.clip.state_dict().values()]
        if self._digest is None or self._digest[0] != versions:
            self._digest = versions, fingerprint(self.clip.state_dict())
        return self._digest[1]


def load(
    name: str | Path = "tiny",
    pretrained: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
) -> VLM:
    """Load a frozen model.

    name: an embedded model ("tiny"), an open_clip architecture ("ViT-B-16-quickgelu"; the same random
    weights each time unless `pretrained` names a tag or a local file), a folder with config.json and
    model.safetensors, or a file with OpenAI-style weights (.safetensors, or .pt read with weights_only).
    device: default is the GPU when there is one. precision: fp32 (default on CPU), amp_bf16 (default
    on GPU), amp_fp16.

    Raises ValueError or FileNotFoundError with what there is and what to do.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = precision or ("amp_bf16" if device.type == "cuda" else "fp32")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    path = EMBEDDED / name if (EMBEDDED / name / "config.json").exists() else Path(name)
    if path.exists() and pretrained is not None:
        raise ValueError(
            f"{path} has its own weights; leave out pretrained={str(pretrained)!r}, or name an "
            "open_clip architecture for it"
        )
    if path.is_dir():
        clip, tokenizer = from_folder(path)
    elif path.is_file():
        clip, tokenizer = from_state_dict(path)
    else:
        clip, tokenizer = from_open_clip(str(name), pretrained)
    vlm = VLM(clip, tokenizer, Path(name).name, device, precision)
    vlm.source = {"name": str(name), "pretrained": pretrained, "precision": precision}
    return vlm


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


def from_folder(path: Path) -> tuple[nn.Module, Callable]:
    """config.json with `model_cfg`, model.safetensors, and bpe.txt.gz for a vocabulary of its own."""
    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"the folder {path} has no config.json; a model folder holds config.json, "
            "model.safetensors and, for a vocabulary of its own, bpe.txt.gz"
        )
    try:
        clip = CLIP(**json.loads(file.read_text(encoding="utf-8"))["model_cfg"])
    except Exception as e:
        raise ValueError(
            f"{file} does not describe a model ({first_line(e)}); expected is JSON with "
            "model_cfg: embed_dim, vision_cfg, text_cfg as in open_clip"
        ) from e
    fit_weights(clip, read_state_dict(path / "model.safetensors"), path / "model.safetensors")
    return clip, clip_tokenizer(clip, path, path / "bpe.txt.gz")


def clip_tokenizer(clip: nn.Module, path: Path, merges: Path | None = None) -> Callable:
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
            "model.safetensors and the bpe.txt.gz it was trained with"
        )
    return tokenizer


def from_state_dict(path: Path) -> tuple[nn.Module, Callable]:
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
    return fit_weights(clip, state, path), clip_tokenizer(clip, path)


def from_open_clip(name: str, pretrained: str | Path | None) -> tuple[nn.Module, Callable]:
    """An open_clip architecture with random weights, a pretrained tag, or a local file."""
    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(
            f"unknown model {name!r}: no embedded model ({', '.join(embedded())}), no file or "
            "folder, and no open_clip architecture (open_clip.list_models() lists them)"
        )
    local = pretrained is not None and Path(pretrained).is_file()
    if pretrained is not None and not local:
        check_tag(name, str(pretrained), config)
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
    return clip, open_clip.get_tokenizer(name)


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


def embedded() -> list[str]:
    """Names of the models in data/models."""
    return sorted(p.parent.name for p in EMBEDDED.glob("*/config.json"))
