"""Texts word by word, for any model: the likeliest word, a beam of texts, or words drawn from a nucleus.

`following(ids)` gives the logits (batch, vocabulary) of the word after each row of ids (batch, token). A text ends with
the word `end` or after `length` new ones. Greedy and beam search choose as those of Hugging Face do.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .words import PAD, Words

Following = Callable[[Tensor], Tensor]
Scored = tuple[float, list[int]]


@torch.no_grad()
def sampled(
    following: Following,
    start: Tensor,
    length: int,
    end: int,
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """ids (batch, token) that begin with `start` (batch, prompt) and go on as `choose` takes words of logits (batch,
    vocabulary); [PAD] behind the end."""
    ids, done = start, torch.zeros(len(start), dtype=torch.bool, device=start.device)
    for _ in range(length):
        word = choose(following(ids)).masked_fill(done, PAD)
        ids, done = torch.cat([ids, word[:, None]], dim=1), done | (word == end)
        if bool(done.all()):
            break
    return ids


def greedy(following: Following, start: Tensor, length: int, end: int) -> Tensor:
    """The likeliest word each time, see `sampled`."""
    return sampled(following, start, length, end, lambda logits: logits.argmax(1))


def nucleus(
    following: Following,
    start: Tensor,
    length: int,
    end: int,
    p: float = 0.9,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Words drawn from the smallest set whose probabilities reach p (Holtzman et al. 2020), see `sampled`."""

    def choose(logits: Tensor) -> Tensor:
        return torch.multinomial(within(logits, p).softmax(1), 1, generator=generator)[:, 0]

    return sampled(following, start, length, end, choose)


def within(logits: Tensor, p: float) -> Tensor:
    """Logits (batch, vocabulary), -inf outside of the nucleus: the likeliest words that together have p, one or more.

    ValueError unless 0 < p <= 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p of the nucleus must be above 0 and at most 1; it is {p}")
    low, order = logits.sort(dim=1)
    out = low.softmax(1).cumsum(1) <= 1 - p
    out[:, -1] = False
    return logits.masked_fill(torch.zeros_like(out).scatter(1, order, out), -torch.inf)


@torch.no_grad()
def beam(
    following: Following, start: Tensor, length: int, end: int, beams: int = 3, penalty: float = 1.0
) -> tuple[list[list[int]], list[float]]:
    """The best text of each row of `start` (batch, prompt), of its `beams` best so far, and its score.

    A score is the sum of the words' log-probabilities over (number of new words) ** penalty; end counts as a word. Of a
    row no better text can come when its worst finished one is better than the best unfinished would be now.
    """
    batch = len(start)
    rows = start.repeat_interleave(beams, 0)
    sums = torch.full((batch, beams), -1e9, device=start.device)  # at first all beams are the same
    sums[:, 0] = 0.0
    finished: list[list[Scored]] = [[] for _ in range(batch)]
    open_rows = set(range(batch))
    for n in range(1, length + 1):
        log_p = following(rows).float().log_softmax(1)
        best, at = (sums.view(-1, 1) + log_p).view(batch, -1).topk(2 * beams, dim=1)
        parents, words = at // log_p.shape[1], at % log_p.shape[1]
        ends = words == end
        for b in sorted(open_rows):
            texts = rows[b * beams + parents[b, :beams]].tolist()
            ended = zip(best[b].tolist(), texts, ends[b].tolist())  # of the best `beams` only
            finished[b] += [(score / n**penalty, [*text, end]) for score, text, done in ended if done]
            finished[b] = sorted(finished[b], key=lambda one: -one[0])[:beams]
        sums, kept = best.masked_fill(ends, -torch.inf).topk(beams, dim=1)
        chosen = parents.gather(1, kept) + beams * torch.arange(batch, device=start.device)[:, None]
        rows = torch.cat([rows[chosen.flatten()], words.gather(1, kept).view(-1, 1)], dim=1)
        hopes = (sums[:, 0] / n**penalty).tolist()
        open_rows = {b for b in open_rows if len(finished[b]) < beams or hopes[b] > finished[b][-1][0]}
        if not open_rows:
            break
    for b in open_rows:
        left = zip(sums[b].tolist(), rows[b * beams : (b + 1) * beams].tolist())
        finished[b] += [(score / n**penalty, text) for score, text in left]
    top = [max(texts, key=lambda one: one[0]) for texts in finished]
    return [text for _, text in top], [score for score, _ in top]


def texts(
    words: Words, following: Following, start: Tensor, length: int, end: int, how: str, **options
) -> list[str]:
    """What follows `start` (batch, prompt), as texts; how: greedy, beam or nucleus, with their options.

    ValueError for another way.
    """
    if how not in WAYS:
        raise ValueError(f"there is no decoding {how!r}; there are {', '.join(WAYS)}")
    found = WAYS[how](following, start, length, end, **options)
    rows = found[0] if how == "beam" else found.tolist()
    return [words.text(row[start.shape[1] :]) for row in rows]


WAYS = {"greedy": greedy, "beam": beam, "nucleus": nucleus}
