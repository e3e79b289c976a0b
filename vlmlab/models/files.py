"""Models of local files and folders: what describes them, their weights, and their tokenizer."""

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import Tensor, nn

from . import translate
from .pixels import kept, of_processor, set_pixels
from .sizes import hint
from .weights import Weights, assumed_aloud, first_line, read_weights, weight_files

TRANSFORMERS = ("model.safetensors", "model.safetensors.index.json")
TRANSFORMERS += ("pytorch_model.bin", "pytorch_model.bin.index.json")
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
OPEN_CLIP += ("open_clip_pytorch_model.bin", "open_clip_model.bin")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SIGLIP_PIXELS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}


@dataclasses.dataclass(frozen=True)
class Described:
    """What a file says of a model.

    config: open_clip's model_cfg. make: builds it. pixels: open_clip's preprocess_cfg, None where nothing is
    said. names: of the weight files that go with it, the best first.
    """

    file: Path
    config: dict
    make: Callable[[dict], nn.Module]
    pixels: dict | None
    names: tuple[str, ...]

    def prepare(self, clip: nn.Module, given: Mapping | None) -> dict:
        """Keep with the model how its images are prepared; returns the keyword that says what was assumed."""
        usual = SIGLIP_PIXELS if self.make is translate.siglip else {}
        set_pixels(clip, usual if self.pixels is None else self.pixels, self.file)
        if self.pixels is not None or given is not None:
            return {}
        assumed_aloud(
            f"{self.file.parent} has no preprocessor_config.json: assumed mean {clip.visual.preprocess_cfg['mean']} "
            f"and std {clip.visual.preprocess_cfg['std']}; put the file there, or pass pixels=dict(mean=, std=)",
        )
        return {"pixels": kept(clip)}


def config_of(file: Path) -> dict:
    """A JSON object; ValueError with the file when it is none."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise TypeError(f"a {type(about).__name__}, not an object")
    except (ValueError, TypeError, RecursionError) as e:
        raise undescribed(file, e) from e
    return about


def undescribed(file: Path, e: Exception) -> ValueError:
    return ValueError(
        f"{file} does not describe a model ({first_line(e)}); expected is JSON with "
        "model_cfg: embed_dim, vision_cfg, text_cfg as in open_clip, or the config.json of a CLIPModel or "
        "SiglipModel of transformers"
    )


def of_open_clip(file: Path, about: dict) -> Described:
    """A `model_cfg` of open_clip; without a word on images they are prepared as CLIP's."""
    return Described(
        file, about["model_cfg"], build, about.get("preprocess_cfg", {}), OPEN_CLIP + TRANSFORMERS
    )


def of_transformers(file: Path, about: dict) -> Described:
    """The settings that a CLIPModel or SiglipModel was saved with; transformers knows what they leave out."""
    try:
        from transformers import AutoConfig
    except ImportError as e:
        raise ImportError(f"{file} is of transformers: pip install transformers") from e
    config = AutoConfig.from_pretrained(file.parent, local_files_only=True)
    make = translate.siglip if config.model_type == "siglip" else build
    return Described(file, translate.model_cfg(config), make, of_processor(file.parent), TRANSFORMERS)


# file of a folder, the key in it, its values or any, what reads it; the first that is there
DESCRIPTIONS: tuple[tuple[str, str, tuple[str, ...] | None, Callable[[Path, dict], Described]], ...] = (
    ("open_clip_config.json", "model_cfg", None, of_open_clip),
    ("config.json", "model_cfg", None, of_open_clip),
    ("config.json", "model_type", ("clip", "siglip"), of_transformers),
)


def described(folder: Path) -> Described | None:
    """What a folder's configuration says of a CLIP; None where there is none of a CLIP."""
    for name, key, values, reader in DESCRIPTIONS:
        file = folder / name
        about = config_of(file) if file.is_file() else {}
        if key in about and (values is None or about[key] in values):
            try:
                return reader(file, about)
            except ImportError:
                raise
            except Exception as e:
                raise undescribed(file, e) from e
    return None


def from_folder(path: Path) -> tuple[nn.Module, Described]:
    """A folder of vlmlab, of open_clip or of transformers, as `DESCRIPTIONS` tells them apart."""
    about = described(path)
    if about is None:
        about = config_of(path / "config.json")
        raise undescribed(path / "config.json", KeyError("model_cfg"))
    files = weight_files(path, about.names)
    if not files:
        raise FileNotFoundError(
            f"there is no weight file {path / 'model.safetensors'}, nor another of {', '.join(about.names)}"
        )
    if len(files) > 1:
        raise several(path, files)
    try:
        weights = read_weights(files[0])
    except ValueError as e:
        raise ValueError(f"{path.name} has no weight file that can be read: {e}") from e
    return made(about, weights), about


def several(path: Path, files: list[Path]) -> ValueError:
    names = ", ".join(f.name for f in files[:6])
    return ValueError(
        f"the folder {path} has {len(files)} weight files ({names}); name the one that is meant"
    )


def made(about: Described, weights: Weights) -> nn.Module:
    """The described model with its weights, which are looked at before its memory is taken."""
    try:
        own = shapes(about)
        if own is not None:
            check_fit(own, weights)
        clip = about.make(about.config)
    except Misfit:
        raise
    except Exception as e:
        raise undescribed(about.file, e) from e
    return fit_weights(clip, weights)


def shapes(about: Described) -> dict[str, Tensor] | None:
    """The tensors of a described model without memory; None where timm builds one, which it cannot."""
    towers = [about.config.get(part, {}) for part in ("vision_cfg", "text_cfg")]
    if wrong := [t["layers"] for t in towers if isinstance(t.get("layers"), int) and t["layers"] > 1000]:
        raise ValueError(f"{wrong[0]} blocks")
    if about.make is not build or towers[0].get("timm_model_name"):
        return None
    with torch.device("meta"):
        return build(about.config).state_dict()


def tensors(about: Described) -> dict[str, Tensor]:
    """The tensors of a described model, without memory where that can be."""
    found = shapes(about)
    return about.make(about.config).state_dict() if found is None else found


class Misfit(ValueError):
    """Weights of another model."""


def fit_weights(clip: nn.Module, weights: Weights) -> nn.Module:
    """Strict load; ValueError names the first tensors that are missing, unexpected, misshapen or no numbers."""
    own = clip.state_dict()
    state = check_fit(own, weights)
    for name, value in state.items():
        if own[name].is_floating_point():
            check_values(name, value, weights.path)
    clip.load_state_dict(state)
    return clip


def check_fit(own: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """The weights under the names of a model. ValueError when there are others, or of other shapes."""
    state = in_names_of(own, weights.state)
    wrong = [
        f"{k}: {tuple(state[k].shape)} instead of {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if wrong or missing or extra:
        raise Misfit(
            f"{weights} does not fit the architecture: shapes {wrong[:3]}, missing {missing[:3]}, "
            f"unexpected {extra[:3]}; {weights.some()}{hint(weights)}; name the architecture it was made with"
        )
    return state


def in_names_of(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower stands in a module of its own or not; a scale has one entry or no dimension."""
    found = {}
    for name, value in state.items():
        other = name.removeprefix("text.") if name.startswith("text.") else f"text.{name}"
        name = other if name not in own and other in own else name
        scale = name in own and name.startswith("logit_") and value.numel() == own[name].numel()
        found[name] = value.reshape(own[name].shape) if scale else value
    return found


def check_values(name: str, value: Tensor, path: Path) -> None:
    """ValueError for whole numbers, quantised ones, NaN and infinities."""
    if value.dtype not in FLOATS:
        kind = str(value.dtype).removeprefix("torch.")
        raise ValueError(
            f"{path}: {name} has the dtype {kind}, not numbers of full, half or bfloat precision; "
            "quantised weights are not run, save the model before it was quantised"
        )
    value = value.float()  # what is finite in double precision may not be here
    bad = {"nan": value.isnan(), "inf": value.isinf()} if not value.isfinite().all() else {}
    said = [f"{int(x.sum())} {what}" for what, x in bad.items() if x.any()]
    if said:
        raise ValueError(
            f"{path}: {name} has {' and '.join(said)} among its {value.numel()} numbers; "
            "the file is damaged or its training diverged, take an earlier checkpoint"
        )


def check_flags(config: dict) -> None:
    """ValueError for a text where open_clip asks whether: "no" would count as yes."""
    parts = ((config, ("quick_gelu", "custom_text")),)
    parts += tuple(
        (config.get(name) or {}, [f.name for f in dataclasses.fields(kind) if isinstance(f.default, bool)])
        for name, kind in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg))
    )
    for part, names in parts:
        wrong = [n for n in names if not isinstance(part.get(n, False), bool) and n != "attentional_pool"]
        if wrong:
            raise ValueError(f"{wrong[0]} is {part[wrong[0]]!r}, not true or false")


def build(config: dict) -> nn.Module:
    """open_clip's model of a `model_cfg`: random weights, nothing is fetched."""
    check_flags(config)
    config = copy.deepcopy(config)
    if config.get("text_cfg", {}).get("hf_model_name"):
        raise ValueError(
            f"the text tower is Hugging Face's {config['text_cfg']['hf_model_name']}; towers run "
            "open_clip's TextTransformer"
        )
    if trunk := config.get("vision_cfg", {}).get("timm_model_name"):
        if ":" in trunk or "/" in trunk:
            raise ValueError(f"the image tower {trunk!r} would be fetched from a hub; nothing is fetched")
        config["vision_cfg"]["timm_model_pretrained"] = False
    if config.pop("multimodal_cfg", None):
        raise ValueError(
            "a CoCa with a text decoder, which towers do not run; capture takes the module as it is"
        )
    kind, eos_id = CustomTextCLIP if config.pop("custom_text", False) else CLIP, unknown_end(config)
    clip = kind(**config)
    if eos_id is not None:
        text = getattr(clip, "text", clip)
        text.text_pool_type, text.text_eos_id = "eos", eos_id
    return clip


def unknown_end(config: dict) -> int | None:
    """The id at which texts are read, taken out of a `model_cfg` for open_clip before 3.1, which knows only the
    largest; the towers here read by themselves."""
    text = config.get("text_cfg", {})
    if hasattr(CLIPTextCfg, "eos_id") or text.get("pool_type") != "eos":
        return None
    del text["pool_type"]
    return text.pop("eos_id", 2)
