"""Attention of any model that calls torch's scaled_dot_product_attention, fused kernels included.

For the length of a `with` block the function is replaced by one that shows what goes in and out.
The fast path of nn.MultiheadAttention, which never calls it, is off meanwhile.
"""

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

_IN_USE = threading.Lock()  # the patched function is global to the process


@dataclasses.dataclass(eq=False)
class Attention:
    """One call of the attention kernel: q (batch, head, query, width), k and v (batch, head, token, width),
    z (batch, head, query, width) the kernel's output. `probs` is computed when it is asked for."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    is_causal: bool
    scale: float | None
    z: Tensor | None = None

    def by_head(self, x: Tensor) -> Tensor:
        """Keys or values with one head for each of the queries': grouped queries share theirs."""
        groups = self.q.shape[-3] // x.shape[-3]
        return x if groups == 1 else x.repeat_interleave(groups, dim=-3)

    def part(self, name: str, queries: int | None = None) -> Tensor:
        """q, k, v, z or probs with one head for each of the queries'.

        queries: how many tokens look, where it is known. Hugging Face lays the grouped queries of a single
        token side by side, as if they were several queries of fewer heads; they are put apart again.
        """
        x, groups = getattr(self, name), self.q.shape[-2] if queries == 1 else 1
        if name in ("k", "v"):
            return self.by_head(x).repeat_interleave(groups, dim=-3) if groups > 1 else self.by_head(x)
        return x.flatten(-3, -2).unsqueeze(-2) if groups > 1 else x

    @functools.cached_property
    def probs(self) -> Tensor:
        """(batch, head, query, token), rows sum to 1: softmax(q k^T scale + mask) in float32 or wider.

        Rows with every key masked are 0, as the kernel treats them. Grouped queries share their keys.
        """
        with torch.autocast(self.q.device.type, enabled=False):
            q, k = (x if x.dtype == torch.float64 else x.float() for x in (self.q, self.k))
            k = self.by_head(k)
            scale = 1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale
            scores = (q * scale) @ k.transpose(-2, -1)
            if self.mask is None and not self.is_causal:
                return scores.softmax(dim=-1)
            if self.is_causal:
                later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
                scores = scores.masked_fill(later, -torch.inf)
            if self.mask is not None:
                scores = (
                    scores.masked_fill(~self.mask, -torch.inf)
                    if self.mask.dtype == torch.bool
                    else scores + self.mask
                )
            blind = (scores == -torch.inf).all(dim=-1, keepdim=True)
            return scores.masked_fill(blind, 0).softmax(dim=-1).masked_fill(blind, 0)


@contextlib.contextmanager
def attention_tap(on_call: Callable[[Attention], None], gradient: bool = False) -> Iterator[None]:
    """Call `on_call(attention)` after every attention of this thread inside the block.

    gradient=False (observe): the model's kernel produces the output; probabilities are beside it.
    gradient=True: an explicit softmax replaces the kernel, so `attention.probs` is part of the graph
    (call its retain_grad, or differentiate a score with respect to it).
    Everything is restored at the end, after an exception too. Raises RuntimeError when a tap is
    already open, in this or another thread: the patched function is global.
    """
    if not _IN_USE.acquire(blocking=False):
        raise RuntimeError(
            "an attention tap is already open in this process; taps do not nest and cannot be "
            "shared by threads: capture one model after the other"
        )
    kernel, fast = F.scaled_dot_product_attention, torch.backends.mha.get_fastpath_enabled()
    owner = threading.get_ident()

    @functools.wraps(kernel)
    def tapped(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        def original():
            return kernel(
                query,
                key,
                value,
                attn_mask=attn_mask,
                dropout_p=dropout_p,
                is_causal=is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
            )

        if threading.get_ident() != owner:  # somebody else's model: not ours to look at
            return original()
        call = Attention(query, key, value, attn_mask, is_causal, scale)
        call.z = explicit(call, dropout_p) if gradient else original()
        on_call(call)
        return call.z

    try:
        torch.backends.mha.set_fastpath_enabled(False)
        F.scaled_dot_product_attention = tapped
        yield
    finally:
        F.scaled_dot_product_attention = kernel
        torch.backends.mha.set_fastpath_enabled(fast)
        _IN_USE.release()


def explicit(call: Attention, dropout_p: float) -> Tensor:
    """The kernel's output from the probabilities, (batch, head, query, width)."""
    probs, v = F.dropout(call.probs, dropout_p) if dropout_p else call.probs, call.by_head(call.v)
    return probs.to(v.dtype) @ v
