"""What writes texts word by word has in common: its loss, what it finds likely, what it goes on to write."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import decoding
from .system import System
from .words import CLS, SEP, SPECIAL, UNK

UNSAID = [i for i in range(len(SPECIAL)) if i not in (SEP, UNK)]  # that stand in no text


class Writer(System):
    """Writes texts, about an image where it is shown one. Subclasses say how they look (`look`) and which word follows
    (`write`)."""

    first = CLS  # the token that a text begins with

    def look(self, images: Tensor) -> Tensor | None:
        """What it makes of images (batch, 3, height, width): a row for each; None where it does not look at all."""
        raise NotImplementedError

    def write(self, ids: Tensor, real: Tensor, seen: Tensor | None = None) -> Tensor:
        """(batch, token, vocabulary) logits of the word after each of ids (batch, token), of which `real` are words;
        seen: what `look` gives, None reads without an image."""
        raise NotImplementedError

    def log_p(
        self, texts: Sequence[str], seen: Tensor | None, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each next word, [SEP] included, and which of them there are, both (text, token - 1).
        smoothing: of the true word with all others, for training."""
        ids, real = self.ids(texts, first=self.first)
        logits = self.known(self.write(ids[:, :-1], real[:, :-1], seen))
        loss = F.cross_entropy(
            logits.transpose(1, 2), ids[:, 1:], reduction="none", label_smoothing=smoothing
        )
        return -loss, real[:, 1:]

    def lm_loss(
        self,
        texts: Sequence[str],
        seen: Tensor | None,
        smoothing: float = 0.0,
        given: Sequence[int] | None = None,
    ) -> Tensor:
        """Mean cross-entropy of the words. given: of each text the number of first words that are not asked for."""
        log_p, asked = self.log_p(texts, seen, smoothing)
        if given is not None:
            places = torch.arange(asked.shape[1], device=asked.device)
            asked = asked & (places >= torch.tensor(given, device=asked.device)[:, None])
        return -log_p[asked].mean()

    def log_likelihood(self, images: Tensor | None, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Sums of the words' log-probabilities, [SEP] included, and their numbers, both (text,)."""
        log_p, real = self.log_p(texts, None if images is None else self.look(images))
        return (log_p * real).sum(1), real.sum(1)

    def generate(
        self, images: Tensor, texts: list[str], how: str = "greedy", length: int = 20, **options
    ) -> list[str]:
        """Captions of images that go on from texts, in at most `length` new words; options: see `decoding`. The texts that
        are gone on from stand at their beginning."""
        found, seen = list(texts), self.look(images)
        starts = [self.words.ids(text) for text in texts]
        for n in sorted({len(start) for start in starts}):  # those of one length together
            rows = [i for i, start in enumerate(starts) if len(start) == n]
            ids = torch.tensor([[self.first, *starts[i]] for i in rows], device=self.device)

            def following(ids: Tensor, of: Tensor | None = None if seen is None else seen[rows]) -> Tensor:
                if of is not None:  # beams of an image lie side by side
                    of = of.repeat_interleave(len(ids) // len(of), 0)
                logits = self.known(self.write(ids, torch.ones_like(ids, dtype=torch.bool), of)[:, -1])
                return logits.index_fill(1, torch.tensor(UNSAID, device=ids.device), -torch.inf)

            most = min(length, self.sizes.context - 1 - n)
            said = decoding.texts(self.words, following, ids, most, SEP, how, **options)
            for i, text in zip(rows, said):
                found[i] = f"{texts[i]} {text}".strip()
        return found
