"""MaPLe: text prompts in the first blocks, image prompts computed from them (Khattak et al., CVPR 2023)."""

import dataclasses

import torch
from torch import Tensor, nn

from ..models.towers import Edit, Tokens
from . import prompts
from .method import Method


class MaPLe(Method):
    """Coupled prompts: a linear map per block turns the text prompts into the image prompts.

    The paper trains 5 epochs of SGD 0.0035 at batch 4 (cross-dataset: depth 3, 2 epochs of 0.0026),
    crops from 0.08. The context takes the place of the task's template.
    """

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Defaults are the paper's for base-to-new."""

        tokens: int = 2
        depth: int = 9  # prompts stand in blocks 1..depth of both towers
        half_prompts: bool = True  # round prompts to fp16 on their way in, as the published code always does

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        prompts.check_depth(config.depth, vlm.image, vlm.text)
        words = prompts.first_words(vlm, config.tokens)
        deeper = torch.randn(config.depth - 1, *words.shape, device=words.device) * 0.02
        self.text = nn.Parameter(torch.cat([words[None], deeper]))
        first, other = (nn.Linear(vlm.text.width, vlm.image.width) for _ in range(2))
        maps = [first] + [other] * (config.depth - 1)  # the deeper maps begin as copies of one
        self.weight = nn.Parameter(torch.stack([m.weight.detach() for m in maps]))
        self.bias = nn.Parameter(torch.stack([m.bias.detach() for m in maps]))
        self.to(vlm.device)

    def prompts(self) -> list[str]:
        return self.fill(prompts.opening(self.config.tokens) + " {}.")

    def image_prompts(self) -> Tensor:
        """(block, token, image width) from the text prompts."""
        return self.text @ self.weight.transpose(1, 2) + self.bias[:, None]

    def text_edits(self) -> dict[int, Edit]:
        table = prompts.text_edits(self.text)  # the context at the embedding is not rounded
        return {layer: self.rounded(edit) if layer else edit for layer, edit in table.items()}

    def image_edits(self) -> dict[int, Edit]:
        table = prompts.image_edits(self.image_prompts())
        return {layer: self.rounded(edit) for layer, edit in table.items()}

    def rounded(self, edit: Edit) -> Edit:
        """The same edit, with its prompts and their gradients passing through fp16.

        It has no `reach`: the published code rounds the gradients of every class, not their sum.
        """

        def through_half(tokens: Tokens) -> Tokens:
            tokens = edit(tokens)
            x, at = tokens.x, tokens.span("prompt")
            x = torch.cat([x[:, : at.start], x[:, at].half().to(x.dtype), x[:, at.stop :]], dim=1)
            return dataclasses.replace(tokens, x=x)

        return through_half if self.config.half_prompts else edit
