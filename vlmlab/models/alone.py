"""A weight file with nothing beside it: what no shape tells is given, known from its origin, or assumed aloud."""

import json
from collections.abc import Mapping

import open_clip
from open_clip.transform import PreprocessCfg
from torch import nn

from .files import build, fit_weights
from .model import Model
from .pixels import kept, published, set_pixels
from .sizes import alike, gelu, sizes_of
from .weights import Weights, assumed_aloud

HEAD = 64  # width of a head in OpenAI's models


def from_sizes(weights: Weights, about: Mapping, pixels: Mapping | None) -> tuple[nn.Module, dict]:
    """The model of a weight file alone, and the keywords of `load` that say what no shape tells.

    Taken from the keywords, the origin of the file, or open_clip's architectures of these sizes; what is
    assumed instead is warned about. ValueError where no assumption is good.
    """
    sizes = sizes_of(weights)
    near, assumed = alike(sizes), []
    heads, sure = number_of_heads(weights, sizes, near, about.get("heads"))
    assumed += [] if sure else ["the number of heads"]
    quick, sure = activation(weights, near, about.get("quick_gelu"))
    assumed += [] if sure else ["the activation"]
    recipes = [published(name) for name in near]
    agreed = bool(recipes) and all(one == recipes[0] and one[1] for one in recipes)
    sure = agreed or pixels is not None or weights.origin == "OpenAI"
    assumed += [] if sure else ["how images are prepared"]
    found = {"quick_gelu": quick, "heads": heads}
    if assumed:
        warn(weights, near, assumed, found, sizes["vision_cfg"]["width"])
    clip = fit_weights(build(with_heads(next(iter(near.values()), sizes), found)), weights)
    set_pixels(clip, recipes[0][0] if agreed else {}, weights)
    return clip, found | ({} if sure else {"pixels": kept(clip)})


def number_of_heads(weights: Weights, sizes: dict, near: dict, heads: int | None) -> tuple[int, bool]:
    """(heads of the image tower, whether that is sure)."""
    width, text = sizes["vision_cfg"]["width"], sizes["text_cfg"]["width"]
    widths = {c["vision_cfg"].get("head_width", HEAD) for c in near.values()}
    found = heads if heads is not None else width // (widths.pop() if len(widths) == 1 else HEAD)
    exact = isinstance(found, int) and found > 0 and width % found == 0
    if not exact or text % HEAD or (heads is None and not near and width % HEAD):
        raise ValueError(
            f"{weights} has widths {width} and {text}, OpenAI's heads have width 64; pass heads= of the image "
            "tower, which divides its width, or load a folder with config.json and model.safetensors"
        )
    return found, heads is not None or bool(near) or weights.origin == "OpenAI"


def activation(weights: Weights, near: dict[str, dict], said: bool | None) -> tuple[bool, bool]:
    """(QuickGELU or not, whether that is sure)."""
    if said is not None and not isinstance(said, bool):
        raise ValueError(f"quick_gelu is {said!r}, expected True or False")
    quick = weights.quick_gelu if said is None else said
    if said is not None and weights.quick_gelu is not None and said != weights.quick_gelu:
        raise ValueError(f"{weights} computes {gelu(weights.quick_gelu)}; leave out quick_gelu={said}")
    if quick is not None:
        return quick, True
    built = {bool(c.get("quick_gelu", False)) for c in near.values()}
    if len(built) == 1:
        return built.pop(), True
    if near and not any("openai" in open_clip.list_pretrained_tags_by_model(name) for name in near):
        names = " or ".join(f"{n!r} ({gelu(c.get('quick_gelu', False))})" for n, c in near.items())
        raise ValueError(
            f"{weights} does not say whether its activation is GELU or QuickGELU, and its sizes are those of "
            f"{names}; name one, load(name, pretrained=path), or pass quick_gelu="
        )
    return True, False


def with_heads(config: dict, found: dict) -> dict:
    """A model_cfg that says activation and heads."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    return config | {
        "quick_gelu": found["quick_gelu"],
        "vision_cfg": vision | {"head_width": vision["width"] // found["heads"]},
        "text_cfg": {"heads": text["width"] // HEAD} | text,
    }


def warn(weights: Weights, near: dict, assumed: list[str], found: dict, width: int) -> None:
    """Say once what was assumed and how to say it instead."""
    sizes = f"; its sizes are those of {' and '.join(near)}" if near else ""
    assumed_aloud(
        f"{weights} does not say {', '.join(assumed)}{sizes}. Assumed: {gelu(found['quick_gelu'])}, "
        f"{found['heads']} heads ({width // found['heads']} wide) in the image tower, CLIP's mean and std, as in "
        "OpenAI's models. Name the architecture, load(name, pretrained=path), or pass quick_gelu=, heads= and "
        "pixels=",
    )


def activation_of(model: Model) -> dict[str, bool]:
    """Whether the blocks of open_clip's own towers compute QuickGELU; nothing for other towers."""
    found = {type(m).__name__ for name, m in model.wrapped.named_modules() if name.endswith(".mlp.gelu")}
    return {"quick_gelu": "GELU" not in found} if found else {}


def pixels_of(model: Model) -> dict[str, dict]:
    """How a dual tower's images are prepared; nothing for other models."""
    return {"pixels": kept(model.clip)} if hasattr(model, "clip") else {}


def unusual(told: Mapping, model: Model) -> str:
    """What of the activation, the pixels and the told settings differs from OpenAI's models, as JSON; "" for nothing.
    Weights alone do not tell such models apart."""
    own, told = PreprocessCfg(), activation_of(model) | pixels_of(model) | dict(told)
    usual = {"pixels": {"mean": list(own.mean), "std": list(own.std)}}
    usual["pixels"] |= {"interpolation": own.interpolation, "resize_mode": own.resize_mode}
    usual |= {"quick_gelu": True} | ({"heads": model.image.width // HEAD} if "heads" in told else {})
    other = {k: told[k] for k in usual if k in told and told[k] != usual[k]}
    return json.dumps(other, sort_keys=True) if other else ""
