"""Pyramid and hierarchy of one model together: levels of images and texts in the same C channels."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..models.vlm import VLM
from . import taps
from .language import LanguageHierarchy, LiteralHierarchy
from .pyramid import Size, VisualPyramid, pooled, to_map


@dataclasses.dataclass(frozen=True)
class Levels:
    """maps: P2 to P5, (batch, C, row, column); vision: their means (batch, level, C); language: L1 to L4 (batch, level,
    C); image, text: the taps that they come from."""

    maps: list[Tensor]
    vision: Tensor
    language: Tensor
    image: taps.Taps
    text: taps.Taps


class Builder(nn.Module):
    """The levels of a model; channels C, sizes of P2 to P5 as rows and columns, literal: the plan's own language side."""

    def __init__(self, model: VLM, channels: int, sizes: Sequence[Size], literal: bool = False):
        super().__init__()
        self.vision = VisualPyramid([model.image.width] * len(sizes), channels, sizes)
        self.language = (LiteralHierarchy if literal else LanguageHierarchy)(model.text.width, channels)
        self.blocks = taps.block_numbers(model.image), taps.block_numbers(model.text)

    def forward(self, image: taps.Taps, text: taps.Taps) -> Levels:
        maps = self.vision([to_map(x, image.grid) for x in image.levels])
        texts = self.language(text.levels, text.mask, text.ends)
        return Levels(maps, pooled(maps), torch.stack(texts, dim=1), image, text)

    def tapped(self, model: VLM, images: Tensor, texts: list[str], leaf: bool = False):
        """The taps of images and of texts that `forward` takes."""
        pictures, words = self.blocks
        return taps.of_images(model, images, pictures, leaf=leaf), taps.of_texts(model, texts, words, leaf)
