"""How images become the numbers that a model was trained on: open_clip's `preprocess_cfg`, from where it stands."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import open_clip
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from ..schema import Amount, Finite, Record, Wrong, convert, described

FILTERS = {2: "bilinear", 3: "bicubic"}  # of Pillow


Three = described(tuple[Finite, Finite, Finite], "three numbers")
ThreeAbove = described(tuple[Amount, Amount, Amount], "three numbers above 0")


class Pixels(Record):
    """What may be said of images besides their size."""

    mean: Three | None = None
    std: ThreeAbove | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None


KEYS = Pixels.__struct_fields__


class Said(Pixels):
    """The same as open_clip's files have it."""

    mode: Literal["RGB"] | None = None


def set_pixels(clip: nn.Module, said: Mapping, where: object) -> None:
    """Keep with a model how its images are prepared; ValueError with the place for what is no such thing."""
    try:
        convert(dict(said), Said)
    except (Wrong, TypeError, ValueError) as e:
        raise ValueError(
            f"{where}: {getattr(e, 'field', '') or 'pixels'} {e}; expected are mean and std (three numbers), "
            "interpolation and resize_mode, as in open_clip's preprocess_cfg"
        ) from e
    said = {k: tuple(v) if isinstance(v, list) else v for k, v in dict(said).items()}
    own = getattr(clip.visual, "preprocess_cfg", None) or PreprocessCfg()
    size = clip.visual.image_size
    clip.visual.preprocess_cfg = merge_preprocess_dict(own, said) | {"size": size}


def kept(clip: nn.Module) -> dict:
    """How a model's images are prepared, apart from their size, as JSON has it."""
    said = merge_preprocess_dict(PreprocessCfg(), getattr(clip.visual, "preprocess_cfg", {}))
    return {
        k: list(said[k]) if isinstance(said[k], (list, tuple)) else said[k] for k in Pixels.__struct_fields__
    }


def of_processor(folder: Path) -> dict | None:
    """What the image processor of transformers in a folder does; None where there is none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            about = json.loads((folder / name).read_text(encoding="utf-8"))
            about = about.get("image_processor", about)
            break
    else:
        return None
    if about.get("resample", 3) not in FILTERS:
        raise ValueError(f"{name} resizes images by Pillow's filter {about['resample']}")
    plain = not about.get("do_normalize", True)
    found = {
        "mean": (0, 0, 0) if plain else about.get("image_mean"),
        "std": (1, 1, 1) if plain else about.get("image_std"),
        "interpolation": FILTERS[about.get("resample", 3)],
        "resize_mode": "shortest" if about.get("do_center_crop") else "squash",
    }
    return {k: v for k, v in found.items() if v is not None}


def published(name: str) -> tuple[dict, bool]:
    """How open_clip's published weights of an architecture prepare images, and whether all do it alike.

    Where they do not, CLIP's own recipe stands.
    """
    tags = open_clip.list_pretrained_tags_by_model(name)
    said = [{k: open_clip.get_pretrained_cfg(name, tag).get(k) for k in KEYS} for tag in tags]
    alike = all(one == said[0] for one in said)
    return ({k: v for k, v in said[0].items() if v is not None} if said and alike else {}), alike
