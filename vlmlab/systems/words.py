"""Whole words as tokens: the vocabulary of a small set of texts, and texts as ids."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[ENC]", "[DEC]", "[IMG]")
PAD, UNK, CLS, SEP, MASK, ENC, DEC, IMG = range(len(SPECIAL))
MARKS = (SPECIAL[MASK], SPECIAL[IMG])  # that a text may hold


def split(text: str) -> list[str]:
    """'A red circle?' -> ['a', 'red', 'circle', '?']; [MASK] and [IMG] stay as they are."""
    return [w if w in MARKS else w.lower() for w in re.findall(r"\[MASK\]|\[IMG\]|\w+|[^\w\s]", text)]


def frequent(texts: Iterable[str], most: int) -> list[str]:
    """The words of texts, the most frequent first, as many as fit beside the special tokens into `most`.

    ValueError when `most` leaves no room for words.
    """
    if most <= len(SPECIAL):
        raise ValueError(
            f"vocabulary must be above {len(SPECIAL)}, the number of special tokens; it is {most}"
        )
    counts = Counter(word for text in texts for word in split(text) if word not in SPECIAL)
    return sorted(counts, key=lambda word: (-counts[word], word))[: most - len(SPECIAL)]


class Words:
    """Special tokens, then words: ids are positions in `all`."""

    def __init__(self, words: Sequence[str]):
        self.all = (*SPECIAL, *words)
        self.place = {word: i for i, word in enumerate(self.all)}

    def __len__(self) -> int:
        return len(self.all)

    def ids(self, text: str) -> list[int]:
        """Of the words alone; those not in the vocabulary are [UNK]."""
        return [self.place.get(word, UNK) for word in split(text)]

    def batch(
        self,
        texts: Sequence[str],
        context: int,
        device: torch.device | None = None,
        first: int = CLS,
        end: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """ids (batch, token), and bool (batch, token), true up to the end of each text.

        A text is `first`, its words, and [SEP] where `end`; what is longer than `context` loses its last words.
        """
        rows = [[first, *self.ids(text)[: context - 1 - end], *[SEP] * end] for text in texts]
        return padded(rows, device)

    def text(self, ids: Iterable[int]) -> str:
        """The words up to the first [SEP], without special tokens."""
        found = []
        for i in ids:
            if i == SEP:
                break
            found += [self.all[i]] if i >= len(SPECIAL) else []
        return " ".join(found)


def padded(rows: Sequence[Sequence[int]], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """ids (row, token) of rows of any length, [PAD] behind; and bool (row, token), true for what was given."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(longest, device=device) < lengths[:, None]
