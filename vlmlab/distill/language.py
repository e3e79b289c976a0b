"""The language hierarchy L1 to L4: words, phrases, the sentence, and the token at which the model reads a text."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = ("L1", "L2", "L3", "L4")
PHRASE = 3  # words of a phrase


class AttentionPool(nn.Module):
    """Tokens (batch, token, width) -> (batch, width): their mean, weighted by one learned query."""

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """mask: bool (batch, token); what is false has no weight. No sample sees another."""
        scores = (x @ self.query) / math.sqrt(x.shape[-1])
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
        return torch.einsum("bt,btd->bd", weights, x)


class LanguageHierarchy(nn.Module):
    """width: of the text tower; channels: C of every level.

    L1 is the mean of projected words, L2 a pooling of phrases of three words, L3 of all words, L4 the token at which
    the tower is read (EOS of CLIP): no level sees padding. Taps are normalised over channels first, as images' are.
    """

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(width, channels) for _ in LEVELS)
        self.phrases, self.sentence = AttentionPool(width), AttentionPool(width)

    def forward(self, levels: Sequence[Tensor], mask: Tensor, ends: Tensor) -> list[Tensor]:
        """levels: four (batch, token, width); mask: bool (batch, token); ends: (batch,) -> four (batch, C)."""
        words, phrases, sentence, last = (F.layer_norm(x.float(), x.shape[-1:]) for x in levels)
        one, two, three, four = self.project
        return [
            masked_mean(one(words), mask),
            two(self.phrases(*in_phrases(phrases, mask))),
            three(self.sentence(sentence, mask)),
            four(last[torch.arange(len(last), device=last.device), ends]),
        ]

    def words(self, levels: Sequence[Tensor]) -> Tensor:
        """(batch, token, C) of the words one by one, of which L1 is the mean."""
        return self.project[0](F.layer_norm(levels[0].float(), levels[0].shape[-1:]))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """(batch, C) means of tokens (batch, token, C) where mask (batch, token) is true."""
    weight = mask[..., None].to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1)


def in_phrases(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Means of three words side by side, one phrase per place, and which phrases are whole; a text of one or two words
    is one phrase. x (batch, token, width), words first, padding behind them."""
    weight = F.pad(mask, (0, PHRASE - 1)).to(x.dtype).unfold(1, PHRASE, 1)  # (batch, token, 3)
    parts = F.pad(x, (0, 0, 0, PHRASE - 1)).unfold(1, PHRASE, 1)  # (batch, token, width, 3)
    means = torch.einsum("btdw,btw->btd", parts, weight) / weight.sum(-1).clamp(min=1)[..., None]
    whole = weight.sum(-1) == PHRASE
    whole[:, 0] = True
    return means, whole


class LiteralHierarchy(nn.Module):
    """The hierarchy as the plan's code has it, for comparison: means with the padding, attention across the batch,
    and position 0 as the summary, which is the same for all texts of a causal tower."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(width, channels) for _ in LEVELS)
        heads = math.gcd(8, width)
        self.attention = nn.ModuleList(nn.MultiheadAttention(width, heads) for _ in range(2))

    def forward(self, levels: Sequence[Tensor], mask: Tensor, ends: Tensor) -> list[Tensor]:
        words, phrases, sentence, last = (x.float() for x in levels)
        phrases, sentence = (a(x, x, x)[0] for a, x in zip(self.attention, (phrases, sentence)))
        pooled = words.mean(1), phrases.mean(1), sentence.mean(1), last[:, 0]
        return [project(x) for project, x in zip(self.project, pooled)]
