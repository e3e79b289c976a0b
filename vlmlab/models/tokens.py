"""Labelled tokens, and the edits that methods make on them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from torch import Tensor

from ..token_labels import Layout


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


class Observer:
    """What a tower tells those who look, who are in its list `observers`; changes nothing.

    keeps_graph: while it looks, blocks in which nothing trains keep their graph.
    """

    keeps_graph = False

    def before_block(self, layer: int, tokens: Tokens) -> None:
        """Block `layer` (1 to depth) is about to run on these tokens."""


@contextlib.contextmanager
def observed(tower, observer: Observer) -> Iterator[None]:
    """The observer is in the tower's list while the block runs."""
    tower.observers.append(observer)
    try:
        yield
    finally:
        tower.observers.remove(observer)


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
