"""Labelled tokens, and the edits that methods make on them."""

import dataclasses
from collections.abc import Callable

from torch import Tensor

Layout = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Labelled tokens: x (batch, token, width), layout = runs of (role, count), eos (batch,) for text.

    Roles: cls, register, prompt, patch in images; sos, prompt, word in text, where the last run holds
    the words, the EOS token at `eos` and the padding behind it.
    """

    x: Tensor
    layout: Layout
    eos: Tensor | None = None

    def span(self, role: str) -> slice:
        """Where the tokens of one role stand; ValueError lists the roles when it is not there."""
        return span(self.layout, role)


Edit = Callable[[Tokens], Tokens]


def span(layout: Layout, role: str) -> slice:
    """Where the tokens of one role stand in a layout; ValueError lists the roles when it is not there."""
    start = 0
    for name, count in layout:
        if name == role:
            return slice(start, start + count)
        start += count
    raise ValueError(f"no {role!r} tokens; the layout is {layout}")


def leading(layout: Layout, count: int) -> Layout:
    """The layout of the first `count` tokens."""
    out = []
    for name, n in layout:
        out.append((name, min(n, count)))
        count -= out[-1][1]
    return tuple(run for run in out if run[1])
