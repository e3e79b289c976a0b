"""Times that are to be compared: several calls in turns. For one call see `cost.latency`."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr


def interleaved(calls: Mapping[str, Callable], rounds: int = 8, warmup: int = 1) -> xr.DataArray:
    """Wall time of several calls that are to be compared, dims (round, call), in milliseconds.

    Every round makes each call once, beginning one further than the round before, so that a machine that
    gets slower or busy hits all alike; ratios of two calls are formed within a round. `warmup` rounds go
    unmeasured. With a GPU in use each call stands between two synchronisations. Training steps may be
    measured as well; wrap inference in `torch.inference_mode()`.
    Attributes: units, warmup, threads, torch. Raises ValueError without a call or a round.
    """
    import torch

    names, times = list(calls), {}
    if not names or rounds < 1 or warmup < 0:
        raise ValueError(f"{len(names)} calls, rounds={rounds}, warmup={warmup}: at least 1, 1 and 0")
    for nth in range(warmup + rounds):
        for name in names[nth % len(names) :] + names[: nth % len(names)]:
            synchronise()
            start = time.perf_counter()
            calls[name]()
            synchronise()
            times[nth - warmup, name] = (time.perf_counter() - start) * 1e3
    values = [[times[nth, name] for name in names] for nth in range(rounds)]
    about = {
        "units": "ms",
        "warmup": warmup,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }
    return xr.DataArray(
        values, {"round": np.arange(1, rounds + 1), "call": names}, ("round", "call"), "time", about
    )


def training_step(method, batch: Mapping, lr: float = 1e-6) -> Callable[[], None]:
    """One training step of a method on one batch, as a call for `interleaved`: losses, gradients, AdamW.

    method: in training mode, with losses(batch) and trainable(); batch: what its losses read, such as image
    (batch, 3, height, width) and label (batch,). The rate is small, as the steps go on from one another.
    """
    import torch

    optimiser = torch.optim.AdamW(method.trainable().values(), lr=lr)

    def step() -> None:
        with method.vlm.autocast():
            loss = sum(method.losses(batch).values())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def synchronise() -> None:
    """Wait for the GPU, where this process uses one."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
