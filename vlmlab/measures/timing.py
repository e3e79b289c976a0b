"""Time and memory of calls: of one, and of several in turns, whose times are to be compared.

Never compare times from two machines, or from one machine with different attributes.
"""

import contextlib
import pathlib
import platform
import time
from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


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


def latency(function: Callable, *inputs, warmup: int = 20, repeats: int = 100) -> xr.DataArray:
    """Wall time of one call, dims (quantile,), in milliseconds; quantiles 0.1, 0.25, 0.5, 0.75, 0.9.

    Protocol: evaluation mode, inference_mode, `warmup` calls unmeasured, then `repeats` calls timed one by
    one; on a GPU between two synchronisations. The median is the number to report, the quartiles say how far
    to trust it. What a model caches (the class features of a Method) is cached by the warm-up. Tokenise and
    decode before; measure the towers apart, and batches of 1 and of many.
    Attributes: batch and dtype (of the first tensor given), device, threads, warmup, repeats,
    samples_per_second, torch. Raises ValueError in training mode or without a tensor.
    """
    import torch

    first = first_tensor(function, inputs)
    if warmup < 1 or repeats < 1:
        raise ValueError(f"warmup={warmup}, repeats={repeats}: at least 1 of each")
    wait = torch.cuda.synchronize if first.device.type == "cuda" else lambda: None
    times = []
    with torch.inference_mode():
        for _ in range(warmup + repeats):
            wait()
            start = time.perf_counter()
            function(*inputs)
            wait()
            times.append((time.perf_counter() - start) * 1e3)
    values = np.quantile(times[warmup:], QUANTILES)
    about = {
        "units": "ms",
        "samples_per_second": float(len(first) / values[2] * 1e3),
        "warmup": warmup,
        "repeats": repeats,
    } | circumstances(first)
    return xr.DataArray(values, {"quantile": list(QUANTILES)}, ("quantile",), "latency", about)


def peak_memory(function: Callable, *inputs) -> xr.DataArray:
    """Largest tensor memory that one call holds beyond what was there before, a number, in MiB.

    Weights and inputs are not part of it. On a GPU torch.cuda.max_memory_allocated (what tensors occupy, not
    what the allocator reserves), on the CPU the running sum of the allocations that torch's profiler
    records. One call before is not measured. Attributes as `latency`: batch, dtype, device, threads, torch.
    """
    import torch

    first = first_tensor(function, inputs)
    with torch.inference_mode():
        function(*inputs)
        if first.device.type == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            function(*inputs)
            torch.cuda.synchronize()
            most = torch.cuda.max_memory_allocated() - before
        else:
            most = cpu_peak(lambda: function(*inputs))
    return xr.DataArray(most / 2**20, name="peak_memory", attrs={"units": "MiB"} | circumstances(first))


def cpu_peak(run: Callable) -> int:
    """Bytes: the largest sum of what torch's CPU allocator gave and took back while run() runs."""
    import torch

    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        result = run()  # held to the end, as a caller would
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    del result
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(max(np.cumsum(changes), default=0))


def first_tensor(function: Callable, inputs: tuple):
    """The tensor that names device, type and batch; ValueError without one, and for a model that trains."""
    import torch

    owner = getattr(function, "__self__", function)
    if getattr(owner, "training", False):
        raise ValueError(f"{type(owner).__name__} is in training mode; call eval() before measuring")
    found = next((x for x in inputs if isinstance(x, torch.Tensor) and x.ndim), None)
    if found is None:
        raise ValueError(
            "give the input tensors after the function: latency(model.encode_image, images); "
            "the first one says batch and device"
        )
    return found


def circumstances(x) -> dict:
    """What a time or a peak depends on: device, threads and torch, batch and dtype of a tensor that was given."""
    import torch

    name = torch.cuda.get_device_name(x.device) if x.device.type == "cuda" else cpu_name()
    return {
        "batch": len(x),
        "dtype": str(x.dtype).removeprefix("torch."),
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def cpu_name() -> str:
    """The processor as Linux names it, else what Python knows."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
