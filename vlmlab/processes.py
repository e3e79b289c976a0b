"""Several processes that train one learner together (torchrun); alone, everything here does nothing.

Each takes its share of every batch, gradients are averaged, and `gather` joins what is compared across a
batch: the loss of n processes equals that of one on the joined batch.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started; on a GPU machine each takes the one of its number."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        dist.barrier()


def share(rows: Sequence) -> Sequence:
    """This process's rows of a batch. ValueError when they cannot be divided evenly, which would weigh
    samples differently."""
    if len(rows) % count():
        raise ValueError(
            f"a batch of {len(rows)} cannot be divided among {count()} processes; choose another batch_size"
        )
    return rows[rank() :: count()]


class Gathered(torch.autograd.Function):
    """All processes' tensors in one; torch's own, which differs from version to version, is deprecated."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(count())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts, dim=1)  # row by row, as `share` dealt them out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)  # every process compares all rows: what it owes this one's
        return grad[:, rank()]


def gather(x: Tensor) -> Tensor:
    """(batch of all processes, ...) from each one's (batch, ...), with gradients, in the joined batch's order."""
    return x if count() == 1 else Gathered.apply(x).flatten(0, 1)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over the processes."""
    for x in tensors if count() > 1 else ():
        dist.all_reduce(x)
        x.div_(count())
