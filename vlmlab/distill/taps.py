"""What a tower holds on its way: tokens behind some of its blocks, its pooled features and its embedding, from one
run, with gradients. The towers know their families, so that tokens come labelled, whatever the prefix or pooling."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..models.tokens import Edit, Tokens
from ..models.towers import Tower
from ..models.vlm import VLM
from ..token_labels import grid_by_shape


@dataclasses.dataclass(frozen=True)
class Taps:
    """levels: per tapped block (batch, token, width), of images the patches alone. pooled: (batch, width) behind the
    final norm, before the projection; embed: (batch, joint), not normalised. grid: rows and columns of the patches.
    first: all tokens behind the first tapped block. mask: bool (batch, token), true on the words of a text, its start and end included; ends: (batch,) the token at
    which it is read."""

    levels: tuple[Tensor, ...]
    pooled: Tensor
    embed: Tensor
    first: Tensor
    grid: tuple[int, int] | None = None
    mask: Tensor | None = None
    ends: Tensor | None = None


def block_numbers(tower: Tower, levels: int = 4) -> list[int]:
    """Blocks behind which levels 1 to K are read, evenly over the depth: 3, 6, 9, 12 of 12. ValueError for a tower of
    fewer blocks than levels."""
    if tower.depth < levels:
        raise ValueError(f"{levels} levels need as many blocks; the {tower.kind} tower has {tower.depth}")
    return [round(k * tower.depth / levels) for k in range(1, levels + 1)]


def grid_of(model: VLM) -> tuple[int, int]:
    """Rows and columns of the patches of a model's images."""
    visual = model.clip.visual
    return tuple(visual.trunk.patch_embed.grid_size if hasattr(visual, "trunk") else visual.grid_size)


def middle(tower: Tower) -> int:
    """The block in the middle: 6 of 12."""
    return max(1, tower.depth // 2)


def through(
    tower: Tower,
    tokens: Tokens,
    blocks: Sequence[int],
    edits: Mapping[int, Edit] | None = None,
    leaf: bool = False,
) -> tuple[list[Tokens], Tokens]:
    """The tokens behind each of some blocks, in rising order, and behind the last block of the tower.

    leaf: the graph begins with the tokens behind the first of them, whatever trains before.
    """
    found, done, edits = [], 0, dict(edits or {})
    for block in blocks:
        tokens = tower.run(tokens, within(edits, done, block), start=done + 1, stop=block)
        if leaf and not found:
            tokens = dataclasses.replace(tokens, x=tokens.x.detach().requires_grad_())
        found.append(tokens)
        done = block
    if done < tower.depth:
        tokens = tower.run(tokens, within(edits, done, tower.depth), start=done + 1)
    return found, tokens


def within(edits: Mapping[int, Edit], done: int, stop: int) -> dict[int, Edit]:
    return {layer: edit for layer, edit in edits.items() if done < layer <= stop}


def of_images(
    vlm: VLM,
    images: Tensor,
    blocks: Sequence[int],
    edits: Mapping[int, Edit] | None = None,
    leaf: bool = False,
) -> Taps:
    """Taps of images (batch, 3, height, width); edits as the tower's `forward` takes them, leaf as in `through`."""
    tower, edits = vlm.image, dict(edits or {})
    found, last = through(tower, tower.embed(images, edits.pop(0, None)), blocks, edits, leaf)
    levels = tuple(tokens.x[:, tokens.span("patch")] for tokens in found)
    span = last.span("patch")
    pooled = tower.pool(last)
    grid = grid_by_shape(span.stop - span.start, *images.shape[2:])
    return Taps(levels, pooled, tower.project(pooled), found[0].x, grid)


def of_texts(vlm: VLM, texts: list[str], blocks: Sequence[int], leaf: bool = False) -> Taps:
    """Taps of texts, cut behind the longest where the tower is causal; leaf as in `through`."""
    tower, ids = vlm.text, vlm.tokenize(texts)
    tokens = tower.embed(ids)
    found, last = through(tower, tokens, blocks, leaf=leaf)
    pooled = tower.pool(last)
    mask = words(tower, ids[:, : tokens.x.shape[1]], tokens.eos)
    levels = tuple(tokens.x for tokens in found)
    return Taps(levels, pooled, tower.project(pooled), levels[0], mask=mask, ends=tokens.eos)


def words(tower: Tower, ids: Tensor, ends: Tensor) -> Tensor:
    """bool (batch, token): what is no padding. A text that is read at its end has none before it; others are told by
    the id that they pad with."""
    at = torch.arange(ids.shape[1], device=ids.device)[None]
    if tower.read_at in ("argmax", "eos"):
        return at <= ends[:, None]
    return (ids != getattr(tower.text, "pad_id", 0)) | (at == ends[:, None])
