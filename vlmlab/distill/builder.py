"""Pyramid and hierarchy of one model together: levels of images and texts in the same C channels."""

import dataclasses
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.vlm import VLM
from . import taps
from .language import LanguageHierarchy, LiteralHierarchy, masked_mean
from .pyramid import Size, VisualPyramid, pooled, resized, to_map


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
    """The levels of a model; channels: C of images and of texts, sizes of P2 to P5 as rows and columns, literal: the
    plan's own language side."""

    def __init__(self, model: VLM, channels: tuple[int, int], sizes: Sequence[Size], literal: bool = False):
        super().__init__()
        self.vision = VisualPyramid([model.image.width] * len(sizes), channels[0], sizes)
        self.language = (LiteralHierarchy if literal else LanguageHierarchy)(model.text.width, channels[1])
        self.blocks = block_numbers(model)

    def forward(self, image: taps.Taps, text: taps.Taps) -> Levels:
        maps = self.vision([to_map(x, image.grid) for x in image.levels])
        texts = self.language(text.levels, text.mask, text.ends)
        return Levels(maps, pooled(maps), torch.stack(texts, dim=1), image, text)


class PlainBuilder(nn.Module):
    """The levels of a model as its taps are, normalised over channels, where nothing of the teacher's is learnt.

    components: of the principal axes of each tap, found by `fit`, that are kept; None: the taps themselves.
    """

    def __init__(self, model: VLM, components: int | None, sizes: Sequence[Size]):
        super().__init__()
        self.sizes, self.components, self.blocks = list(sizes), components, block_numbers(model)
        self.widths = model.image.width, model.text.width
        if components is not None and components > min(self.widths):
            raise ValueError(
                f"channels={components}, but the teacher's towers are {' and '.join(map(str, self.widths))} wide and "
                "have no more principal axes"
            )
        for side, width in zip(("vision", "language"), self.widths):
            self.register_buffer(f"{side}_axes", torch.zeros(len(sizes), width, components or 0))

    def forward(self, image: taps.Taps, text: taps.Taps) -> Levels:
        patches = [self.reduced("vision", k, x) for k, x in enumerate(image.levels)]
        maps = [resized(to_map(x, image.grid), size) for x, size in zip(patches, self.sizes)]
        words = [self.reduced("language", k, x) for k, x in enumerate(text.levels)]
        last = words[-1][torch.arange(len(words[-1]), device=words[-1].device), text.ends]
        texts = [*(masked_mean(x, text.mask) for x in words[:-1]), last]
        return Levels(maps, pooled(maps), torch.stack(texts, dim=1), image, text)

    def reduced(self, side: str, level: int, x: Tensor) -> Tensor:
        """(batch, token, C) of a tap (batch, token, width)."""
        x = F.layer_norm(x.float(), x.shape[-1:])
        return x if self.components is None else x @ getattr(self, f"{side}_axes")[level]

    @torch.no_grad()
    def fit(self, tapped: Iterable[tuple[taps.Taps, taps.Taps]]) -> None:
        """Find the principal axes of the tokens of some taps of images and texts."""
        sums = {side: 0.0 for side in ("vision", "language")}
        for image, text in tapped:
            seen = {"vision": image.levels, "language": [x[text.mask] for x in text.levels]}
            for side, levels in seen.items():
                rows = torch.stack([F.layer_norm(x.double(), x.shape[-1:]).flatten(0, -2) for x in levels])
                ones = torch.cat([rows, torch.ones_like(rows[..., :1])], dim=-1)
                sums[side] = sums[side] + ones.transpose(1, 2) @ ones  # products, sums and the count in one
        for side, moments in sums.items():
            getattr(self, f"{side}_axes").copy_(torch.stack([axes(m, self.components) for m in moments]))


def axes(moments: Tensor, count: int) -> Tensor:
    """(width, count) leading eigenvectors of the covariance in (width + 1, width + 1) moments, each with its largest
    entry positive."""
    mean = moments[:-1, -1] / moments[-1, -1]
    vectors = torch.linalg.eigh(moments[:-1, :-1] / moments[-1, -1] - mean[:, None] * mean).eigenvectors
    vectors = vectors.flip(1)[:, :count]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign()


def block_numbers(model: VLM) -> tuple[list[int], list[int]]:
    return taps.block_numbers(model.image), taps.block_numbers(model.text)


def tapped(builder: nn.Module, model: VLM, images: Tensor, texts: list[str], leaf: bool = False):
    """The taps of images and of texts that a builder takes."""
    pictures, words = builder.blocks
    return taps.of_images(model, images, pictures, leaf=leaf), taps.of_texts(model, texts, words, leaf)
