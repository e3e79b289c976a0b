"""The Transformer (Vaswani et al. 2017): an encoder reads a text, a decoder writes what says the same.

Three masks tell who may look at what: in the encoder all words at all words, in the decoder a word at itself and earlier
ones, and from the decoder all at all words of the encoder; nobody looks at padding.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import feeds
from ..learner import Batch, Stage
from ..schema import Amount, Count
from . import decoding, layers
from .documents import translations
from .system import Share, System
from .words import CLS, SEP


class Transformer(System):
    """Translates texts: captions that begin with either shape into sentences that begin with the left or upper one."""

    differs = "whole words of the training texts for byte pairs; initial weights as in BERT"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """layers: of the encoder and of the decoder; hidden: of the MLPs."""

        width: Count = 64
        heads: Count = 4
        layers: Count = 2
        hidden: Count = 256
        vocabulary: Count = 512
        context: Count = 32
        dropout: Share = 0.0

    @dataclasses.dataclass(frozen=True)
    class Options(System.Options):
        """smoothing: of labels."""

        steps: Count = 400
        batch: Count = 64
        lr: Amount = 2e-3
        weight_decay: float = 0.0
        smoothing: Share = 0.1

    def __init__(self, models, config):
        super().__init__(models, config)
        c = config
        self.embedding, self.dropout = nn.Embedding(c.vocabulary, c.width), nn.Dropout(c.dropout)
        block = {"width": c.width, "heads": c.heads, "hidden": c.hidden, "dropout": c.dropout}
        block |= {"activation": nn.ReLU, "eps": 1e-5}
        self.encoder = nn.ModuleList(layers.Block(**block) for _ in range(c.layers))
        self.decoder = nn.ModuleList(layers.Block(cross=c.width, **block) for _ in range(c.layers))
        layers.initialise(self, c.width)
        nn.init.normal_(self.embedding.weight, std=c.width**-0.5)  # `embed` scales it back

    @classmethod
    def real(cls) -> Config:
        """The big Transformer (213 M parameters, 37,000 words of both languages)."""
        return cls.Config(1024, 16, 6, 4096, 37000, 512, 0.3)

    def read_by(self, task) -> Iterable[str]:
        return (text for pair in translations(task) for text in pair)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        o, found = options, translations(task)
        order = feeds.Epochs(len(found), o.batch, seed)

        def feed(first: int) -> Iterator[Batch]:
            for rows in order.batches(first, o.steps):
                source, target = zip(*(found[i] for _, i in rows))
                yield {"source": list(source), "target": list(target), "smoothing": o.smoothing}

        how = {"betas": (0.9, 0.98), "eps": 1e-9}
        return [self.stage("translate", o, feed, "adam", options=how)]

    def embed(self, ids: Tensor) -> Tensor:
        """(batch, token, width): words times the root of the width, plus places."""
        x = self.embedding(ids) * math.sqrt(self.config.width)
        return self.dropout(x + places(ids.shape[1], self.config.width, ids.device))

    def masks(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """encoder, decoder and cross, bool (batch, query, key), true where a query looks; source and target (batch,
        token) are true for words."""
        n, m = source.shape[1], target.shape[1]
        now = layers.causal(m, target.device) & target[:, None]
        return {
            "encoder": source[:, None].expand(-1, n, -1),
            "decoder": now,
            "cross": source[:, None].expand(-1, m, -1),
        }

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, token, width) of the encoder; ids and which of them are words, both (batch, token)."""
        x = self.embed(input_ids)
        mask = self.masks(attention_mask.bool(), attention_mask.bool())["encoder"][:, None]
        for block in self.encoder:
            x = block(x, mask)
        return x

    def write(self, ids: Tensor, read: Tensor, source: Tensor, target: Tensor | None = None) -> Tensor:
        """(batch, token, vocabulary) logits of the word after each of ids (batch, token); read (batch, key, width) and
        source (batch, key) are the encoder's; target: which of ids are words, by default all."""
        masks = self.masks(source, torch.ones_like(ids, dtype=torch.bool) if target is None else target)
        x = self.embed(ids)
        for block in self.decoder:
            x = block(x, masks["decoder"][:, None], read, masks["cross"][:, None])
        return F.linear(x, self.embedding.weight)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor,
    ) -> Tensor:
        """Logits of the decoder, see `inputs`."""
        real, target = attention_mask.bool(), decoder_attention_mask.bool()
        return self.write(decoder_input_ids, self.read(input_ids, real), real, target)

    def inputs(self, sources: Sequence[str], targets: Sequence[str]) -> dict[str, Tensor]:
        """What `forward`, and `vlmlab.capture`, take of texts and of what is written for them."""
        named = zip(("", "decoder_"), (self.ids(sources), self.ids(targets)))
        return {
            f"{side}{k}": v for side, pair in named for k, v in zip(("input_ids", "attention_mask"), pair)
        }

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Cross-entropy of the words of target, given source and the words before, both texts."""
        ids, source = self.ids(batch["source"])
        said, target = self.ids(batch["target"])
        logits = self.write(said[:, :-1], self.read(ids, source), source, target[:, :-1])
        at = target[:, 1:]
        loss = F.cross_entropy(
            self.known(logits[at]), said[:, 1:][at], label_smoothing=batch.get("smoothing", 0.0)
        )
        return {"ce": loss}

    def translate(
        self,
        texts: Sequence[str],
        how: Literal["greedy", "beam", "nucleus"] = "greedy",
        length: int | None = None,
        **options,
    ) -> list[str]:
        """What it makes of each text, in at most `length` words; options: see `decoding`."""
        ids, source = self.ids(texts)
        read = self.read(ids, source)

        def following(rows: Tensor) -> Tensor:
            times = len(rows) // len(ids)  # beams of a text lie side by side
            seen, real = (x.repeat_interleave(times, 0) for x in (read, source))
            return self.known(self.write(rows, seen, real)[:, -1])

        start = torch.full((len(ids), 1), CLS, device=self.device)
        return decoding.texts(
            self.words, following, start, length or self.config.context - 1, SEP, how, **options
        )


def places(n: int, width: int, device: torch.device | None = None) -> Tensor:
    """(n, width) of section 3.5: sines at even and cosines at odd channels, of wave lengths from 2 pi to 20000 pi."""
    rates = 10000 ** -(torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(n, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
