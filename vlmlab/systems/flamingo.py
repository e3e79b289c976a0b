"""Flamingo (Alayrac et al. 2022): a frozen language model that looks at images through gates that open in training.

A resampler makes a fixed number of vectors of an image. Before blocks of the language model words look at those of the
latest image before them (cross-attention), and what they find is added times tanh of a gate that starts at 0: at first the
model is the language model itself, to the bit. Resampler and gated blocks train, image encoder and language model do not.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..schema import Amount, Count
from . import layers
from .between import Between
from .perceiver import GatedBlock, Resampler
from .words import CLS, IMG, SEP, padded


class Flamingo(Between):
    """Writes about images, also about several between words."""

    differs = "the marks of images are not read by the language model, which has no vectors for them"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """latents: vectors of an image; heads, head: number and width of heads; every: blocks of the language model for
        one gated block; frames: most of a video."""

        latents: Count = 8
        resampler_layers: Count = 2
        heads: Count = 4
        head: Count = 32
        every: Count = 1
        frames: Count = 1

    @dataclasses.dataclass(frozen=True)
    class Options(Between.Options):
        batch: Count = 64
        lr: Amount = 2e-3

    def __init__(self, models, config):
        super().__init__(models, config)
        c, seen, width = config, self.vision.image.width, self.sizes.width
        self.resampler = Resampler(seen, c.latents, c.resampler_layers, c.heads, c.head, c.frames)
        blocks = range(0, self.sizes.layers, c.every)
        self.gated = nn.ModuleList(GatedBlock(width, seen, c.heads, c.head) for _ in blocks)
        for part, of in ((self.resampler, seen), (self.gated, width)):
            layers.initialise(part, of)
        self.to(self.device)

    @classmethod
    def real(cls) -> Config:
        """The 3B: a gated block before every block, 64 vectors of up to 8 frames."""
        return cls.Config(64, 6, 16, 128, 1, 8)

    def stages(self, task, options: Options, seed: int):
        return [self.stage("train", options, self.pairs(task, options, seed))]

    def beside(self, batch, terms) -> dict[str, Tensor]:
        """tanh of every gate: cross 1, mlp 1, ... from the first block on."""
        named = ((f"{k} {i}", g) for i, b in enumerate(self.gated, 1) for k, g in gates(b).items())
        return {name: gate.tanh() for name, gate in named}

    def link(self, seen: Tensor) -> Tensor:
        return self.resampler(seen[:, None])

    def look(self, images: Tensor) -> Tensor:
        """(batch, image times latent, width) of images (batch, 3, height, width), of several each (batch, image, 3, ...), or
        of videos (batch, image, frame, 3, ...)."""
        for at in (1, 2)[images.ndim - 4 :]:
            images = images.unsqueeze(at)
        seen = self.see(images.flatten(0, 2)).unflatten(0, images.shape[:3])
        return self.resampler(seen.flatten(0, 1)).unflatten(0, images.shape[:2]).flatten(1, 2)

    def write(
        self, ids: Tensor, real: Tensor, seen: Tensor | None = None, images: Tensor | None = None
    ) -> Tensor:
        """As every writer; images: int64 (batch, token), how many stand before each word, by default one."""
        if seen is None:
            return self.language.write(ids, real)
        images = torch.ones_like(ids) if images is None else images
        number = torch.arange(seen.shape[1], device=seen.device) // self.config.latents + 1
        mask = (images[..., None] == number)[:, None]
        with contextlib.ExitStack() as stack:
            for block, layer in zip(self.gated, self.language.llama.model.layers[:: self.config.every]):
                hook = through(block, seen, mask)
                handle = layer.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            return self.language.write(ids, real)

    def inputs(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """What `forward`, and `vlmlab.capture`, take: images as for `look`, and texts in which [IMG] marks where each
        stands; a text without a mark begins with one. ValueError for more marks than images.

        >>> model.inputs(torch.stack([first, second])[None], ["[IMG] a red circle [IMG] a blue heart"])
        """
        rows, counts = zip(*map(self.marked, texts))
        there = 1 if images.ndim == 4 else images.shape[1]
        if (most := max(map(max, counts))) > there:
            raise ValueError(f"a text marks {most} images with [IMG]; {there} are given with it")
        ids, real = padded(rows, self.device)
        given = {"pixel_values": images, "input_ids": ids, "attention_mask": real.long()}
        return given | {"images": padded(counts, self.device)[0]}

    def marked(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of a text without its marks, and how many images stand before each."""
        ids = self.words.ids(text)
        ids = ids if IMG in ids else [IMG, *ids]
        lead = len([*itertools.takewhile(lambda i: i == IMG, ids)])
        ids = [*ids[:lead], CLS, *ids[lead:], SEP]
        both = zip(ids, itertools.accumulate(int(i == IMG) for i in ids))
        ids, counts = zip(*[(i, n) for i, n in both if i != IMG])
        return list(ids[: self.sizes.context]), list(counts[: self.sizes.context])

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, images: Tensor | None = None
    ) -> Tensor:
        """(batch, token, vocabulary) logits, see `inputs`."""
        return self.write(input_ids, attention_mask, self.look(pixel_values), images)


def gates(block: GatedBlock) -> dict[str, nn.Parameter]:
    return {"cross": block.cross_gate, "mlp": block.mlp_gate}


def through(block: GatedBlock, seen: Tensor, mask: Tensor):
    """A hook that puts what enters a block of the language model through a gated one."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (block(args[0], seen, mask), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": block(kwargs["hidden_states"], seen, mask)}

    return hook
