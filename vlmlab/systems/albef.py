"""ALBEF (Li et al. 2021, "Align before Fuse"): images and texts aligned, then fused, with a momentum teacher.

A ViT reads the image, the lower half of a BERT the text; the upper half looks at all tokens of the image
(cross-attention). Three terms, summed: contrast of both before the fusion (ITC, with queues and soft targets), matching
after it (ITM, with hard negatives), and masked words that the image helps to find (MLM). Momentum copies of both encoders
and of the fusion give the soft targets of ITC and MLM; ITM has none.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..learner import Batch, Stage
from ..schema import Amount, Count, Whole
from . import layers
from .aligned import Aligned
from .masking import corrupted, masked_loss
from .system import Share, System, ramped
from .words import MASK, SPECIAL


class Albef(Aligned):
    """Finds texts for images, tells pairs apart, fills in masked words."""

    differs = "whole words of the training texts for WordPiece; starts from nothing, not from DeiT and BERT"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Its sizes. joint: of the features that are compared; queue: of each side; relevance_layer: of the fusion, from 0,
        whose attention says where it looked; the paper's is the third of six."""

        width: Count = 96
        heads: Count = 4
        image: Count = 48
        patch: Count = 8
        image_layers: Count = 3
        text_layers: Count = 2
        fusion_layers: Count = 2
        joint: Count = 64
        vocabulary: Count = 512
        context: Count = 32
        queue: Whole = 960
        momentum: Share = 0.995
        dropout: Share = 0.0
        relevance_layer: Whole = 0

    @dataclasses.dataclass(frozen=True)
    class Options(System.Options):
        """alpha: share of the soft targets, reached after the share `ramp` of the steps."""

        steps: Count = 700
        lr: Amount = 1e-3
        alpha: Share = 0.4
        ramp: Share = 0.1

    def __init__(self, models, config):
        super().__init__(models, config)
        if config.relevance_layer >= config.fusion_layers - 1:
            raise ValueError(
                f"relevance_layer is {config.relevance_layer}; it must be below {config.fusion_layers - 1}, the last of "
                f"the fusion, behind which only [CLS] is read"
            )
        self.online = Encoders(config)
        self.build_matching(config)

    @classmethod
    def real(cls) -> Config:
        """ViT-B/16 (85.8 M parameters) and BERT-base (123.7 M), as published."""
        text = {"text_layers": 6, "fusion_layers": 6, "vocabulary": 30522, "context": 512}
        image = {"image": 256, "patch": 16, "image_layers": 12}
        return cls.Config(768, 12, **image, **text, joint=256, queue=65536, dropout=0.1, relevance_layer=2)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        feed = ramped(self.pairs(task, options, seed), options.steps, options.alpha, options.ramp)
        return [self.stage("pretrain", options, feed)]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """itc, itm and mlm of image (batch, 3, height, width), text and alpha."""
        images, alpha = batch["image"], batch["alpha"]
        ids, real = self.ids(batch["text"])
        seen, read = self.online.see(images), self.online.read(ids, real)
        fast = self.online.aligned(seen, read)
        with torch.no_grad():
            slow_seen = self.teacher.see(images)
            self.keys = self.teacher.aligned(slow_seen, self.teacher.read(ids, real))
        itc, chosen = self.itc(fast, alpha), self.to_match(fast, batch["text"])
        fused = self.online.fuse(read[chosen[1]], real[chosen[1]], seen[chosen[0]])
        itm = F.cross_entropy(self.itm(fused[:, 0]), chosen[2])
        hidden = corrupted(ids, len(self.words))
        with torch.no_grad():
            soft = self.known(self.teacher.name(hidden.ids, real, slow_seen))
        logits = self.known(self.online.name(hidden.ids, real, seen))
        mlm = masked_loss(logits, hidden.labels, soft, alpha)
        return {"itc": itc, "itm": itm, "mlm": mlm}

    def after_step(self, stage: Stage, step: int) -> None:
        self.follow(self.config.momentum)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, token, width) of texts that look at images, see `inputs`."""
        read = self.online.read(input_ids, attention_mask)
        return self.online.fuse(read, attention_mask, self.online.see(pixel_values))

    def fill(self, images: Tensor, texts: list[str]) -> list[str]:
        """Each text with the likeliest word at every [MASK], given its image."""
        ids, real = self.ids(texts)
        logits = self.known(self.online.name(ids, real, self.online.see(images)))
        best = logits[..., len(SPECIAL) :].argmax(2) + len(SPECIAL)
        return [self.words.text(row[1:]) for row in torch.where(ids == MASK, best, ids).tolist()]

    def looking(self) -> layers.Attention:
        return self.online.fusion[self.config.relevance_layer].cross


class Encoders(nn.Module):
    """What a momentum copy follows: the encoders of image and text, their projections, the fusion, the head of words."""

    def __init__(self, c: Albef.Config):
        super().__init__()
        self.vision = layers.vision(c.image, c.patch, c.width, c.image_layers, c.heads)
        self.embedding = layers.Embedding(c.vocabulary, c.context, c.width, c.dropout)
        block = {"width": c.width, "heads": c.heads, "dropout": c.dropout}
        self.text = nn.ModuleList(layers.Block(**block) for _ in range(c.text_layers))
        self.fusion = nn.ModuleList(layers.Block(cross=c.width, **block) for _ in range(c.fusion_layers))
        self.image_joint, self.text_joint = (nn.Linear(c.width, c.joint) for _ in range(2))
        self.head = layers.WordHead(self.embedding.words)
        for part in (self.embedding, self.text, self.fusion, self.head, self.image_joint, self.text_joint):
            layers.initialise(part, c.width)

    def see(self, images: Tensor) -> Tensor:
        """(batch, 1 + patch, width), [CLS] first."""
        return self.vision.forward_features(images)

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, token, width) of texts alone; ids and which of them are words, both (batch, token)."""
        x = self.embedding(input_ids)
        for block in self.text:
            x = block(x, layers.padding(attention_mask))
        return x

    def fuse(self, read: Tensor, real: Tensor, seen: Tensor) -> Tensor:
        """(batch, token, width) of texts that look at images."""
        for block in self.fusion:
            read = block(read, layers.padding(real), seen)
        return read

    def name(self, ids: Tensor, real: Tensor, seen: Tensor) -> Tensor:
        """(batch, token, vocabulary) logits of words."""
        return self.head(self.fuse(self.read(ids, real), real, seen))

    def aligned(self, seen: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features (batch, joint) of images and of texts."""
        return tuple(
            F.normalize(f(x[:, 0]), dim=1) for f, x in ((self.image_joint, seen), (self.text_joint, read))
        )
