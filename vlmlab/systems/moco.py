"""MoCo (He et al. 2020): contrast of two views of an image with a queue of keys by a slowly moving encoder.

A query q of one view is to find the key k of the other among the keys of earlier batches,

    -log( exp(q k / t) / (exp(q k / t) + sum over the queue of exp(q k' / t)) ),

all vectors of unit length. Other images of the same batch are no negatives; their keys join the queue after the step. The
key encoder has no gradient: its parameters are a moving average of the query encoder's, with momentum m.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from .. import feeds
from ..learner import Batch, Stage
from ..schema import Amount, Count, Whole
from . import momentum
from .residual import ResidualNet
from .system import Share, System


class Moco(System):
    """Image features without labels or texts."""

    differs = "batch norm is not shuffled among processes; light views in place of colour jitter by default"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """momentum: m of the key encoder. joint: of keys and queries. encoder: a residual network of three stages, or the
        paper's ResNet-50. probe: images whose keys are made anew in every step, to tell how far they drift; 0 for none."""

        image: Count = 32
        encoder: Literal["small", "resnet50"] = "small"
        joint: Count = 64
        queue: Count = 960
        momentum: Share = 0.99
        temperature: Amount = 0.1
        probe: Whole = 32

    @dataclasses.dataclass(frozen=True)
    class Options(System.Options):
        """views: light (crops, permuted channels, noise) or strong (crops, colour jitter, grey, blur)."""

        steps: Count = 150
        batch: Count = 96
        lr: Amount = 0.06
        weight_decay: float = 1e-4
        warmup: Share = 0.0
        views: Literal["light", "strong"] = "light"

    def __init__(self, models, config):
        super().__init__(models, config)
        self.query = encoder(config)
        self.key = momentum.frozen_copy(self.query)
        self.queue = momentum.Queue(config.queue, config.joint)
        self.drift = momentum.Drift(config.probe, config.image, config.joint)

    @classmethod
    def real(cls) -> Config:
        """ResNet-50 with 128 outputs (24 M parameters), the queue and the temperature of the paper."""
        return cls.Config(224, "resnet50", 128, 65536, 0.999, 0.07)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        if not len(task.train):
            raise ValueError(f"{task.id} under {task.protocol} has no training images; use another protocol")
        o, view = options, VIEWS[options.views](self, task.train.flip)
        views = {"query": view, "key": view}
        feed = feeds.epochs(task.train, views, o.batch, seed, o.steps, self.workers)
        return [self.stage("pretrain", o, feed, "sgd", options={"momentum": 0.9}, clip=None)]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """InfoNCE of the views query and key, both (batch, 3, height, width)."""
        q = F.normalize(self.query(batch["query"]), dim=1)
        with torch.no_grad():
            self.keys = F.normalize(self.key(batch["key"]), dim=1)
        logits = info_nce_logits(q, self.keys, self.queue.rows, self.config.temperature)
        self.similarity = logits.detach() * self.config.temperature
        return {"nce": F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))}

    def beside(self, batch: Batch, terms) -> dict[str, Tensor]:
        """accuracy: share of queries that find their key first; positive, negative: mean similarity to the key, and to
        the nearest of the queue; apart: distance of the two encoders' parameters; drift 1, drift 2, ...: see
        `momentum.Drift`."""
        drift = self.drift(self.key, batch["key"]) if self.config.probe else {}
        return {
            "accuracy": (self.similarity.argmax(1) == 0).float().mean(),
            "positive": self.similarity[:, 0].mean(),
            "negative": self.similarity[:, 1:].amax(1).mean(),
            "apart": momentum.distance(self.key, self.query),
            **drift,
        }

    @torch.no_grad()
    def after_step(self, stage: Stage, step: int) -> None:
        self.queue.push(self.keys)
        momentum.follow(self.key, self.query, self.config.momentum)

    def encode_image(self, images: Tensor) -> Tensor:
        """images (batch, 3, height, width), preprocessed -> (batch, joint), unit length."""
        return F.normalize(self.query(images), dim=1)


def encoder(c: Moco.Config) -> nn.Module:
    """images -> (batch, joint)."""
    if c.encoder == "small":
        return ResidualNet((24, 48, 96), 1, c.joint, stride=2)
    from torchvision.models import resnet50

    return resnet50(num_classes=c.joint)


def info_nce_logits(q: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """(batch, 1 + queue): the own key first. q, keys (batch, joint), queue (size, joint), all unit vectors."""
    return torch.cat([(q * keys).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature


def light_transform(model: System, flip: bool) -> Callable:
    """Crops of a third of the image or more, channels in any order, noise: quick, and hard enough for drawings."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(model.image_size, scale=(0.35, 1.0)),
            *([v2.RandomHorizontalFlip()] if flip else []),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Lambda(recoloured),
            v2.Normalize(model.mean, model.std),
        ]
    )


def recoloured(pixels: Tensor) -> Tensor:
    """Channels in a random order, and noise; one pass, since torchvision's two take longer than the drawing."""
    return pixels[torch.randperm(3)] + 0.05 * torch.randn(pixels.shape)


def strong_transform(model: System, flip: bool) -> Callable:
    return feeds.strong_transform(model, (0.2, 1.0), flip)


VIEWS = {"light": light_transform, "strong": strong_transform}
