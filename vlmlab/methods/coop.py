"""CoOp: the context words of the prompt are learned vectors (Zhou et al., IJCV 2022)."""

import dataclasses

import torch
from torch import nn

from ..models import edits
from ..models.towers import Edit, Tokens
from . import prompts
from .method import Method

POSITIONS = ("end", "middle", "front")


class CoOp(Method):
    """Learned context around the class name, at the input of the frozen text tower.

    The paper trains 200 epochs (50 on ImageNet) of SGD 0.002 at batch 32, crops from 0.08. The
    context takes the place of the task's template.
    """

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Up to 4 tokens start as "a photo of a", more are random (the paper's other choice is 16), and so are those of
        a context per class, as in the authors' code."""

        tokens: int = 4
        class_position: str = "end"  # of the class name in the context: end, middle, front
        class_specific: bool = False  # a context per class instead of one for all

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        if config.class_position not in POSITIONS:
            raise ValueError(
                f"class_position must be one of {', '.join(POSITIONS)}, got {config.class_position!r}"
            )
        start = prompts.first_words(vlm, config.tokens)
        if config.class_specific:
            start = torch.randn(len(classnames), *start.shape) * 0.02
        self.context = nn.Parameter(start)
        self.to(vlm.device)

    def set_classes(self, classnames: list[str], template: str) -> None:
        """Also ValueError when contexts of other classes were learned."""
        if self.config.class_specific and getattr(self, "classnames", list(classnames)) != list(classnames):
            raise ValueError(
                "class-specific contexts exist only for the classes they were trained on; "
                "use class_specific=False for other classes"
            )
        super().set_classes(classnames, template)
        # a name that ends in punctuation is one token with the full stop: it is counted alone, as the authors do
        names = self.vlm.tokenize([n.replace("_", " ") for n in classnames])
        self._name_tokens = self.vlm.text.ends(names) - 1

    def prompts(self) -> list[str]:
        return self.fill(prompts.opening(self.config.tokens) + " {}.")

    def text_edits(self) -> dict[int, Edit]:
        put = edits.overwrite("prompt", self.context, of="word")
        return {0: put if self.config.class_position == "end" else lambda tokens: self.reorder(put(tokens))}

    def reorder(self, tokens: Tokens) -> Tokens:
        """[SOS, context, name, ...] -> [SOS, some context, name, other context, ...]; roles are not kept."""
        m, x = self.config.tokens, tokens.x
        before = m // 2 if self.config.class_position == "middle" else 0
        name = self._name_tokens[:, None]
        at = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        moved = torch.where(at <= before + name, at - before + m, at - name)
        source = torch.where((at > before) & (at <= m + name), moved, at)
        x = x.gather(1, source[..., None].expand_as(x))
        return Tokens(x, (("sos", 1), ("word", x.shape[1] - 1)), tokens.eos)
