"""What a model costs: numbers it holds, arithmetic, time, memory.

The other measures read arrays. A cost is not in any array: it takes the model, or a function and its inputs,
and runs it. The model may be a vlmlab one, a Method, or any torch module (timm, Hugging Face); nothing is
imported from them, and torch only when a function here is called. A function is anything callable with
tensors; use functools.partial or a lambda for keyword arguments.

Never compare times from two machines, or from one machine with different attributes.
"""

import contextlib
import dataclasses
import pathlib
import platform
import time
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
PARTS = {
    "total": "all parameters of the model, tied ones once; buffers are not counted",
    "trainable": "what training changes: trainable() of a Method, else those that require a gradient",
    "injected": "token values that a Method writes into the sequences of one image and one text, all blocks",
    "image": "parameters that the image features of one input use",
    "text": "parameters that the text features of one input use",
    "deployed": "parameters that inference uses, the frozen backbone included: what has to be shipped",
    "deployed_trained": "those of them that are trainable: what is shipped to who has the backbone",
}


def parameters(model, *inputs) -> xr.DataArray:
    """How many numbers a model has, trains, injects and ships, dims (part,), int64.

    Parts, as `PARTS` defines them: total, trainable, injected (methods only), image and text (two towers
    only), deployed and deployed_trained. The papers' "params" columns mix trainable and injected:
    AlignedNorm's Table 5 gives 44,800 injected token values of MMRL++, which trains 813,312 parameters.

    What is used is observed, not declared: inference runs once on one input, and the parameters that enter
    an operation are counted, all their numbers (the whole table of an embedding). So parts that serve
    training only, such as the heads of a distillation, are in total but not in deployed.
    inputs: for a module that is neither a VLM nor a Method, the tensors of one call; without them only total
    and trainable are known. The model is left as it was.
    """
    trainable = trainables(model)
    found = {"total": count(model.parameters()), "trainable": count(trainable)}
    if hasattr(model, "image_edits"):
        found["injected"] = sum(injected(model).values())
    with unchanged(model):
        used = {part: used_by(run, model) for part, run in inference(model, inputs).items()}
    if used:
        found |= {part: count(tensors) for part, tensors in used.items() if part != "deployed"}
        shipped = used.get("deployed") or [*used["image"], *used["text"]]
        ours = {id(p) for p in trainable}
        found |= {"deployed": count(shipped), "deployed_trained": count(p for p in shipped if id(p) in ours)}
    values = {part: found[part] for part in PARTS if part in found}
    return xr.DataArray(
        np.array(list(values.values()), np.int64),
        {"part": list(values)},
        ("part",),
        "parameters",
        {"units": "numbers"} | {part: PARTS[part] for part in values},
    )


def injected(method) -> dict[str, int]:
    """Token values that a method's edits write into one sequence, {"image": ..., "text": ...}.

    An edit is tried on tokens that are told apart; those of its output that it did not receive count, at
    every block anew, times the width. The text is the prompt of the first class.
    """
    import torch

    vlm = method.vlm
    edges = {
        "image": (vlm.image, method.image_edits, torch.zeros(1, 3, *vlm.clip.visual.image_size)),
        "text": (vlm.text, method.text_edits, vlm.tokenize(method.prompts())),
    }
    found = {}
    with torch.no_grad():
        for name, (tower, edits, inputs) in edges.items():
            tokens, written = tower.embed(inputs.to(vlm.device)), 0
            for _, edit in sorted(edits().items()):
                batch, length, width = tokens.x.shape
                known = 1.0 + torch.arange(length, device=tokens.x.device).view(1, -1, 1)
                tokens = edit(dataclasses.replace(tokens, x=known.expand(batch, length, width).contiguous()))
                first = tokens.x[0]  # a row that is one of 1, 2, ... throughout was there before
                kept = (first == first[:, :1]).all(dim=1) & torch.isin(first[:, 0], known)
                written += int((~kept).sum()) * width
            found[name] = written
    return found


def trainables(model) -> list:
    """The parameters that training changes."""
    named = model.trainable() if hasattr(model, "trainable") else dict(model.named_parameters())
    return [p for p in named.values() if p.requires_grad]


def count(tensors) -> int:
    """Numbers in distinct tensors."""
    return sum(p.numel() for p in {id(p): p for p in tensors}.values())


def inference(model, inputs: tuple) -> dict[str, Callable]:
    """The calls that stand for inference, by part: both features, and what is deployed where it is more."""
    import torch

    vlm = getattr(model, "vlm", model)
    if not (hasattr(vlm, "image_size") and hasattr(vlm, "tokenize")):
        return {"deployed": lambda: model(*inputs)} if inputs else {}
    images = torch.zeros(1, 3, *vlm.clip.visual.image_size, device=vlm.device)
    if model is vlm:
        return {"image": lambda: vlm.encode_image(images), "text": lambda: vlm.encode_text(["a"])}
    return {
        "image": lambda: model.encode_image(images),
        "text": model.class_features,
        "deployed": lambda: model.logits(images),
    }


def used_by(run: Callable, model) -> list:
    """The parameters of a model that enter an operation while run() runs."""
    import torch
    from torch.overrides import TorchFunctionMode

    ours = {id(p): p for p in model.parameters()}
    seen: dict[int, torch.nn.Parameter] = {}

    def look(x) -> None:
        if isinstance(x, torch.Tensor):
            seen.update({id(x): x} if id(x) in ours else {})
        elif isinstance(x, (list, tuple)):
            for item in x:
                look(item)

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            # reading .device or .shape of a parameter uses none of its numbers
            if getattr(function, "__name__", "") != "__get__":
                look([*args, *(kwargs or {}).values()])
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        run()
    return list(seen.values())


@contextlib.contextmanager
def unchanged(model) -> Iterator[None]:
    """Evaluation mode without caches; afterwards mode, shortcuts and trainable values are as before.

    HiCroPL's published inference writes to its own parameters, so that running it once would change it.
    """
    import torch

    vlm, was_training = getattr(model, "vlm", model), model.training
    values = [(p, p.detach().clone()) for p in trainables(model)] if hasattr(model, "trainable") else []
    shortcuts = getattr(vlm, "shortcuts", None)
    try:
        model.eval()
        if shortcuts is not None:
            vlm.shortcuts = False
        yield
    finally:
        model.train(was_training)
        if shortcuts is not None:
            vlm.shortcuts = shortcuts
        with torch.no_grad():
            for p, value in values:
                p.copy_(value)


def flops(function: Callable, *inputs) -> xr.DataArray:
    """Floating-point operations of one call, dims (operator,), int64; their sum is the cost of the call.

    A multiply-add is 2. Counted are matrix products, convolutions and attention, by torch's FlopCounterMode;
    norms, activations and softmax are not. In evaluation mode nn.MultiheadAttention runs one fused
    operator that the counter does not know, which would hide a third of a CLIP image tower: it is off
    meanwhile. A vlmlab text tower cuts the context behind its longest prompt unless `vlm.shortcuts` is False.
    Raises ValueError when an attention operator still went uncounted (flash-attn or another
    package's), or nothing was counted.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    formulas = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: flash_attention}
    counter, fast, ran = (
        FlopCounterMode(display=False, custom_mapping=formulas),
        torch.backends.mha.get_fastpath_enabled(),
        set(),
    )

    class Ran(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            ran.add(operator.overloadpacket)
            return operator(*args, **(kwargs or {}))

    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), counter, Ran():
            function(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    counted = counter.get_flop_counts().get("Global", {})
    found = {str(op).removeprefix("aten."): n for op, n in counted.items()}
    missed = sorted(str(op) for op in ran if "attention" in str(op) and op not in counter.flop_registry)
    if missed or not found:
        raise ValueError(
            f"{', '.join(missed)} could not be counted; run the model with attn_implementation='sdpa' or 'eager', "
            "uncompiled"
            if missed
            else "this call ran no operator that is counted (matrix products, convolutions, attention)"
        )
    return xr.DataArray(
        np.array(list(found.values()), np.int64),
        {"operator": list(found)},
        ("operator",),
        "flops",
        {"units": "FLOP", "multiply_add": 2},
    )


def flash_attention(*args, **kwargs) -> int:
    """FLOP of a flash attention; torch before 2.15 has the formula for the GPU's operator alone."""
    import torch
    from torch.utils.flop_counter import flop_registry

    return flop_registry[torch.ops.aten._scaled_dot_product_flash_attention](*args, **kwargs)


flash_attention._get_raw = True  # takes tensors, as what torch has registered does


def transformer_flops(tokens: int, width: int, blocks: int, mlp_ratio: float = 4.0) -> float:
    """FLOP of the blocks of a transformer for one sequence in closed form, 2 per multiply-add.

    L ((8 + 4 r) N d^2 + 4 N^2 d): the four projections of attention and the two of an MLP of width r d, then
    q k^T and its product with v, causal masks not exploited. N tokens, width d, L blocks.
    A ViT adds 2 g^2 3 p^2 d for g x g patches of p pixels and 2 d e for the projection to e features.
    """
    return blocks * ((8 + 4 * mlp_ratio) * tokens * width**2 + 4 * tokens**2 * width)


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
