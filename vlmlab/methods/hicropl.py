"""HiCroPL: text prompts inform image prompts in lower blocks, the reverse above (Zheng et al., ICCV 2025)."""

import copy
import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from .. import descriptions
from ..learner import Batch, Stage
from ..models.towers import Edit
from . import prompts
from .method import Method
from .promptsrc import TEMPLATES

HEADS = 8
MODES = ("faithful", "differentiable")


class Pool(nn.Module):
    """The prompts of one block summed up in one token: LN(q + Attention(LN q, LN p, LN p))."""

    def __init__(self, width: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, HEADS)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, query: Tensor, values: Tensor) -> Tensor:
        """query (1, width), prompts (token, width) -> (1, width)."""
        known = self.ln_1(values)
        return self.ln_2(query + self.attn(self.ln_1(query), known, known, need_weights=False)[0])


class Mapper(nn.Module):
    """Prompts of one tower that have looked at the summaries of the other's: attention, then an MLP."""

    def __init__(self, width: int, other: int):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(other, width), nn.Linear(other, width)
        self.attn = nn.MultiheadAttention(width, HEADS)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), QuickGELU(), nn.Linear(4 * width, width))

    def forward(self, values: Tensor, summaries: Tensor) -> Tensor:
        """prompts (block, token, width), summaries (block, other) -> (block, token, width)."""
        u = self.query(values.flatten(0, 1))
        k, v = self.ln_1(self.key(summaries)), self.ln_1(self.value(summaries))
        u = u + self.attn(self.ln_1(u), k, v, need_weights=False)[0]
        return (u + self.mlp(self.ln_2(u))).view_as(values)


class HiCroPL(Method):
    """Prompts that flow between the towers; features are mixed half and half with frozen ones.

    mode "faithful" is the published code: mapped prompts are written over the parameters in every
    forward pass, evaluation included, so logits drift from pass to pass, and mappers, pools and their
    queries never receive a gradient. mode "differentiable" is the paper's text: mapped prompts stay
    in the graph and the parameters as they are.

    The paper trains 50 epochs of Adam 0.0025 (eps 1e-3) at batch 32, crops from 0.08. The context
    takes the place of the task's template.
    """

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Defaults are the paper's for base-to-new.

        descriptions: a JSON file {class name: [sentences]}, as the paper's language model wrote them;
        without one the 60 templates of PromptSRC stand in.
        """

        tokens: int = 16
        depth: int = 12  # prompts stand in blocks 1..depth of both towers
        cross_layer: int = 6  # text informs image in blocks 1..cross_layer, image informs text above
        anchor_weight: float = 12.0
        mode: str = "faithful"
        descriptions: Path | None = None

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        c, (D, d) = config, (vlm.image.width, vlm.text.width)
        prompts.check_depth(c.depth, vlm.image, vlm.text)
        if c.mode not in MODES or not 1 <= c.cross_layer < c.depth:
            raise ValueError(
                f"mode={c.mode!r}, cross_layer={c.cross_layer}; mode is {' or '.join(MODES)}, "
                f"cross_layer 1 to {c.depth - 1}"
            )
        words = prompts.first_words(vlm, c.tokens)
        deeper = torch.randn(c.depth - 1, *words.shape, device=words.device) * 0.02
        self.text = nn.Parameter(torch.cat([words[None], deeper]))
        self.image = nn.Parameter((torch.randn(c.tokens, D) * 0.02).repeat(c.depth, 1, 1))
        self.to_image, self.to_text = Mapper(D, d), Mapper(d, D)
        lower, upper = c.cross_layer, c.depth - c.cross_layer
        self.text_pools, self.image_pools = clones(Pool(d), lower), clones(Pool(D), upper)
        self.text_queries = nn.Parameter(torch.randn(d).repeat(lower, 1))
        self.image_queries = nn.Parameter(torch.randn(D).repeat(upper, 1))
        self.to(vlm.device)

    def prompts(self) -> list[str]:
        return self.fill(prompts.opening(self.config.tokens) + " {}.")

    def mapped_image(self) -> Tensor:
        """Image prompts of blocks 1..cross_layer after a look at the text prompts there."""
        k = self.config.cross_layer
        return self.to_image(self.image[:k], summaries(self.text_pools, self.text_queries, self.text[:k]))

    def mapped_text(self) -> Tensor:
        """Text prompts of blocks cross_layer+1..depth after a look at the image prompts there."""
        k = self.config.cross_layer
        return self.to_text(self.text[k:], summaries(self.image_pools, self.image_queries, self.image[k:]))

    def image_prompts(self) -> Tensor:
        """(block, token, width) as they enter the image tower."""
        if self.config.mode == "faithful":
            return self.image
        return torch.cat([self.mapped_image(), self.image[self.config.cross_layer :]])

    def text_prompts(self) -> Tensor:
        """(block, token, width) as they enter the text tower."""
        if self.config.mode == "faithful":
            return self.text
        return torch.cat([self.text[: self.config.cross_layer], self.mapped_text()])

    @torch.no_grad()
    def write_mapped(self) -> None:
        """What the published code does first in every forward pass."""
        if self.config.mode == "faithful":
            k = self.config.cross_layer
            self.image[:k], self.text[k:] = self.mapped_image(), self.mapped_text()

    def image_edits(self) -> dict[int, Edit]:
        return prompts.image_edits(self.image_prompts())

    def text_edits(self) -> dict[int, Edit]:
        return prompts.text_edits(self.text_prompts())

    def sentences(self) -> list[list[str]]:
        """The frozen classifier's texts of every class. ValueError names a class without any."""
        if not self.config.descriptions:
            return [list(texts) for texts in zip(*map(self.fill, TEMPLATES))]
        names = self.fill("{}")
        found = descriptions.read(self.config.descriptions, names, others=True)  # half of the classes learn
        return [found[name] for name in names]

    def described_class_features(self) -> Tensor:
        """(class, joint) frozen features: the normalised mean of the normalised sentences of a class."""

        def compute():
            with torch.no_grad():
                means = [
                    F.normalize(self.vlm.origin.encode_text(s), dim=-1).mean(0) for s in self.sentences()
                ]
                return F.normalize(torch.stack(means), dim=-1)

        return self._once(("described",), compute)

    def mixed_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, joint) unit features halfway to the frozen ones, and these."""
        with torch.no_grad():
            z0 = F.normalize(self.vlm.origin.encode_image(images), dim=-1)
        z = F.normalize(self.encode_image(images)["cls"], dim=-1)
        return F.normalize(z + z0, dim=-1), z0

    def mixed_classes(self, adapted: Tensor) -> Tensor:
        """(class, joint) unit features halfway to the described ones."""
        return F.normalize(adapted + self.described_class_features(), dim=-1)

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        self.write_mapped()
        return {"cls": self.mixed_image(images)[0]}

    def classify(self, z: dict[str, Tensor], rule: str = "unified", split: str | None = None) -> Tensor:
        """(batch, class) scaled cosines of the mixed features."""
        return self.cosine_logits(z["cls"], self.mixed_classes(self.current_class_features()))

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Cross-entropy and the anchors of the mixed features to the frozen ones."""
        images, labels = batch["image"], batch["label"]
        self.write_mapped()
        w, a = self.mixed_classes(self.class_features()), self.config.anchor_weight
        z, z0 = self.mixed_image(images)
        return {
            "ce": F.cross_entropy(self.cosine_logits(z, w), labels),
            "anchor_text": a * (1 - F.cosine_similarity(w, self.described_class_features()).mean()),
            "anchor_image": a * (1 - F.cosine_similarity(z, z0).mean()),
        }


def clones(module: nn.Module, n: int) -> nn.ModuleList:
    return nn.ModuleList(copy.deepcopy(module) for _ in range(n))


def summaries(pools: nn.ModuleList, queries: Tensor, values: Tensor) -> Tensor:
    """One token per block, (block, width), from the prompts (block, token, width)."""
    return torch.cat([pool(q[None], p) for pool, q, p in zip(pools, queries, values)])
