"""SigLIP's loss (Zhai et al. 2023) on the towers of a CLIP: every pair of a batch is a yes or no question of its own.

The training goes on from a trained CLIP of the same sizes (`tiny`), on smaller images: half of a batch are generated
scenes of shapes with exact captions, half what CLIP was pretrained on. The towers keep CLIP's form, a class token and
causal text; from SigLIP come the loss, the scale and the bias.
"""

import dataclasses
import itertools
import math

import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from torch import Tensor

from ..learner import Batch, Stage
from ..rates import half_cosine
from ..tasks.emoji.pretraining import Sampler
from ..tasks.shapes import pretraining as shapes
from ..tasks.shapes.texts import caption
from .clip import DEEP, Clip

SCALE, BIAS = 10.0, -10.0  # initial values of the paper


class Siglip(Clip):
    """Two towers of a trained CLIP, trained on wholly by the sigmoid loss."""

    models_needed = ("vlm",)

    @dataclasses.dataclass(frozen=True)
    class Config(Clip.Config):
        """Its sizes."""

        image: int = 48

    @dataclasses.dataclass(frozen=True)
    class Options:
        """Its training; samples are images seen.

        batch: emoji in a batch, of which a sixth are scenes of two; one, pairs, many: generated scenes beside them.
        ramp, scenes, mono: as of CLIP.
        """

        samples: int = 48_000
        batch: int = 18
        one: int = 6
        pairs: int = 16
        many: int = 8
        lr: float = 5e-4
        weight_decay: float = 0.1
        warmup: int = 50  # steps
        ramp: float = 1e-6
        scenes: float = 0.0
        mono: float = 0.15
        save_every: int = 100  # steps

    def __init__(self, models, config):
        super().__init__(models, config)
        self.build_model(DEEP)
        state = dict(models["vlm"].clip.state_dict())
        resize_pos_embed(state, self.clip)
        state |= {k: torch.tensor(v) for k, v in (("logit_scale", math.log(SCALE)), ("logit_bias", BIAS))}
        self.clip.load_state_dict(state)
        self.clip.to(self.device)

    def model_cfg(self, layers: int) -> dict:
        return super().model_cfg(layers) | {"init_logit_bias": BIAS}

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        """One; the rate falls to 0 along half a cosine."""
        o = options
        counts = {kind: getattr(o, kind) for kind in ("one", "pairs", "many")}
        steps = o.samples // (o.batch + sum(counts.values()))
        sampler = Sampler(dataclasses.replace(o, samples=steps * o.batch), seed)

        def feed(first: int):
            for step in itertools.count(first):
                yield both(sampler.batch(step), shapes.stream(counts, seed, step))

        options, rate = {"betas": (0.9, 0.95)}, half_cosine(steps, o.warmup)
        return [Stage("sigmoid", steps, feed, self.groups(o), "adamw", options, rate, o.save_every, clip=1.0)]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """The sigmoid loss of image (batch, 3, height, width) in [0, 1] and text, whose pairs are `match`."""
        image, text = self.features(batch)
        return {
            "siglip": sigmoid(image, text, self.clip.logit_scale.exp(), self.clip.logit_bias, batch["match"])
        }


def both(emoji: Batch, scenes: list) -> Batch:
    """One batch of emoji and scenes; no text of the one is of an image of the other."""
    return {
        "image": torch.cat([emoji["image"], shapes.images(scenes)]),
        "text": [*emoji["text"], *map(caption, scenes)],
        "match": torch.block_diag(emoji["match"], shapes.match(scenes)),
        "patch_dropout": 0.0,
    }


def sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, match: Tensor) -> Tensor:
    """SigLIP's loss over unit features (batch, width): summed over pairs, per image.

    match (text, image) is bool.
    """
    logits = scale * text @ image.T + bias
    return -F.logsigmoid(torch.where(match.bool(), logits, -logits)).sum() / len(image)
