"""BLIP (Li et al. 2022): one mixture of encoder and decoder, trained to align, to match and to write.

The encoder of texts, begun by [CLS], reads a text alone (ITC); begun by [ENC] it also looks at the image in every block (ITM);
the decoder, begun by [DEC], looks at the image and at earlier words only (LM). Encoder and decoder share embeddings,
cross-attention and MLPs; self-attention is each one's own. ITC and ITM are ALBEF's, with momentum encoders and queues. How it
cleans its own training captions is in `capfilt`.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..learner import Batch, Stage
from ..schema import Amount, Count, Whole
from . import layers
from .aligned import Aligned
from .system import Share, ramped
from .words import DEC, ENC
from .writing import Writer


class Blip(Aligned, Writer):
    """Finds texts for images, tells pairs apart, writes captions."""

    first, begins, floor = DEC, ENC, 1e-4

    differs = "whole words of the training texts for WordPiece; starts from nothing, not from ViT and BERT"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Its sizes. joint: of the features that are compared; queue: of each side; relevance_layer: of the text encoder,
        from 0, whose attention says where it looked."""

        width: Count = 96
        heads: Count = 4
        image: Count = 48
        patch: Count = 8
        image_layers: Count = 3
        text_layers: Count = 3
        joint: Count = 64
        vocabulary: Count = 512
        context: Count = 32
        queue: Whole = 960
        momentum: Share = 0.995
        dropout: Share = 0.0
        relevance_layer: Whole = 1

    @dataclasses.dataclass(frozen=True)
    class Options(Writer.Options):
        """alpha: share of the soft targets, reached after the share `ramp` of the steps; smoothing: of words."""

        steps: Count = 450
        lr: Amount = 6e-4
        weight_decay: float = 0.05
        alpha: Share = 0.4
        ramp: Share = 0.1
        smoothing: Share = 0.1

    objectives = ("itc", "itm", "lm")  # what it minimises

    def __init__(self, models, config):
        super().__init__(models, config)
        self.build_parts(config)

    def build_parts(self, config: Config) -> None:
        """Everything that has weights, of given sizes."""
        self.sizes = config
        if config.relevance_layer >= config.text_layers - 1:
            raise ValueError(
                f"relevance_layer is {config.relevance_layer}; it must be below {config.text_layers - 1}, the last of "
                f"the texts, behind which only [ENC] is read"
            )
        self.online, self.decoder = Encoders(config), Decoder(config)
        self.tie()
        self.head = layers.WordHead(self.online.embedding.words)
        layers.initialise(self.head, config.width)
        self.build_matching(config)

    def tie(self) -> None:
        """The decoder has the encoder's cross-attention and MLPs, with their norms."""
        for own, other in zip(self.decoder.blocks, self.online.text, strict=True):
            for part in ("cross", "cross_norm", "mlp", "mlp_norm"):
                setattr(own, part, getattr(other, part))

    @classmethod
    def real(cls) -> Config:
        """ViT-B/16 and BERT-base with cross-attention in every block (252 M parameters, as published for shared layers
        without self-attention)."""
        image = {"image": 224, "patch": 16, "image_layers": 12}
        text = {"text_layers": 12, "vocabulary": 30524, "context": 512, "dropout": 0.1}
        return cls.Config(768, 12, **image, **text, joint=256, queue=57600, relevance_layer=8)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        o = options
        feed = ramped(self.pairs(task, o, seed), o.steps, o.alpha, o.ramp)
        return [self.stage("pretrain", o, lambda n: (b | {"smoothing": o.smoothing} for b in feed(n)))]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """itc, itm and lm of image (batch, 3, height, width), text, alpha and smoothing."""
        seen, texts = self.online.see(batch["image"]), batch["text"]
        found = self.matched(batch, seen) if "itc" in self.objectives else {}
        if "lm" in self.objectives:
            found["lm"] = self.lm_loss(texts, seen, batch.get("smoothing", 0.0))
        return found

    def matched(self, batch: Batch, seen: Tensor) -> dict[str, Tensor]:
        """itc and itm."""
        texts = batch["text"]
        fast = self.online.joints(seen, self.online.read(*self.ids(texts)))
        with torch.no_grad():
            slow = self.teacher.see(batch["image"])
            self.keys = self.teacher.joints(slow, self.teacher.read(*self.ids(texts)))
        itc = self.itc(fast, batch["alpha"])
        images, words, labels = self.to_match(fast, texts)
        ids, real = self.ids(texts, first=self.begins)
        fused = self.online.read(ids[words], real[words], seen[images])
        return {"itc": itc, "itm": F.cross_entropy(self.itm(fused[:, 0]), labels)}

    def look(self, images: Tensor) -> Tensor:
        return self.online.see(images)

    def write(self, ids: Tensor, real: Tensor, seen: Tensor | None = None) -> Tensor:
        return self.head(self.decoder(self.online.embedding(ids), real, seen))

    def after_step(self, stage: Stage, step: int) -> None:
        if "itc" in self.objectives:
            self.follow(self.sizes.momentum)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, token, width) of texts that look at images, see `inputs`."""
        return self.online.read(input_ids, attention_mask, self.online.see(pixel_values))

    def written(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, token, vocabulary) logits of the decoder, see `inputs`."""
        return self.write(input_ids, attention_mask, self.online.see(pixel_values))

    def looking(self) -> layers.Attention:
        return self.online.text[self.sizes.relevance_layer].cross


class Encoders(nn.Module):
    """What a momentum copy follows: the encoders of image and text and their projections."""

    def __init__(self, c: Blip.Config):
        super().__init__()
        self.vision = layers.vision(c.image, c.patch, c.width, c.image_layers, c.heads)
        self.embedding = layers.Embedding(c.vocabulary, c.context, c.width, c.dropout)
        block = {"width": c.width, "heads": c.heads, "dropout": c.dropout, "cross": c.width}
        self.text = nn.ModuleList(layers.Block(**block) for _ in range(c.text_layers))
        self.image_joint, self.text_joint = (nn.Linear(c.width, c.joint) for _ in range(2))
        for part in (self.embedding, self.text, self.image_joint, self.text_joint):
            layers.initialise(part, c.width)

    def see(self, images: Tensor) -> Tensor:
        """(batch, 1 + patch, width), [CLS] first."""
        return self.vision.forward_features(images)

    def read(self, input_ids: Tensor, attention_mask: Tensor, seen: Tensor | None = None) -> Tensor:
        """(batch, token, width) of texts, alone or with what is seen; ids and which of them are words (batch, token)."""
        x = self.embedding(input_ids)
        for block in self.text:
            x = block(x, layers.padding(attention_mask), seen)
        return x

    def joints(self, seen: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features (batch, joint) of images and of texts."""
        both = (self.image_joint, seen), (self.text_joint, read)
        return tuple(F.normalize(project(x[:, 0]), dim=1) for project, x in both)


class Decoder(nn.Module):
    """Blocks in which a word looks at itself and earlier ones, and at the image."""

    def __init__(self, c: Blip.Config):
        super().__init__()
        block = {"width": c.width, "heads": c.heads, "dropout": c.dropout, "cross": c.width}
        self.blocks = nn.ModuleList(layers.Block(**block) for _ in range(c.text_layers))
        layers.initialise(self, c.width)

    def forward(self, x: Tensor, real: Tensor, seen: Tensor | None) -> Tensor:
        """(batch, token, width); real (batch, token), seen (batch, 1 + patch, width)."""
        mask = layers.padding(real) & layers.causal(x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, mask, seen)
        return x
