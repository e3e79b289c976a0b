"""What a model costs in numbers that it holds and in arithmetic; for time and memory see timing.py.

The other measures read arrays. A cost is not in any array: it takes the model, or a function and its inputs,
and runs it. The model may be a vlmlab one, a Method, or any torch module (timm, Hugging Face); nothing is
imported from them, and torch only when a function here is called. A function is anything callable with
tensors; use functools.partial or a lambda for keyword arguments.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

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
