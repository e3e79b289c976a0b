"""The language model in a module of transformers: its blocks, and any layer of it read as logits.

Only the rows that are asked for are kept, of the layers that are asked for; the module is as it was afterwards.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..models.families import Family, at, families_of
from ..models.model import Model

NEAR = 0.02  # of the spread of logits, what two ways to compute them may differ by, beside their rounding


@dataclasses.dataclass(frozen=True)
class Language:
    """Blocks, numbered from 1, final norm and head of the language model that writes."""

    name: str
    blocks: Sequence[nn.Module]
    norm: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def read(self, x: Tensor, readout: str) -> Tensor:
        """(..., word) float32 logits of a residual stream (..., width).

        readout: "normed" by norm and head, "raw" by the head alone, "uniform" zeros for every word.
        """
        with torch.no_grad():
            logits = self.head(self.norm(x) if readout == "normed" else x).float()
        return torch.zeros_like(logits) if readout == "uniform" else logits


def module_of(model) -> nn.Module:
    """The module of transformers in a LanguageModel of vlmlab, or itself."""
    return model.wrapped if isinstance(model, Model) else model


def language_of(model, family: Family | None = None) -> Language:
    """The language model in a LanguageModel of vlmlab or a module of transformers.

    family: describes a module that vlmlab does not know. ValueError for one of which neither it nor `FAMILIES` names
    the head.
    """
    module = module_of(model)
    if family is None:
        found = getattr(model, "families", None) or families_of(module)
        family = found.get("decoder") or found.get("text")
    if family is None or not family.head:
        raise ValueError(
            f"{type(module).__name__} has no language model of which vlmlab knows the head; pass family= with blocks, "
            "norm and head (vlmlab.models.families.Family)"
        )
    head = family.head(module) if callable(family.head) else at(module, family.head)
    norm = at(module, family.norm) if family.norm else nn.Identity()
    return Language(type(module).__name__, list(at(module, family.blocks)), norm, head)


def first(given) -> Tensor:
    """The residual stream in what a block takes or gives: a tensor, or what begins with one."""
    while not isinstance(given, Tensor):
        given = next(iter(given.values())) if isinstance(given, Mapping) else given[0]
    return given


class Rows(contextlib.AbstractContextManager):
    """Keeps the residual stream behind some layers while the `with` block runs the model.

    layers: 0 is what enters block 1. keep: what of (batch, token, width). `rows` is layer -> the last that was kept;
    `forwards` counts how often the first of the layers ran since `taken`.
    """

    def __init__(self, language: Language, layers: Sequence[int], keep: Callable[[Tensor], Tensor]):
        self.language, self.layers, self.keep = language, tuple(layers), keep
        self.rows: dict[int, Tensor] = {}
        self.forwards = 0

    def __enter__(self) -> "Rows":
        self.rows, self.forwards = {}, 0
        self.stack = contextlib.ExitStack()
        for layer in self.layers:
            block = self.language.blocks[max(layer, 1) - 1]
            self.stack.callback(self.hook(block, layer).remove)
        return self

    def __exit__(self, *error) -> None:
        self.stack.close()
        self.rows = {}

    def hook(self, block: nn.Module, layer: int):
        def note(x) -> None:
            self.forwards += layer == self.layers[0]
            self.rows[layer] = self.keep(first(x).detach())

        if layer:
            return block.register_forward_hook(lambda module, args, output: note(output))
        enters = lambda module, args, kwargs: note(args or kwargs)
        return block.register_forward_pre_hook(enters, with_kwargs=True)


def last_position(x: Tensor) -> Tensor:
    """(batch, width) of (batch, token, width), in memory of its own."""
    return x[:, -1].clone()


def layer_logits(
    model,
    inputs: Mapping[str, Tensor],
    layers: Sequence[int],
    readout: str = "normed",
    last: bool = True,
    family=None,
) -> Tensor:
    """(layer, batch, word) float32 logits that the layers read as, at the last position; of one forward pass.

    layers: 0 to depth, 0 is what enters block 1; the last layer is always read through norm and head and gives the
    model's own logits. last: False for every position, (layer, batch, token, word). inputs: as the model takes them,
    padded on the left. Raises ValueError for layers that there are not.

    >>> logits = decode.layer_logits(model, inputs, range(1, 31))
    >>> log_p = decode.contrast(logits[-1], logits[23])
    """
    language, layers = language_of(model, family), tuple(layers)
    if not layers or min(layers) < 0 or max(layers) > language.depth:
        raise ValueError(f"layers are {layers}; {language.name} has layers 0 to {language.depth}")
    if last:
        check_padding(module_of(model), inputs)
    with (
        torch.no_grad(),
        Rows(language, dict.fromkeys(layers), last_position if last else torch.clone) as kept,
    ):
        module_of(model)(**inputs)
        own = lambda layer: "normed" if layer == language.depth else readout
        return torch.stack([language.read(kept.rows[layer], own(layer)) for layer in layers])


def check_padding(module: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """ValueError for texts that are padded on the right, where the last position is none of the text."""
    if getattr(module.config, "is_encoder_decoder", False):
        return  # what is padded there, an encoder reads
    mask = inputs.get("attention_mask")
    if mask is not None and mask.ndim == 2 and not bool(mask[:, -1].all()):
        raise ValueError(
            f"{int((mask[:, -1] == 0).sum())} of {len(mask)} texts are padded on the right, where the last position "
            'holds no word; set tokenizer.padding_side = "left"'
        )


def check_end(language: Language, x: Tensor, scores: Tensor) -> None:
    """ValueError where norm and head do not make the logits that the model gives.

    x: (row, width) behind the last block; scores: (row, word). They may differ by a constant (log-probabilities) and
    at few words (penalties); else the head scales or caps what it gives, or stands behind something unknown.
    """
    own, scores = language.read(x, "normed"), scores.float()
    top = own.topk(min(32, own.shape[-1]), dim=-1).indices
    difference = (scores - own).gather(-1, top)
    known = difference.isfinite()
    middle = difference.masked_fill(~known, math.nan).nanmedian(dim=-1, keepdim=True).values
    rounding = 2 * torch.finfo(x.dtype).eps * own.gather(-1, top).abs()
    near = (difference - middle).abs() <= NEAR * own.std(dim=-1, keepdim=True).clamp_min(1e-3) + rounding
    if bool((known.sum(-1) >= 2).all()) and bool(((near & known).sum(-1) * 2 < known.sum(-1)).any()):
        raise ValueError(
            f"the logits of {language.name} are not its final norm and head applied to the last block: its head caps or "
            "scales them, or another processor changed them all (guidance, temperature); leave that out, or pass family= "
            "with the right norm and head"
        )
