"""BERT (Devlin et al. 2019): masked words and next sentences, on Hugging Face's classes.

15 % of the words are selected; of these 80 % become [MASK], 10 % a random word, 10 % stay. Of two parts A and B of a
document, cut between two sentences, B is in half of the cases the end of another document; whether it is A's own is read at
[CLS]. The loss is the sum of both.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import feeds
from ..learner import Batch, Feed, Stage
from ..schema import Amount, Count
from .documents import Document, documents
from .layers import deviation
from .masking import Corrupted, corrupted, masked_loss
from .system import Share, System
from .words import CLS, MASK, SEP, SPECIAL, padded

TEXTS = 64  # with one word masked each, read at a time


class Bert(System):
    """Fills in masked words, tells whether one text follows another."""

    differs = "whole words of the training texts for WordPiece"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """segments: whether words know if they are of A or of B."""

        width: Count = 64
        heads: Count = 4
        layers: Count = 3
        vocabulary: Count = 512
        context: Count = 48
        dropout: Share = 0.0
        segments: bool = True

    @dataclasses.dataclass(frozen=True)
    class Options(System.Options):
        """masked: share of the words that are selected."""

        steps: Count = 1000
        batch: Count = 32
        lr: Amount = 2e-3
        masked: Share = 0.15

    def __init__(self, models, config):
        super().__init__(models, config)
        try:
            from transformers import BertConfig, BertForPreTraining
        except ImportError as e:
            raise ValueError(f'bert is built of transformers ({e}); pip install "vlmlab[hf]"') from e
        c = config
        self.bert = BertForPreTraining(
            BertConfig(
                vocab_size=c.vocabulary,
                hidden_size=c.width,
                num_hidden_layers=c.layers,
                num_attention_heads=c.heads,
                intermediate_size=4 * c.width,
                hidden_dropout_prob=c.dropout,
                attention_probs_dropout_prob=c.dropout,
                max_position_embeddings=c.context,
                initializer_range=deviation(c.width),
            )
        )

    @classmethod
    def real(cls) -> Config:
        """BERT-base (110 M parameters)."""
        return cls.Config(768, 12, 12, 30522, 512, 0.1)

    def read_by(self, task) -> Iterable[str]:
        return (text for document in documents(task) for text in document)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        return [self.stage("pretrain", options, self.halves(documents(task), options, seed))]

    def halves(self, found: Sequence[Document], o: Options, seed: int) -> Feed:
        """Batches of first, second (texts), follows (0 or 1), and masked, the share to select."""
        order = feeds.Epochs(len(found), o.batch, seed)

        def batches(first: int) -> Iterator[Batch]:
            for rows in order.batches(first, o.steps):
                cut = [halves(found, i, np.random.default_rng([seed, epoch, i])) for epoch, i in rows]
                a, b, follows = zip(*cut)
                yield {
                    "first": list(a),
                    "second": list(b),
                    "follows": torch.tensor(follows),
                    "masked": o.masked,
                }

        return batches

    def two(self, first: Sequence[str], second: Sequence[str]) -> dict[str, Tensor]:
        """[CLS] A [SEP] B [SEP] as the model takes it, all (text, token); ValueError for what is longer than context."""
        rows = [([CLS, *self.words.ids(a), SEP], [*self.words.ids(b), SEP]) for a, b in zip(first, second)]
        if (longest := max(len(a) + len(b) for a, b in rows)) > self.config.context:
            raise ValueError(
                f"two texts have {longest} tokens together; raise context ({self.config.context})"
            )
        ids, real = padded([a + b for a, b in rows], self.device)
        starts = torch.tensor([len(a) for a, _ in rows], device=ids.device)
        segment = (torch.arange(ids.shape[1], device=ids.device) >= starts[:, None]) & real
        kinds = segment.long() * int(self.config.segments)
        return {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": kinds}

    def one(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """[CLS] A [SEP] as the model takes it, and `vlmlab.capture(run.model.bert, ...)`."""
        ids, real = self.ids(texts)
        return {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": torch.zeros_like(ids)}

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """mlm and nsp of first, second, follows and masked."""
        given = self.two(batch["first"], batch["second"])
        hidden = corrupted(given["input_ids"], len(self.words), batch["masked"])
        out, answer = self.bert(**given | {"input_ids": hidden.ids}), 1 - batch["follows"]
        self.right = (out.seq_relationship_logits.argmax(1) == answer).float().mean()
        return {
            "mlm": masked_loss(self.known(out.prediction_logits), hidden.labels),
            "nsp": F.cross_entropy(out.seq_relationship_logits, answer),
        }

    def beside(self, batch: Batch, terms) -> dict[str, Tensor]:
        """follows_right: share of the batch's pairs of which it tells rightly whether they belong together."""
        return {"follows_right": self.right}

    @torch.no_grad()
    def predicted(
        self, first: Sequence[str], second: Sequence[str], seed: int = 0
    ) -> tuple[Corrupted, Tensor]:
        """Words of two texts corrupted as in training, the same for a seed, and the words predicted, (text, token):
        `masking.KINDS` tells how each was corrupted."""
        given, generator = self.two(first, second), torch.Generator().manual_seed(seed)
        hidden = corrupted(given["input_ids"], len(self.words), generator=generator)
        logits = self.bert(**given | {"input_ids": hidden.ids}).prediction_logits
        return hidden, self.known(logits).argmax(2)

    @torch.no_grad()
    def follows(self, first: Sequence[str], second: Sequence[str]) -> Tensor:
        """(text,) probability that the second follows the first."""
        return self.bert(**self.two(first, second)).seq_relationship_logits.softmax(1)[:, 0]

    def fill(self, images: object, texts: list[str]) -> list[str]:
        """Each text with the likeliest word at every [MASK]; images are not looked at."""
        given = self.one(texts)
        logits = self.known(self.bert(**given).prediction_logits)
        best = logits[..., len(SPECIAL) :].argmax(2) + len(SPECIAL)
        ids = given["input_ids"]
        return [self.words.text(row[1:]) for row in torch.where(ids == MASK, best, ids).tolist()]

    def log_likelihood(self, images: object, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Pseudo-log-likelihood (Salazar et al. 2020): each word masked in turn and found from all others. Sums and number
        of words, both (text,); images are not looked at."""
        ids = self.one(texts)["input_ids"]
        at = (ids >= len(SPECIAL)).nonzero()
        found = (
            torch.cat([self.log_p(ids, part) for part in at.split(TEXTS)]) if len(at) else ids.new_zeros(0)
        )
        sums = torch.zeros(len(ids), device=ids.device).index_add(0, at[:, 0], found.float())
        return sums, (ids >= len(SPECIAL)).sum(1)

    def log_p(self, ids: Tensor, at: Tensor) -> Tensor:
        """(word,) log-probability of the words at places (word, 2: text and token), each hidden alone."""
        row, place = at.T
        hidden = ids[row].index_put((torch.arange(len(at), device=ids.device), place), torch.tensor(MASK))
        real = (hidden != 0).long()
        logits = self.bert(input_ids=hidden, attention_mask=real).prediction_logits
        chosen = self.known(logits[torch.arange(len(at)), place]).log_softmax(1)
        return chosen.gather(1, ids[row, place][:, None])[:, 0]


def halves(found: Sequence[Document], i: int, rng: np.random.Generator) -> tuple[str, str, int]:
    """Document i cut between two sentences, its second part in half of the cases that of another one: A, B, and whether
    they belong together (1)."""
    cut = int(rng.integers(1, len(found[i])))
    own = len(found) < 2 or rng.random() < 0.5
    j = i if own else (i + int(rng.integers(1, len(found)))) % len(found)
    end = found[j][cut:] or found[j][-1:]
    return " . ".join(found[i][:cut]), " . ".join(end), int(own)
