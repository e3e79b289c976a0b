"""LaFTer with prompts in several stages, whose blocks are read together by Gaussian weights (NGA).

Neighbourhood Gaussian aggregation is Cascade-CLIP's (Li et al., ICML 2024), there with decoders for masks; here every
stage is read by the frozen norm and projection and one classifier.
"""

import dataclasses
import math
import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..learner import Group
from ..models import edits
from ..models.towers import Edit
from ..schema import Count, Finite, Whole, described
from .lafter import IMAGES, LaFTer
from .method import Amount, Epochs

PLANS = {
    "b16": "6-8,9-11,12",
    "b32": "1-4,5-8,9-11,12",
}  # the two designs of the plan, by the model they are for
WIDEST = 1e4  # of a Gaussian; its inverse is the narrowest: both ends to the digits of float32
Width = described(float, "a number from 0.0001 to 10000", ge=1 / WIDEST, le=WIDEST)


class Aggregation(nn.Module):
    """Weights of the blocks l = 1..d of one stage, (block,), whose last block is the nearest: far = d - l.

    gaussian: softmax of -far^2 / 2 sigma^2, sigma = exp(rho) learned; the last block alone as sigma goes to 0, the
    mean as it grows. fixed: the same with a sigma that stays. cascade: the weights are what is learned, from
    exp(-far^2 / 2 sigma^2), as in Cascade-CLIP's code. last: the last block. The plan's own, which go wrong: formula,
    exp(-(far+1)^2 / 2 sigma^2), which gives a lone block 0.607 and all blocks nothing as sigma goes to 0; sketch, the
    same divided by its sum, 0/0 there; their sigma may change its sign. A stage of one block has weight 1 and nothing
    to learn, but in these two.
    """

    def __init__(self, kind: str, blocks: int, sigma: float):
        super().__init__()
        self.kind = kind
        far = torch.arange(blocks - 1, -1, -1, dtype=torch.float32)
        self.register_buffer("far", far, persistent=False)
        start = {
            "gaussian": torch.tensor(math.log(sigma)),
            "fixed": torch.tensor(math.log(sigma)),
            "cascade": (-far.square() / (2 * sigma**2)).exp(),
            "last": None,
            "formula": torch.tensor(float(sigma)),
            "sketch": torch.tensor(float(sigma)),
        }[kind]
        alone = blocks == 1 and kind in ("gaussian", "cascade")
        if kind == "fixed":
            self.register_buffer("value", start, persistent=False)
        else:
            self.value = None if alone or start is None else nn.Parameter(start)

    def forward(self) -> Tensor:
        if self.value is None:
            return (self.far == 0).float()
        if self.kind == "cascade":
            return self.value
        if self.kind in ("gaussian", "fixed"):
            return (-self.far.square() / (2 * self.sigma().square())).softmax(0)
        weights = (-(self.far + 1).square() / (2 * self.value.square())).exp()
        return weights / weights.sum() if self.kind == "sketch" else weights

    def sigma(self) -> Tensor | None:
        """The width, (), in blocks; None where there is none."""
        if self.value is None or self.kind == "cascade":
            return None
        if self.kind in ("formula", "sketch"):
            return self.value
        return self.value.clamp(-math.log(WIDEST), math.log(WIDEST)).exp()


class LaFTerNGA(LaFTer):
    """LaFTer with prompts per stage of blocks, Gaussian weights within stages and learned weights of the stages.

    Before the first block of stage s its prompts take the place of those of the stage before, or join them. h_l is the
    final norm of the class token behind block l, z_s = (sum_l w_l h_l) proj, and the features are sum_s lambda_s z_s.

    The ablation is a matter of settings: cascade alone `aggregate="last"`, NGA alone one stage such as
    `stages="6-12"`, a single layer `stages="12"`, LaFTer `stages="1-12", aggregate="last", tokens=50, norms="all"`
    with `order="joint", lr=5e-4`.
    """

    @dataclasses.dataclass(frozen=True)
    class Config(LaFTer.Config):
        """stages: first and last blocks, "6-8,9-11,12", or the name of a plan, b16 or b32; what no stage holds runs
        unread. last_stage: start of theta of the last stage, where the others start at 0; the weights of the
        stages are softmax(theta). Literal variants of the plan: start="zeros", aggregate="formula" or "sketch",
        flow="restart" (the blocks of every stage run on the embedded image and the prompts so far),
        fusion="raw" (weights 1/S that need not stay shares), readout="no_affine" (a norm without the model's scale)."""

        stages: str = PLANS["b16"]
        tokens: Count = 16  # of each stage
        placement: Literal["replace", "append"] = "replace"
        sharing: Literal["separate", "shared"] = "separate"  # shared: the same prompts in all stages
        start: Literal["uniform", "zeros"] = "uniform"  # of prompts; those that start equal stay equal
        aggregate: Literal["gaussian", "fixed", "cascade", "last", "formula", "sketch"] = "gaussian"
        sigma: Width = 1.0  # before training
        flow: Literal["onward", "restart"] = "onward"
        fusion: Literal["softmax", "raw"] = "softmax"
        last_stage: Finite = 2.0
        classifiers: Literal["shared", "separate"] = "shared"  # of the stages; all start as that of the texts
        readout: Literal["ln_post", "no_affine"] = "ln_post"
        norms: Literal["all", "inner", "none"] = "inner"
        w_consistency: Amount = (
            0.0  # KL of what every stage says from what all say together, which stands still
        )
        w_distill: Amount = 0.0  # 1 - cosine of every h_l to the frozen model's without prompts
        epochs: Epochs = 8

    @dataclasses.dataclass(frozen=True)
    class Options(LaFTer.Options):
        """Defaults are the plan's. order: which prompts train first; each further stage joins for `unfreeze_epochs`
        together with its sigma, then all trains, theta and norms too. joint: all from the start."""

        epochs: Epochs = 8
        lr: Amount = 1e-4
        nga_lr: Amount = 1e-5  # of sigma or weights within stages, and of the weights of stages
        order: Literal["deepest_first", "front_first", "joint"] = "deepest_first"
        warmup_epochs: Whole = 2  # the first stage's prompts and the classifier alone
        unfreeze_epochs: Count = 1
        warmup_lr: Amount = 1e-4  # until all trains

    def add_prompts(self) -> None:
        c = self.config
        self.spans = spans(c.stages, self.vlm.image.depth)
        count = len(self.spans) if c.sharing == "separate" else 1
        self.prompt = nn.ParameterList(self.new_prompt() for _ in range(count))
        if c.start == "zeros":
            for p in self.prompt:
                nn.init.zeros_(p)

    def add_more(self) -> None:
        c, count = self.config, len(self.spans)
        self.aggregations = nn.ModuleList(
            Aggregation(c.aggregate, last - first + 1, c.sigma) for first, last in self.spans
        )
        self.theta = None
        if c.fusion == "raw":
            self.theta = nn.Parameter(torch.full((count,), 1 / count))
        elif count > 1:
            self.theta = nn.Parameter(torch.tensor([0.0] * (count - 1) + [c.last_stage]))
        apart = torch.zeros(count, *self.adapter.shape)  # of each stage's classifier from the shared one
        self.apart = nn.Parameter(apart) if c.classifiers == "separate" else None

    def block_weights(self) -> list[Tensor]:
        """Of every stage the weights of its blocks, (block,)."""
        return [aggregation() for aggregation in self.aggregations]

    def stage_weights(self) -> Tensor:
        """(stage,) lambda: what each stage adds to the features."""
        if self.theta is None:
            return torch.ones(1, device=self.device)
        return self.theta if self.config.fusion == "raw" else self.theta.softmax(0)

    def image_edits(self) -> dict[int, Edit]:
        table: dict[int, Edit] = {}
        for number, (first, _) in enumerate(self.spans):
            values = self.prompt[min(number, len(self.prompt) - 1)]
            if table and self.config.placement == "replace":
                table[first] = edits.mix("prompt", values, 1.0)
            else:
                table[first] = edits.insert("prompt", values, after="prompt" if table else "cls")
        return table

    def taps(self, images: Tensor, vlm=None, table: dict[int, Edit] | None = None) -> list[Tensor]:
        """Of every stage the class token behind its blocks, (batch, block, width); of another model, with other
        edits, where they are given."""
        tower = (vlm or self.vlm).image
        table = self.image_edits() if table is None else table
        onward, end = self.config.flow == "onward", self.spans[-1][1]
        tokens, at, found = tower.embed(images), 1, []
        for first, last in self.spans:
            if onward:
                tokens = tower.run(tokens, {}, at, first - 1)
            tokens = table[first](tokens) if first in table else tokens
            x, cls = tokens, []
            for layer in range(first, last + 1):
                x = tower.run(x, {}, layer, layer, first=1 if layer == end else None)
                cls.append(x.x[:, 0])
            found.append(torch.stack(cls, dim=1))
            tokens, at = (x, last + 1) if onward else (tokens, at)
        return found

    def read(self, taps: Tensor, weights: Tensor) -> Tensor:
        """z_s (batch, joint) of the class tokens (batch, block, width) of a stage and their weights (block,)."""
        tower = self.vlm.image
        if self.config.readout == "no_affine":
            x = torch.einsum("b,nbw->nw", weights, taps.float())
            return tower.project(F.layer_norm(x, x.shape[-1:]))
        return tower.project(torch.einsum("b,nbw->nw", weights, tower.norm(taps).float()))

    def trace(self, images: Tensor) -> dict[str, Tensor]:
        taps = self.taps(images)
        z = torch.stack([self.read(x, w) for x, w in zip(taps, self.block_weights())])
        stages = {f"stage{i}": x for i, x in enumerate(z, start=1)}
        return {"cls": torch.einsum("s,snj->nj", self.stage_weights(), z.float()), **stages, "taps": taps}

    def encode_image(self, images: Tensor) -> dict[str, Tensor]:
        """`cls`, the fused features, and those of every stage, `stage1` ..., each (batch, joint)."""
        return {name: x for name, x in self.trace(images).items() if name != "taps"}

    def classify(self, z: dict[str, Tensor], rule: str = "unified", split: str | None = None) -> Tensor:
        """(batch, class) logits; with separate classifiers each stage adds what its own says beyond the shared one."""
        logits = super().classify(z, rule, split)
        if self.apart is None:
            return logits
        each = torch.stack([z[f"stage{i}"].float() for i in range(1, len(self.spans) + 1)])
        if self.config.student == "unit":  # as the sum of them is scaled
            each = each / z["cls"].float().norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return logits + torch.einsum("s,snj,scj->nc", self.stage_weights(), each, self.apart[:, self.rows])

    def extra_losses(self, images: Tensor, z: dict[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        c, terms = self.config, {}
        if c.w_consistency:
            fused = logits.detach().log_softmax(-1)
            each = [self.head(z[f"stage{i}"]).log_softmax(-1) for i in range(1, len(self.spans) + 1)]
            kl = [F.kl_div(x, fused, reduction="batchmean", log_target=True) for x in each]
            terms["consistency"] = c.w_consistency * sum(kl)
        if c.w_distill:
            with torch.no_grad():
                frozen = self.normed(self.taps(images, self.vlm.origin, {}), self.vlm.origin)
            cosine = F.cosine_similarity(self.normed(z["taps"], self.vlm), frozen, dim=-1)
            terms["distill"] = c.w_distill * (1 - cosine.mean())
        return terms

    def normed(self, taps: list[Tensor], vlm) -> Tensor:
        """h (batch, block of all stages, width) in float32."""
        return vlm.image.norm(torch.cat(taps, dim=1)).float()

    def phases(self, o: "LaFTerNGA.Options") -> list[tuple[str, int, tuple[Group, ...]]]:
        stages = [*range(len(self.spans))]
        theta = () if self.theta is None else (Group("theta", o.nga_lr),)
        apart = () if self.apart is None else (Group("apart", o.lr, o.weight_decay),)
        everything = (*self.groups(stages, o.lr, o), *theta, *apart, *self.common(o))
        if o.order == "joint":
            return [(IMAGES, o.epochs, everything)]
        order = stages[::-1] if o.order == "deepest_first" else stages
        before = o.warmup_epochs + o.unfreeze_epochs * (len(order) - 1)
        if len(self.prompt) < len(order) or o.epochs <= before:
            raise ValueError(
                f"order={o.order!r} needs separate prompts and more than {before} epochs; sharing is "
                f"{self.config.sharing!r}, epochs is {o.epochs} (order='joint' trains all from the start)"
            )
        head, first = Group("adapter", o.warmup_lr, o.weight_decay), self.groups(order[:1], o.warmup_lr, o)
        parts = [("warmup", o.warmup_epochs, (first[0], head))] if o.warmup_epochs else []
        for count in range(2, len(order) + 1):
            joined = self.groups(order[:count], o.warmup_lr, o)
            parts.append((f"unfreeze{count}", o.unfreeze_epochs, (*joined, head)))
        return [*parts, (IMAGES, o.epochs - before, everything)]

    def groups(self, stages: list[int], lr: float, o: "LaFTerNGA.Options") -> tuple[Group, ...]:
        """Those of the prompts of some stages, then those of their widths or weights, which are not decayed."""
        prompts = [f"prompt.{i}" for i in stages if i < len(self.prompt)]
        learned = [f"aggregations.{i}.value" for i in stages if [*self.aggregations[i].parameters()]]
        return (
            *(Group(name, lr, o.weight_decay) for name in prompts),
            *(Group(name, o.nga_lr) for name in learned),
        )


def spans(text: str, depth: int) -> list[tuple[int, int]]:
    """First and last block of every stage. ValueError unless they follow each other within blocks 1 to depth."""
    found, stages = [], PLANS.get(text, text)
    for part in stages.split(","):
        if not (numbers := re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)):
            raise ValueError(
                f"stages={text!r}: expected blocks such as '6-8,9-11,12', or one of {', '.join(PLANS)}"
            )
        found.append((int(numbers[1]), int(numbers[2] or numbers[1])))
    ends = [0, *(end for _, end in found)]
    if any(not before < first <= last for before, (first, last) in zip(ends, found)) or ends[-1] > depth:
        raise ValueError(
            f"stages={text!r}: stages must follow each other without sharing a block, within blocks 1 to {depth}"
        )
    return found
