"""Data of any kind as numbered rows: what a tower runs over, and what the samples are called."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

PIXELS = (4, True, "(image, channel, height, width), float and preprocessed")
IDS = (2, False, "(text, token), whole numbers")
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
    """Rows of a tensor, a mapping of tensors (a tokenizer's output), a Split, or a map-style dataset whose
    items are tensors or tuples that begin with one; of the last two, only one batch is in memory.

    preprocess: picture -> tensor, for a Split. limit: at most so many rows, evenly spaced.
    Raises ValueError for anything else, wrong shapes and types, or no rows.
    """
    if isinstance(data, Mapping):
        return of_tensors(dict(data), kind, limit)
    if isinstance(data, Tensor):
        axes, floats, expected = SHAPES.get(kind, IDS)
        if data.ndim != axes or data.is_floating_point() != floats:
            raise ValueError(f"{kind} sites need a tensor {expected}; got {data.dtype} {tuple(data.shape)}")
        return of_tensors({"": data}, kind, limit)
    if hasattr(data, "ids") and hasattr(data, "labels") and hasattr(data, "image"):
        if preprocess is None:
            raise ValueError(
                "a Split holds pictures: pass preprocess=, the model's own function from a "
                "picture to a tensor"
            )
        chosen = spread(len(data), limit)
        return Rows(
            lambda part: torch.stack([preprocess(data.image(chosen[i])) for i in part]),
            np.array([data.ids[i] for i in chosen]),
            chosen,
            np.asarray(data.labels)[chosen],
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (list, tuple, str)):
        chosen, labels = spread(len(data), limit), getattr(data, "targets", None)
        return Rows(
            lambda part: torch.stack([item(data, chosen[i]) for i in part]),
            chosen.astype(str),
            chosen,
            None if labels is None else np.asarray(labels)[chosen],
        )
    raise ValueError(
        f"{kind} sites need a tensor {SHAPES.get(kind, IDS)[2]}, a mapping of tensors"
        f"{', a Split' if kind in SHAPES else ''} or a map-style dataset (a DataLoader's "
        f".dataset); got {type(data).__name__}"
    )


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


def item(data, number: int) -> Tensor:
    """One preprocessed image of a dataset, without its label."""
    found = data[int(number)]
    found = found[0] if isinstance(found, (tuple, list)) else found
    if not isinstance(found, Tensor):
        raise ValueError(
            f"item {number} of {type(data).__name__} is a {type(found).__name__}, not a tensor; "
            "give the dataset the model's transform"
        )
    return found


def spread(n: int, limit: int | None) -> np.ndarray:
    """At most `limit` of n positions, evenly spaced, so that sorted classes are all met."""
    if not n:
        raise ValueError("the data holds no sample")
    return np.arange(n) if limit is None or limit >= n else np.linspace(0, n - 1, limit).round().astype(int)
