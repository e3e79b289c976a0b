"""Data of any kind as numbered rows: what a tower runs over, and what the samples are called."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from .. import image_files

PIXELS = (4, True, "(image, channel, height, width), float and preprocessed")
IDS = (2, False, "(text, token), whole numbers")
PICTURE = (Image.Image, str, os.PathLike)  # a PIL image or the path of a file
IMAGE_KEYS = ("pixel_values", "image", "img")  # of items that are mappings, as of Hugging Face's datasets
SHAPES = {"image": PIXELS, "qformer": PIXELS}  # of other towers: token ids


@dataclasses.dataclass
class Rows:
    """take: numbers of rows -> a batch, a tensor or a mapping of tensors. ids: (sample,) names.
    chosen: (sample,) their numbers in the data. labels: (sample,) class numbers, or None."""

    take: Callable[[Sequence[int]], Tensor | Mapping[str, Tensor]]
    ids: np.ndarray
    chosen: np.ndarray
    labels: np.ndarray | None = None

    @property
    def coords(self) -> dict[str, np.ndarray]:
        return {"id": self.ids} | ({} if self.labels is None else {"label": self.labels})


def rows_of(data, kind: str, limit: int | None = None, preprocess: Callable | None = None) -> Rows:
    """Rows of a tensor, a mapping of tensors (a tokenizer's output), a Split, pictures (PIL images or paths, one
    or a list), or a map-style dataset, of which a DataLoader may hold one: its items are tensors or pictures, or
    tuples or mappings of such. Of all but tensors only one batch is in memory.

    preprocess: picture -> tensor, for pictures. limit: at most so many rows, evenly spaced.
    Raises ValueError for anything else, wrong shapes and types, or no rows.
    """
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, Mapping):
        return of_tensors(dict(data), kind, limit)
    if isinstance(data, np.ndarray) and data.dtype != object:
        data = torch.from_numpy(data)
    if isinstance(data, Tensor):
        axes, floats, expected = SHAPES.get(kind, IDS)
        if data.ndim != axes or data.is_floating_point() != floats:
            raise ValueError(f"{kind} sites need a tensor {expected}; got {data.dtype} {tuple(data.shape)}")
        return of_tensors({"": data}, kind, limit)
    if kind in SHAPES and hasattr(data, "ids") and hasattr(data, "labels") and hasattr(data, "image"):
        chosen = spread(len(data), limit)
        return of_items(data.image, chosen, [data.ids[i] for i in chosen], data.labels, preprocess)
    if kind in SHAPES and isinstance(data, PICTURE):
        data = [data]
    if (
        kind in SHAPES
        and isinstance(data, (list, tuple))
        and all(isinstance(x, PICTURE + (Tensor,)) for x in data)
    ):
        check_paths(data, kind)
        chosen = spread(len(data), limit)
        names = [str(i) if isinstance(data[i], (Image.Image, Tensor)) else os.fspath(data[i]) for i in chosen]
        return of_items(lambda i: data[i], chosen, names, None, preprocess)
    mapped = (
        hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, IterableDataset)
    )
    if mapped and not isinstance(data, (list, tuple, str)):
        chosen = spread(len(data), limit)
        return of_items(lambda i: data[i], chosen, chosen, getattr(data, "targets", None), preprocess)
    held = sorted({type(x).__name__ for x in data}) if isinstance(data, (list, tuple)) else ()
    raise ValueError(f"{needs(kind)}; got {type(data).__name__}{' of ' if held else ''}{', '.join(held)}")


def needs(kind: str) -> str:
    """What the sites of a tower take, in words."""
    pictures = ", a Split, PIL images, paths of picture files" if kind in SHAPES else ""
    return (
        f"{kind} sites need a tensor {SHAPES.get(kind, IDS)[2]}, a mapping of tensors{pictures} or a map-style "
        "dataset (or its DataLoader)"
    )


def check_paths(data: Sequence, kind: str) -> None:
    """ValueError for what is a text but not the path of a file."""
    for x in data:
        if isinstance(x, (str, os.PathLike)) and not os.path.isfile(x):
            raise ValueError(f"there is no file {os.fspath(x)!r}; {needs(kind)}")


def of_items(
    read: Callable, chosen: np.ndarray, names: Sequence, labels, preprocess: Callable | None
) -> Rows:
    """Rows that are read one by one: read(number) -> tensor or picture, alone or in front of others."""
    names = [str(name) for name in names]
    return Rows(
        lambda part: stacked(
            [item(read(int(chosen[i])), names[i], preprocess) for i in part], names[part[0]]
        ),
        np.array(names),
        chosen,
        None if labels is None else np.asarray(labels)[chosen],
    )


def stacked(tensors: list[Tensor], name) -> Tensor:
    """One batch; ValueError names two shapes."""
    if len({x.shape for x in tensors}) > 1:
        shapes = sorted({tuple(x.shape) for x in tensors})
        raise ValueError(
            f"images from {name!r} on have the shapes {shapes}; `preprocess` must make them equal"
        )
    return torch.stack(tensors)


def of_tensors(tensors: Mapping[str, Tensor], kind: str, limit: int | None) -> Rows:
    """Rows of tensors with the same first axis; under the name "" of one tensor alone."""
    if not tensors or not all(isinstance(x, Tensor) for x in tensors.values()):
        kinds = {k: type(x).__name__ for k, x in tensors.items()}
        raise ValueError(
            f"{kind} data as a mapping must hold tensors only, got {kinds}; return_tensors='pt' makes them"
        )
    if "image_grid_thw" in tensors:  # Qwen2-VL: one image a sample, their patches end to end
        counts = tensors["image_grid_thw"].prod(dim=1).tolist()
        tensors = {**tensors, "pixel_values": tensors["pixel_values"].split(counts)}
    lengths = {k: len(x) for k, x in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the tensors have different numbers of samples: {lengths}")
    chosen = spread(next(iter(lengths.values())), limit)

    def take(part):
        rows = torch.from_numpy(chosen[list(part)])
        batch = {
            k: torch.cat([x[i] for i in rows]) if isinstance(x, tuple) else x[rows]
            for k, x in tensors.items()
        }
        return batch.get("", batch)

    return Rows(take, chosen.astype(str), chosen)


def item(found, name, preprocess: Callable | None) -> Tensor:
    """One preprocessed image of a dataset, without its label. A picture goes through `preprocess`, a function or
    an image processor of Hugging Face; a tensor is taken as it is."""
    if isinstance(found, Mapping):
        found = next((found[key] for key in IMAGE_KEYS if key in found), found)
    elif isinstance(found, (tuple, list)) and len(found):
        found = found[0]
    if isinstance(found, PICTURE):
        if preprocess is None:
            raise ValueError(
                f"image {name!r} is a picture: pass preprocess=, the model's own function from a picture to a "
                "tensor (a VLM's is vlm.preprocess), or give the dataset the model's transform"
            )
        found = preprocess(opened(found))
        if isinstance(found, Mapping):  # an image processor makes batches of one
            found = found["pixel_values"][0]
        found = torch.from_numpy(found) if isinstance(found, np.ndarray) else found
    if not isinstance(found, Tensor) or found.ndim != 3 or not found.is_floating_point():
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"image {name!r} is a {what}, not a float tensor (channel, height, width); give the dataset the "
            "model's transform, or pictures and preprocess="
        )
    return found


def opened(picture: str | os.PathLike | Image.Image) -> Image.Image:
    """A picture as RGB; a file turned as its EXIF says, and named by ValueError where it is no picture."""
    return image_files.rgb(picture) if isinstance(picture, Image.Image) else image_files.read(Path(picture))


def spread(n: int, limit: int | None) -> np.ndarray:
    """At most `limit` of n positions, evenly spaced, so that sorted classes are all met."""
    if not n:
        raise ValueError("the data holds no sample")
    return np.arange(n) if limit is None or limit >= n else np.linspace(0, n - 1, limit).round().astype(int)
