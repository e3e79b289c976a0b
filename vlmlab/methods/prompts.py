"""What CoOp and its successors share: context words before the class name, prompts in the first blocks."""

import torch
from torch import Tensor

from ..models import edits
from ..models.load import VLM
from ..models.towers import Edit, Tower

CONTEXT = "a photo of a"


def opening(tokens: int) -> str:
    """The words before a class name that hold `tokens` learned ones: the context, or placeholders if more."""
    return CONTEXT if tokens <= len(CONTEXT.split()) else " ".join("X" * tokens)


def first_words(vlm: VLM, tokens: int) -> Tensor:
    """Where learned context starts, (token, text width): embedded context words, or N(0, 0.02^2) if more."""
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {tokens}")
    if tokens > len(CONTEXT.split()):
        return torch.randn(tokens, vlm.text.width) * 0.02
    with torch.no_grad():
        return vlm.text.text.token_embedding(vlm.tokenize([CONTEXT]))[0, 1 : 1 + tokens].clone()


def check_depth(depth: int, *towers: Tower) -> None:
    """ValueError unless prompts in blocks 1..depth fit all these towers."""
    least = min(tower.depth for tower in towers)
    if not 1 <= depth <= least:
        raise ValueError(f"depth={depth}, but prompts can stand in blocks 1 to {least}")


def text_edits(values: Tensor) -> dict[int, Edit]:
    """values (block, token, width): over the first words at the embedding, then renewed before each block."""
    return {0: edits.overwrite("prompt", values[0], of="word")} | renewals(values)


def image_edits(values: Tensor) -> dict[int, Edit]:
    """values (block, token, width): at the end, before ln_pre, then renewed before each block."""
    return {0: edits.insert("prompt", values[0], after="patch")} | renewals(values)


def renewals(values: Tensor) -> dict[int, Edit]:
    return {layer: edits.mix("prompt", v, 1.0) for layer, v in enumerate(values[1:], start=2)}
