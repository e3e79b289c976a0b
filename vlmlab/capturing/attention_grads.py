"""Gradients of a score with respect to attention: the model runs once with its attention in the graph.

Maps of where in an image the score comes from are made of them in `measures/relevance.py`.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..models.tokens import Observer, Tokens, observed
from ..token_labels import tokens_of
from .attention_tap import Attention, attention_tap
from .check_layout import check_pictures
from .module_tower import first
from .record import Record, assemble, plan_columns
from .reducers import Axis, Kept
from .running import Running
from .sources import open_source

PROBS, GRADS = "image.attn.probs", "image.attn.grads"


def attention_grads(
    model, images, target: Callable, each_layer: bool = False, family=None, preprocess: Callable | None = None
) -> Record:
    """Attention probabilities A of the image tower and the gradients of a score with respect to them.

    model, family, preprocess: as in `capture`. images: a Split or a tensor (image, 3, height, width), run
    as one batch: all of A and its graph are in memory, so pass few. target: what `model.encode_image`
    returns, or the features (sample, joint) of another library's module -> the score of every sample,
    (sample,), for example the cosine with a text. each_layer: block l's
    gradient is that of the score read from the mean of the tokens behind block l through the model's own final norm
    and projection, as LeGrad wants it; only for a VLM.

    Returns a Record with image.attn.probs and image.attn.grads (layer, sample, head, query, token), NaN
    for tokens a block does not have. Raises ValueError for a score of another shape, a model in training
    mode, or attention that is not part of the graph.
    """
    many = max(1, len(images)) if hasattr(images, "__len__") else 1
    source = open_source(model, images, "image", None, many, family, preprocess)
    tower = source.tower
    if each_layer and not hasattr(model, "image"):
        raise ValueError(
            f"each_layer reads features behind every block of a VLM; {source.model} has a "
            "read-out of its own, leave each_layer out (or pass a method's vlm)"
        )
    encode = model.encode_image if hasattr(tower, "prefix") else lambda x: tower.run(x)["output"]
    ((_, batch),) = source.batches()
    with source.autocast():
        grid = check_pictures(tower, batch, source.run)
    probs: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    graph = in_graph(tower, probs, outputs)
    with torch.inference_mode(False), torch.enable_grad(), source.autocast(), graph, tower.watch():
        features = encode(batch.detach().clone().requires_grad_())
        check_graph(probs, tower.depth)
        if each_layer:
            grads = [
                torch.autograd.grad(
                    score(target, read(tower, layer, x), len(batch)).sum(), probs[layer], retain_graph=True
                )[0]
                for layer, x in outputs.items()
            ]
        else:
            grads = torch.autograd.grad(
                score(target, features, len(batch)).sum(), list(probs.values()), allow_unused=True
            )
    attrs = {**source.attrs, "each_layer": str(each_layer), **({} if grid is None else {"grid": list(grid)})}
    return labelled(tower, probs, dict(zip(probs, grads)), source.coords, attrs)


class InGraph(Observer):
    """Blocks that a method runs without a graph, because nothing in them trains, keep theirs meanwhile."""

    keeps_graph = True


@contextlib.contextmanager
def in_graph(tower: nn.Module, probs: dict[int, Tensor], outputs: dict[int, Tensor]) -> Iterator[None]:
    """Collect the probabilities and the output of every block that runs, all of them in the graph."""
    running = Running(tower)

    def on_attention(call: Attention) -> None:
        if running.now is not None:  # attention of a pooling head is not in a block
            probs[running.now[0]] = call.probs

    with contextlib.ExitStack() as stack:
        for layer, block in enumerate(tower.blocks, start=1):

            def leave(module, args, output, layer=layer):
                outputs[layer] = first(output)

            stack.callback(block.register_forward_hook(leave).remove)
        stack.enter_context(running)
        stack.enter_context(attention_tap(on_attention, gradient=True))
        stack.enter_context(observed(tower, InGraph()))
        yield


def check_graph(probs: dict[int, Tensor], depth: int) -> None:
    missing = [n for n in range(1, depth + 1) if n not in probs or not probs[n].requires_grad]
    if missing:
        raise ValueError(
            f"the attention of blocks {missing} is not part of the graph: the model runs them "
            "without gradients or outside torch's scaled_dot_product_attention"
        )


def read(tower: nn.Module, layer: int, x: Tensor) -> Tensor:
    """Features (sample, joint) of the tokens behind a block: where a model reads its class token, the mean of all of
    them through its final norm and projection, as LeGrad's code has it; else as if that block were the last."""
    if getattr(tower, "reads_class_token", False):
        return tower.project(tower.norm(x.mean(dim=1)))
    return tower.project(tower.pool(Tokens(x, tower.layouts[layer])))


def score(target: Callable, features, samples: int) -> Tensor:
    """The target's scores; ValueError unless they are one per sample, with a graph."""
    out = target(features)
    if not isinstance(out, Tensor) or out.shape != (samples,) or not out.requires_grad:
        what = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"the target returned {what}; expected one score per sample, ({samples},), computed "
            "from the features it was given"
        )
    return out


def labelled(
    tower: nn.Module,
    probs: dict[int, Tensor],
    grads: dict[int, Tensor | None],
    coords: dict[str, np.ndarray],
    attrs: dict,
) -> Record:
    """The Record of both, every token at its label. A block that the score does not depend on has
    gradient 0."""
    found: dict[str, dict] = {PROBS: {}, GRADS: {}}
    for layer, p in sorted(probs.items()):
        axis, grad = Axis(tokens_of(tower.layouts[layer]), whole=True), grads[layer]
        for name, x in ((PROBS, p), (GRADS, torch.zeros_like(p) if grad is None else grad)):
            found[name][layer, None] = Kept(
                x.detach(), ("sample", "head", "query", "token"), {"query": axis, "token": axis}
            )
    columns = plan_columns(found, {PROBS: None, GRADS: None}, len(coords["id"]))
    for column in columns:
        column.allocate(np.dtype(np.float32))
        for key, kept in found[column.name].items():
            column.write(0, key, kept)
    return assemble(columns, coords, [], {}, attrs)
