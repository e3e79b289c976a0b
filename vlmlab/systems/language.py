"""A small LLaMA (Touvron et al. 2023) that has read captions and seen no image: what others put images before.

Flamingo, BLIP-2 and LLaVA stand on a finished run of it, which they leave as it is.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from torch import Tensor

from .. import feeds
from ..learner import Batch, Stage
from ..schema import Amount, Count
from .layers import deviation
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
        context: Count = 32

    @dataclasses.dataclass(frozen=True)
    class Options(Writer.Options):
        steps: Count = 250
        batch: Count = 64
        lr: Amount = 2e-3

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

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        o, texts = options, list(self.read_by(task))
        order = feeds.Epochs(len(texts), o.batch, seed)

        def feed(first: int) -> Iterator[Batch]:
            return ({"text": [texts[i] for _, i in rows]} for rows in order.batches(first, o.steps))

        return [self.stage("captions", o, feed)]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """lm of text."""
        return {"lm": self.lm_loss(batch["text"], None)}

    def look(self, images: Tensor) -> None:
        return None

    def write(self, ids: Tensor, real: Tensor, seen: None = None) -> Tensor:
        return self.llama(input_ids=ids, attention_mask=real.long()).logits

    def one(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as the model takes them, and `vlmlab.capture(run.model.llama, ...)`."""
        ids, real = self.ids(texts)
        return {"input_ids": ids, "attention_mask": real.long()}
