"""BLIP-2 (Li et al. 2023): a Q-Former learns what images say, then says it to a frozen language model.

A few learnt queries look at the image in every second block of a BERT (Hugging Face's Q-Former); words pass through the same
self-attention and an MLP of their own. In the first stage there is no language model; who looks at whom tells three tasks
apart (`MASKS`). In the second a layer turns what the queries found into vectors that the language model reads before a text.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..learner import Batch, Stage
from ..schema import Amount, Count
from . import layers, matching
from .between import Prompted
from .system import Share
from .words import DEC

# whether one token looks at another, of whether they are queries, and whether the other comes no later
MASKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "apart": lambda query, other, earlier: query == other,
    "together": lambda query, other, earlier: torch.ones_like(earlier),
    "writing": lambda query, other, earlier: other | (earlier & ~query),
}


class Blip2(Prompted):
    """Finds out what images say, tells pairs apart, writes captions."""

    differs = "starts from nothing, not from BERT; whole words of the language model in both stages"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Sizes of the Q-Former. queries: vectors of an image; every: blocks for one cross-attention; joint: of what is
        compared."""

        width: Count = 64
        heads: Count = 4
        layers: Count = 4
        queries: Count = 8
        every: Count = 2
        joint: Count = 64
        dropout: Share = 0.0

    @dataclasses.dataclass(frozen=True)
    class Options(Prompted.Options):
        """steps: of the first stage; write_steps: of the second; align: whether there is a first; smoothing: of ITC."""

        steps: Count = 200
        lr: Amount = 1e-3
        weight_decay: float = 0.05
        write_steps: Count = 150
        align: bool = True
        smoothing: Share = 0.1

    def __init__(self, models, config):
        super().__init__(models, config)
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        c, sizes = config, self.sizes
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=c.width,
                num_hidden_layers=c.layers,
                num_attention_heads=c.heads,
                intermediate_size=4 * c.width,
                hidden_dropout_prob=c.dropout,
                attention_probs_dropout_prob=c.dropout,
                max_position_embeddings=sizes.context,
                cross_attention_frequency=c.every,
                encoder_hidden_size=self.vision.image.width,
                use_qformer_text_input=True,
                initializer_range=layers.deviation(c.width),
            )
        )
        self.query = nn.Parameter(torch.randn(c.queries, c.width) * layers.deviation(c.width))
        self.words_of = nn.Embedding(sizes.vocabulary, c.width)
        self.places = nn.Embedding(sizes.context, c.width)
        self.seen_norm = nn.LayerNorm(self.vision.image.width)
        self.image_joint, self.text_joint = (nn.Linear(c.width, c.joint) for _ in range(2))
        self.itm, self.head = nn.Linear(c.width, 2), layers.WordHead(self.words_of)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.project = nn.Linear(c.width, sizes.width)
        for part in (self.words_of, self.places, self.image_joint, self.text_joint, self.itm, self.head):
            layers.initialise(part, c.width)
        self.to(self.device)

    @classmethod
    def real(cls) -> Config:
        """A Q-Former as large as BERT-base (188 M parameters on a ViT-g)."""
        return cls.Config(768, 12, 12, 32, 2, 256, 0.1)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        o = options
        second = dataclasses.replace(o, steps=o.write_steps)
        feed = self.pairs(task, o, seed)
        smoothed = lambda n: (batch | {"smoothing": o.smoothing} for batch in feed(n))
        found = [self.stage("write", second, self.pairs(task, second, seed))]
        return [self.stage("align", o, smoothed), *found] if o.align else found

    @property
    def tokens(self) -> int:
        return self.config.queries

    def attended(self, seen: Tensor, ids: Tensor, real: Tensor, how: str) -> Tensor:
        """(batch, query + token, width) of the Q-Former; seen (batch, patch, width of the images), ids and which of them are
        words (batch, token), how: see `MASKS`. Queries alone are beside texts of no tokens."""
        x = self.words_of(ids) + self.places.weight[: ids.shape[1]]
        x = torch.cat([self.query.expand(len(seen), -1, -1), x], 1)
        mask = allowed(how, len(self.query), real)
        shown = torch.zeros(mask.shape, device=x.device).masked_fill(~mask, torch.finfo(x.dtype).min)
        out = self.qformer.encoder(
            self.qformer.dropout(self.qformer.layernorm(x)),
            attention_mask=shown,
            encoder_hidden_states=self.seen_norm(seen),
            query_length=len(self.query),
        )
        return out.last_hidden_state

    def queries(self, pixel_values: Tensor) -> Tensor:
        """(batch, query, width): what the queries find in images (batch, 3, height, width)."""
        return self.alone(self.see(pixel_values))

    def alone(self, seen: Tensor) -> Tensor:
        none = torch.zeros(len(seen), 0, dtype=torch.long, device=seen.device)
        return self.attended(seen, none, none.bool(), "apart")

    def link(self, seen: Tensor) -> Tensor:
        """(batch, query, width of the language model)."""
        return self.project(self.alone(seen))

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Of text and what is seen: itc, itm and itg, or in the second stage lm."""
        if stage is None or stage.name == "write":
            return super().losses(batch)
        seen, texts, count = self.seen(batch), batch["text"], len(self.query)
        ids, real = self.ids(texts)
        apart = self.attended(seen, ids, real, "apart")
        logits = self.similarity(apart[:, :count], apart[:, count]) / self.temperature
        own, how = torch.arange(len(seen), device=seen.device), {"label_smoothing": batch["smoothing"]}
        itc = (F.cross_entropy(logits, own, **how) + F.cross_entropy(logits.T, own, **how)) / 2
        with torch.no_grad():
            images, words, labels = matching.to_match(logits, matching.equal(texts, logits.device))
        itm = F.cross_entropy(self.matched(seen[images], ids[words], real[words]), labels)
        ids = torch.cat([torch.full_like(ids[:, :1], DEC), ids[:, 1:]], 1)
        log_p = self.known(self.head(self.attended(seen, ids, real, "writing")[:, count:-1]))
        itg = F.cross_entropy(log_p[real[:, 1:]], ids[:, 1:][real[:, 1:]])
        return {"itc": itc, "itm": itm, "itg": itg}

    def similarity(self, queries: Tensor, texts: Tensor) -> Tensor:
        """(image, text): the largest cosine over the queries of an image; queries (image, query, width), texts (text,
        width) as the Q-Former gives them."""
        z = F.normalize(self.image_joint(queries), dim=2)
        return (z @ F.normalize(self.text_joint(texts), dim=1).T).amax(1)

    def matched(self, seen: Tensor, ids: Tensor, real: Tensor) -> Tensor:
        """(batch, 2) logits of whether text and image belong together, the mean over queries."""
        return self.itm(self.attended(seen, ids, real, "together")[:, : len(self.query)]).mean(1)

    def match(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """(batch,) logits of whether each text belongs to its image; above 0 it does."""
        both = self.matched(self.see(images), *self.ids(texts))
        return both[:, 1] - both[:, 0]


def allowed(how: str, queries: int, real: Tensor) -> Tensor:
    """bool (batch, 1, row, column): whether a token looks at another, queries first, then the words of texts of which
    `real` (batch, token) are there."""
    there = F.pad(real, (queries, 0), value=True)
    is_query = torch.arange(there.shape[1], device=real.device) < queries
    earlier = layers.causal(there.shape[1], real.device)
    return MASKS[how](is_query[:, None], is_query[None], earlier) & there[:, None, None]
