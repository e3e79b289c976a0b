"""What is read of a tower's last tokens: where texts end, and which tokens of an image are pooled."""

import torch
from torch import Tensor

from .tokens import Tokens

OWN = ("cls", "register", "patch")  # an image's tokens that no edit inserted


def ends(ids: Tensor, read_at: str, eos_id: int | None = None) -> Tensor:
    """(batch,) where texts with token ids (batch, token) are read: at the largest id ("argmax"), at the first
    `eos_id` ("eos"), at the "first" or the "last" token."""
    if read_at == "argmax":
        return ids.argmax(dim=1)
    if read_at == "eos":
        return (ids == eos_id).int().argmax(dim=1)
    return ids.new_full((len(ids),), 0 if read_at == "first" else ids.shape[1] - 1)


def own_tokens(tokens: Tokens) -> Tensor:
    """(batch, token, width) without those that an edit inserted; ValueError where there are no patches."""
    patches = tokens.span("patch")
    if all(role in OWN for role, _ in tokens.layout):
        return tokens.x
    before = [tokens.x[:, tokens.span(role)] for role, _ in tokens.layout if role in ("cls", "register")]
    return torch.cat([*before, tokens.x[:, patches]], dim=1)
