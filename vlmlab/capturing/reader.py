"""The end of a model as a function: what it would say if a residual stream were its last."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..models.families import at
from .module_tower import ModuleTower, towers_of


def reader(
    model, kind: str = "text", words: Sequence[int] | None = None, family=None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function (sample, width) -> (sample, joint) through the model's own final norm and projection.

    For `measures.lens_logits`. Of a language model it is (sample, word): the logits of its head. kind: the
    tower; words: ids of the words (columns) to keep, None for all. family: as in `capture`.
    Raises ValueError for a tower that the model does not have or whose family names no norm and head.
    """
    towers = towers_of(model, family)
    if kind not in towers:
        raise ValueError(f"{type(model).__name__} has no {kind} tower; it has {', '.join(towers)}")
    end, chosen = end_of(towers[kind]), slice(None) if words is None else list(words)
    weight = next(model.parameters())

    def read(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return end(torch.as_tensor(np.asarray(x)).to(weight))[:, chosen].float().cpu().numpy()

    return read


def end_of(tower) -> Callable[[torch.Tensor], torch.Tensor]:
    """Final norm and projection of a tower, as its family names them."""
    if not isinstance(tower, ModuleTower):
        return lambda x: tower.project(tower.norm(x))
    module, family = tower.module, tower.family
    if not family.norm or not family.head:
        raise ValueError(
            f"the family of {type(module).__name__}'s {tower.kind} tower names no norm and head; read it with "
            "measures.readout, or pass family= with both"
        )
    norm = at(module, family.norm)
    head = family.head(module) if callable(family.head) else at(module, family.head)
    return lambda x: head(norm(x))
