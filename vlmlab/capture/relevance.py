"""Where in an image a score comes from: gradients of attention, and four maps made of them.

`attention_grads` runs the model once with its attention as part of the graph. The maps take arrays
(layer, sample, head, query, token) and return (sample, token): the row of one query, the class token by
default. Labelled arrays stay labelled. To use the last layers only, select them before:
`chefer(g["image.attn.probs"].sel(layer=[11, 12]), ...)`.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ..models.towers import Tokens
from ..token_labels import tokens_of
from .attention_tap import Attention, attention_tap
from .module_tower import first
from .record import Record, assemble, plan_columns
from .reducers import Axis, Kept
from .sources import open_source

DIMS = ("layer", "sample", "head", "query", "token")
PROBS, GRADS = "image.attn.probs", "image.attn.grads"


def attention_grads(
    model, images, target: Callable, each_layer: bool = False, family=None, preprocess: Callable | None = None
) -> Record:
    """Attention probabilities A of the image tower and the gradients of a score with respect to them.

    model, family, preprocess: as in `capture`. images: a Split or a tensor (image, 3, height, width), run
    as one batch: all of A and its graph are in memory, so pass few. target: what `model.encode_image`
    returns, or the features (sample, joint) of another library's module -> the score of every sample,
    (sample,), for example the cosine with a text. each_layer: block l's
    gradient is that of the score read from the tokens behind block l through the model's own final norm
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
    attrs = {**source.attrs, "each_layer": str(each_layer)}
    return labelled(tower, probs, dict(zip(probs, grads)), source.coords, attrs)


@contextlib.contextmanager
def in_graph(tower: nn.Module, probs: dict[int, Tensor], outputs: dict[int, Tensor]) -> Iterator[None]:
    """Collect the probabilities and the output of every block that runs, all of them in the graph.

    Blocks that a method runs without one, because nothing in them trains, keep theirs meanwhile.
    """
    running = []

    def on_attention(call: Attention) -> None:
        if running:  # attention of a pooling head is not in a block
            probs[running[-1]] = call.probs

    def with_graph(inputs, before):
        return tower.run(tower.embed(inputs), stop=before - 1)

    with contextlib.ExitStack() as stack:
        for layer, block in enumerate(tower.blocks, start=1):

            def enter(module, args, layer=layer):
                running.append(layer)

            def leave(module, args, output, layer=layer):
                running.pop()
                outputs[layer] = first(output)

            stack.callback(block.register_forward_pre_hook(enter).remove)
            stack.callback(block.register_forward_hook(leave).remove)
        stack.enter_context(attention_tap(on_attention, gradient=True))
        if hasattr(tower, "prefix"):
            tower.prefix = with_graph
            stack.callback(tower.__dict__.pop, "prefix")
        yield


def check_graph(probs: dict[int, Tensor], depth: int) -> None:
    missing = [n for n in range(1, depth + 1) if n not in probs or not probs[n].requires_grad]
    if missing:
        raise ValueError(
            f"the attention of blocks {missing} is not part of the graph: the model runs them "
            "without gradients or outside torch's scaled_dot_product_attention"
        )


def read(tower: nn.Module, layer: int, x: Tensor) -> Tensor:
    """Features (sample, joint) of the tokens behind a block, as if it were the last."""
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
            found[name][layer] = Kept(x.detach(), ("sample", *DIMS[2:]), {"query": axis, "token": axis})
    columns = plan_columns(found, {PROBS: None, GRADS: None}, len(coords["id"]))
    for column in columns:
        column.allocate(np.dtype(np.float32))
        for layer, kept in found[column.name].items():
            column.write(0, layer, kept)
    return assemble(columns, coords, [], None, attrs)


def rollout(probs, query: int = 0):
    """R = Ã_L ⋯ Ã_1 with Ã_l = (mean_h A_l + I) / 2, rows summing to 1; returns row `query` of R.

    Half of every block is taken to be the skip connection. No gradient: the same map for every score.
    A token that a block does not have yet stays itself. Abnar & Zuidema, "Quantifying Attention Flow in
    Transformers", ACL 2020, arXiv 2005.00928.
    """
    a = as_maps(probs).mean(axis=2)
    flow = a + np.eye(a.shape[-1], dtype=a.dtype)
    flow /= flow.sum(axis=-1, keepdims=True)
    row = flow[-1, :, query]
    for step in flow[-2::-1]:  # a row times a matrix, from the last block down
        row = np.einsum("sq,sqt->st", row, step)
    return like(row, probs)


def chefer(probs, grads, query: int = 0):
    """R = (I + Ā_L) ⋯ (I + Ā_1) with Ā_l = mean_h (∇A_l ⊙ A_l)⁺; returns row `query` of R.

    The recursion R ← R + Ā_l R from R = I, for self-attention. Chefer, Gur & Wolf, "Generic
    Attention-model Explainability", ICCV 2021, arXiv 2103.15679,. The entry of the query itself
    holds the 1 of the identity.
    """
    a, g = both(probs, grads)
    steps = np.maximum(a * g, 0).mean(axis=2)
    row = np.zeros(steps.shape[1:3], steps.dtype)
    row[:, query] = 1
    for step in steps[::-1]:
        row = row + np.einsum("sq,sqt->st", row, step)
    return like(row, probs)


def legrad(grads):
    """mean over layers, heads and queries of (∂s_l / ∂A_l)⁺.

    s_l is the score read behind block l: use `attention_grads(..., each_layer=True)`. With the gradients of
    the final score it is the same formula for another quantity. Bousselham et al., "LeGrad", ICCV 2025,
    arXiv 2404.03214. There the map is scaled to [0, 1] afterwards; here it is not.
    """
    g = in_order(grads)
    queries = (~np.isnan(g)).any(axis=(2, 4)).sum(axis=-1).astype(g.dtype)  # those a block has
    sums = np.maximum(np.nan_to_num(g), 0).sum(axis=3).mean(axis=2)
    return like((sums / queries[..., None]).mean(axis=0), grads)


def grad_times_attention(probs, grads, query: int = 0):
    """mean over layers and heads of (A ⊙ (∂s / ∂A)⁺), row `query`.

    The product of Grad-SAM: Barkan et al., "Grad-SAM: Explaining Transformers via Gradient Self-Attention
    Maps", CIKM 2021, arXiv 2204.11073, read at one query instead of summed over queries.
    """
    a, g = both(probs, grads)
    return like((a * np.maximum(g, 0))[..., query, :].mean(axis=(0, 2)), probs)


def in_order(x) -> np.ndarray:
    """(layer, sample, head, query, token), NaN where a block has no such token."""
    labelled = isinstance(x, xr.DataArray)
    if labelled and set(x.dims) == set(DIMS):
        x = x.transpose(*DIMS)
    array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
    if array.ndim != 5 or array.shape[-1] != array.shape[-2] or (labelled and x.dims != DIMS):
        raise ValueError(
            f"attention of shape {array.shape}; expected (layer, sample, head, query, token) "
            "with all queries and tokens"
        )
    return array.astype(np.promote_types(array.dtype, np.float32), copy=False)


def as_maps(x) -> np.ndarray:
    """The same with 0 where a block has no such token."""
    return np.nan_to_num(in_order(x))


def both(probs, grads) -> tuple[np.ndarray, np.ndarray]:
    a, g = as_maps(probs), as_maps(grads)
    if a.shape != g.shape:
        raise ValueError(f"probabilities {a.shape} and gradients {g.shape} must be of the same shape")
    return a, g


def like(out: np.ndarray, x):
    """(sample, token), with the labels of a labelled input, a tensor for a tensor."""
    if isinstance(x, xr.DataArray):
        first = x.transpose(*DIMS).isel(layer=0, head=0, query=0, drop=True)
        return first.copy(data=out).rename("relevance")
    return torch.from_numpy(out).to(x.device) if isinstance(x, Tensor) else out
