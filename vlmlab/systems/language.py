"""A small LLaMA (Touvron et al. 2023) that has read captions and seen no image: what others put images before.

Flamingo, BLIP-2 and LLaVA stand on a finished run of it, which they leave as it is. It has learnt to go on from what stands
before a caption: where else would it take what an image says? So most captions follow other sentences about the same image,
and some free places, as many as vectors of an image may take.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import feeds
from ..learner import Batch, Stage
from ..schema import Amount, Count, Whole
from .documents import sentences
from .layers import deviation
from .system import Share
from .words import CLS, SEP, padded
from .writing import Writer


class Language(Writer):
    """Writes captions without looking."""

    differs = "whole words of the training texts for SentencePiece; learnt from captions alone"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Its sizes. hidden: of the gated MLPs."""

        width: Count = 96
        heads: Count = 4
        layers: Count = 4
        hidden: Count = 256
        vocabulary: Count = 512
        context: Count = 128

    @dataclasses.dataclass(frozen=True)
    class Options(Writer.Options):
        """told: share of the captions before which others of the same image stand; gap: most places left free between."""

        steps: Count = 400
        batch: Count = 64
        lr: Amount = 2e-3
        told: Share = 0.7
        gap: Whole = 64

    def __init__(self, models, config):
        super().__init__(models, config)
        try:
            from transformers import LlamaConfig, LlamaForCausalLM
        except ImportError as e:
            raise ValueError(f'language is built of transformers ({e}); pip install "vlmlab[hf]"') from e
        c = config
        self.llama = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=c.vocabulary,
                hidden_size=c.width,
                intermediate_size=c.hidden,
                num_hidden_layers=c.layers,
                num_attention_heads=c.heads,
                max_position_embeddings=c.context,
                initializer_range=deviation(c.width),
                tie_word_embeddings=False,
                use_cache=False,
            )
        )

    @classmethod
    def real(cls) -> Config:
        """LLaMA-7B (6.7 G parameters), which LLaVA stands on as Vicuna."""
        return cls.Config(4096, 32, 32, 11008, 32000, 2048)

    def read_by(self, task) -> list[str]:
        """The captions, and what else is said of the images."""
        return [*super().read_by(task), *(text for document in sentences(task) for text in document)]

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        o, train, said = options, task.train, sentences(task)
        order = feeds.Epochs(len(train.texts), o.batch, seed)

        def feed(first: int) -> Iterator[Batch]:
            for step, rows in enumerate(order.batches(first, o.steps), first):
                rng, texts = np.random.default_rng([seed, step]), [train.texts[i] for _, i in rows]
                others = [[t for t in said[train.image_of[i]] if t != train.texts[i]] for _, i in rows]
                told = [some(of, rng) if rng.random() < o.told else "" for of in others]
                yield {"text": texts, "told": told, "gap": rng.integers(0, o.gap + 1, len(texts)).tolist()}

        return [self.stage("captions", o, feed)]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """lm of text, which follows `told` and `gap` free places where there is something told."""
        told = [self.words.ids(text) for text in batch["told"]]
        rows = [[*t, CLS, *self.words.ids(text), SEP] for t, text in zip(told, batch["text"])]
        ids, real = padded(rows, self.device)
        start, gap = (
            torch.tensor([[len(t), g if t else 0] for t, g in zip(told, batch["gap"])]).to(ids).T[..., None]
        )
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        at = places + gap * (places >= start)
        logits = self.known(self.llama(input_ids=ids, attention_mask=real.long(), position_ids=at).logits)
        loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        return {"lm": loss[real[:, 1:] & (places[:, 1:] > start)].mean()}

    def look(self, images: Tensor) -> None:
        return None

    def write(self, ids: Tensor, real: Tensor, seen: None = None) -> Tensor:
        return self.llama(input_ids=ids, attention_mask=real.long()).logits

    def one(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as the model takes them, and `vlmlab.capture(run.model.llama, ...)`."""
        ids, real = self.ids(texts)
        return {"input_ids": ids, "attention_mask": real.long()}


def some(texts: Sequence[str], rng: np.random.Generator) -> str:
    """One or more of texts in any order, as one; nothing of none."""
    count = int(rng.integers(1, len(texts) + 1)) if texts else 0
    return " ".join(texts[i] for i in rng.permutation(len(texts))[:count])
