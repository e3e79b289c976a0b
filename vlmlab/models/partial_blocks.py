"""A block run from outside: with the library's own modules, in the order of its forward, only quicker.

Nobody reads the patches behind an image tower's last block, nor the words behind a text tower's: there the
keys and values of all tokens are needed, but queries, output projection and MLP only of those that are read.
"""

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

ATTENTION = F.scaled_dot_product_attention
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def can_run_in_parts(block: nn.Module) -> bool:
    """Whether a block is open_clip's, in evaluation mode, and nobody watches it.

    A hook sees whole blocks, and who replaced torch's attention, as capture's tap does, sees all queries.
    """
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attn = block.attn
    usual = (
        type(attn) is nn.MultiheadAttention
        and attn.batch_first
        and attn.bias_k is None
        and attn.in_proj_weight is not None
        and attn.in_proj_bias is not None
    )
    everywhere = any(getattr(torch.nn.modules.module, f"_global{name}") for name in HOOKS)
    watched = everywhere or any(getattr(m, name) for m in block.modules() for name in HOOKS)
    watched = watched or F.scaled_dot_product_attention is not ATTENTION
    return usual and not block.training and not watched


def all_tokens(block: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """block(x, attn_mask=mask), quicker where gradients are wanted."""
    known = token_first(block.ln_1(x))
    return finish(block, x, block.attention(known, known, known, attn_mask=mask))


def first_tokens(block: nn.Module, x: Tensor, count: int) -> Tensor:
    """The first `count` tokens of block(x), (batch, count, width); no mask."""
    known = token_first(block.ln_1(x))
    return finish(block, x[:, :count], block.attention(known[:, :count], known, known))


def token_first(x: Tensor) -> Tensor:
    """x (batch, token, width) in the memory order (token, batch, width).

    Outside of its native op nn.MultiheadAttention swaps the first two dims before it projects; one matrix
    product over all tokens needs them contiguous then, else there is a slow one per sample.
    """
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def finish(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """What a block does behind its attention, whose output for the tokens x is `attended`."""
    x = x + block.ls_1(attended)
    return x + block.ls_2(block.mlp(block.ln_2(x)))
