"""MMRL: representation tokens in blocks J..L of both towers, from one shared space (Guo & Gu, CVPR 2025)."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..learner import Batch, Stage
from ..models import edits
from ..models.towers import Edit, Tokens, Tower
from .method import Method


def uniform(*shape: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class Aligner(nn.Module):
    """Tokens of one tower: token_l = W_l R + b_l, a map per block; all blocks begin with the same map."""

    def __init__(self, blocks: int, width: int, rep_dim: int):
        super().__init__()
        one = nn.Linear(rep_dim, width)
        self.weight = nn.Parameter(one.weight.detach().repeat(blocks, 1, 1))
        self.bias = nn.Parameter(one.bias.detach().repeat(blocks, 1))

    def forward(self, space: Tensor) -> Tensor:
        """space R (token, rep_dim) -> (block, token, width)."""
        return space @ self.weight.transpose(1, 2) + self.bias[:, None]


class MMRL(Method):
    """Shared representation tokens in the upper blocks of both towers, two image branches."""

    rules = ("unified", "decoupled")
    token_mix = 1.0  # a generated token replaces what the block before put in its place

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Names of the word list in the README; defaults are MMRL's for ImageNet."""

        first_block: int = 6
        tokens: int = 5
        rep_dim: int = 512
        prompt_weight: float = 0.3  # share of the prompt branch at fusion
        anchor_weight: float = 0.5  # self-regularisation towards the frozen features

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        c, blocks = config, vlm.image.depth - config.first_block + 1
        small = [f"{k}={v}" for k, v in dataclasses.asdict(c).items() if isinstance(v, int) and v < 1]
        if small:
            raise ValueError(f"{', '.join(small)}: must be at least 1")
        if vlm.text.depth != vlm.image.depth or not 1 <= c.first_block <= vlm.image.depth:
            raise ValueError(
                f"first_block={c.first_block} must be a block of two towers of equal depth; "
                f"they have {vlm.image.depth} and {vlm.text.depth} blocks"
            )
        self.space = nn.Parameter(torch.randn(c.tokens, c.rep_dim) * 0.02)
        self.image_aligner = self.aligner(blocks, vlm.image.width)
        self.text_aligner = self.aligner(blocks, vlm.text.width)
        self.add_projection(*vlm.clip.visual.proj.shape)
        self.to(vlm.device)

    def aligner(self, blocks: int, width: int) -> nn.Module:
        """Maps the space R (token, rep_dim) to tokens (block, token, width) of one tower."""
        return Aligner(blocks, width, self.config.rep_dim)

    def add_projection(self, width: int, joint: int) -> None:
        """The trained projection of the prompt branch: random, not CLIP's."""
        self.proj_rep = nn.Parameter(torch.randn(width, joint) / math.sqrt(width))

    def prompt_projection(self) -> Tensor:
        """(width, joint) projection of the prompt branch."""
        return self.proj_rep

    def _edits(self, aligner: nn.Module, after: str) -> dict[int, Edit]:
        first, tokens = self.config.first_block, aligner(self.space)
        table = {first: edits.insert("prompt", tokens[0], after=after)}
        for layer, values in enumerate(tokens[1:], start=first + 1):
            table[layer] = edits.mix("prompt", values, self.token_mix)
        return table

    def image_edits(self) -> dict[int, Edit]:
        return self._edits(self.image_aligner, after="cls")

    def text_edits(self) -> dict[int, Edit]:
        return self._edits(self.text_aligner, after="sos")

    def image_prefix(self, images: Tensor) -> Tokens:
        """Frozen blocks 1..J-1, shared by the adapted and the frozen path."""
        return self.vlm.image.prefix(images, self.config.first_block)

    def image_trace(self, prefix: Tokens) -> list[Tokens]:
        """Tokens after each of the blocks J..L of the adapted image tower; after the last, no patches."""
        table, trace, tower = self.image_edits(), [], self.vlm.image
        for layer in table:
            first = 1 + self.config.tokens if layer == tower.depth else None
            prefix = tower.run(prefix, table, start=layer, stop=layer, first=first)
            trace.append(prefix)
        return trace

    def read_out(self, last: Tokens) -> dict[str, Tensor]:
        """z_c = LN(c) P and z_p = mean_k LN(P_k) P_p, both (batch, joint), not normalised."""
        tower: Tower = self.vlm.image
        prompt = tower.norm(last.x[:, last.span("prompt")]).mean(dim=1)
        return {"cls": tower.project(tower.pool(last)), "prompt": prompt @ self.prompt_projection()}

    def encode_image(self, images: Tensor) -> dict[str, Tensor]:
        return self.read_out(self.image_trace(self.image_prefix(images))[-1])

    def branch_logits(self, z: dict[str, Tensor], w: Tensor) -> tuple[Tensor, Tensor]:
        """(class-branch, prompt-branch) logits, each (batch, class)."""
        return tuple(self.cosine_logits(F.normalize(z[k], dim=-1), w) for k in ("cls", "prompt"))

    def classify(self, z: dict[str, Tensor], rule: str = "unified", split: str | None = None) -> Tensor:
        """Fused logits; the decoupled rule uses the class branch alone for new classes."""
        by_class, by_prompt = self.branch_logits(z, self.current_class_features())
        if rule == "decoupled" and split == "new":
            return by_class
        a = self.config.prompt_weight
        return (1 - a) * by_class + a * by_prompt

    def frozen_image(self, images: Tensor, prefix: Tokens) -> Tensor:
        """(batch, joint) features of the frozen tower; it goes on from the shared blocks."""
        tower, first = self.vlm.image, self.config.first_block
        with torch.no_grad():
            if not self.vlm.shortcuts or tower.first_trained < first:
                return self.vlm.origin.image(images)
            return self.vlm.origin.image.read(prefix, start=first)

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Cross-entropy of both branches and the anchors to the frozen image and text features."""
        c, images, labels = self.config, batch["image"], batch["label"]
        prefix = self.image_prefix(images)
        frozen = self.frozen_image(images, prefix)
        trace = self.image_trace(prefix)
        z, w, w0 = self.read_out(trace[-1]), self.class_features(), self.frozen_class_features()
        by_class, by_prompt = self.branch_logits(z, w)
        terms = {
            "ce_class": (1 - c.prompt_weight) * F.cross_entropy(by_class, labels),
            "ce_prompt": c.prompt_weight * F.cross_entropy(by_prompt, labels),
            "anchor_image": c.anchor_weight * (1 - F.cosine_similarity(z["cls"], frozen).mean()),
            "anchor_text": c.anchor_weight * (1 - F.cosine_similarity(w, w0).mean()),
        }
        return terms | self.extra_losses(z, trace)

    def extra_losses(self, z: dict[str, Tensor], trace: list[Tokens]) -> dict[str, Tensor]:
        """Further weighted terms from the features and the tokens after blocks J..L; none here."""
        return {}
