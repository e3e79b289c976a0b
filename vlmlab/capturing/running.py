"""Which attention of which block is running: what a call of the kernel belongs to."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..models.families import at, has


class Running(contextlib.AbstractContextManager):
    """Follows the attention submodules that a tower's family names, while the `with` block runs.

    `now` is (block number, "attn" or "cross"), None outside of all of them, as in a pooling head. token_first:
    hand nn.MultiheadAttention its input in a better memory order.
    """

    def __init__(self, tower, token_first: bool = False):
        self.tower, self.token_first = tower, token_first
        self.inside: list[tuple[int, str]] = []

    @property
    def now(self) -> tuple[int, str] | None:
        return self.inside[-1] if self.inside else None

    def __enter__(self) -> "Running":
        with contextlib.ExitStack() as stack:
            for layer, block in enumerate(self.tower.blocks, start=1):
                for name, path in self.tower.family.attention.items():
                    if has(block, path):
                        stack.enter_context(self.follow(at(block, path), (layer, name)))
                for module in block.modules() if self.token_first else ():
                    if isinstance(module, nn.MultiheadAttention) and module.batch_first:
                        stack.callback(module.register_forward_pre_hook(in_memory_order).remove)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self.stack.close()
        self.inside.clear()

    @contextlib.contextmanager
    def follow(self, module: nn.Module, place: tuple[int, str]) -> Iterator[None]:
        def enter(module, args):
            self.inside.append(place)

        def leave(module, args, output):
            self.inside.pop()

        with contextlib.ExitStack() as stack:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
            yield


def in_memory_order(module: nn.Module, args: tuple) -> tuple | None:
    """The same input, stored as nn.MultiheadAttention will transpose it: (token, batch, width) in memory.

    Without its fast path the module projects a strided view, which torch does token by token when no
    gradient is needed: up to twice the time of the whole forward (benchmarks/capture.py shows it).
    """
    if len(args) < 3 or not (args[0] is args[1] is args[2]) or args[0].ndim != 3:
        return None
    x: torch.Tensor = args[0].transpose(0, 1).contiguous().transpose(0, 1)
    return (x, x, x, *args[3:])
