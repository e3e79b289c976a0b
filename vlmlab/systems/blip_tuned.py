"""Captioner and filter of BLIP's CapFilt: a trained BLIP goes on with a part of its objectives, on clean pairs.

Both start from the same BLIP and are trained apart: one writes captions (LM), the other tells which texts belong (ITC and
ITM). `capfilt.bootstrapped` makes the cleaned set with them, and a new `blip` is trained on it.
"""

import dataclasses
from typing import Literal

from ..schema import Amount, Count
from .blip import Blip
from .system import System

PARTS = {"captioner": ("lm",), "filter": ("itc", "itm")}


class BlipTuned(Blip):
    """A BLIP that writes captions, or one that tells which belong to their image."""

    models_needed = ("start",)

    @dataclasses.dataclass(frozen=True)
    class Config:
        """part: captioner or filter."""

        part: Literal["captioner", "filter"] = "captioner"

    @dataclasses.dataclass(frozen=True)
    class Options(Blip.Options):
        steps: Count = 80
        lr: Amount = 3e-4

    def __init__(self, models, config):
        start = models["start"]
        System.__init__(self, models, config)
        self.build_parts(start.sizes)
        self.load_state_dict(start.state_dict())
        self.objectives, self.image_size, self.preprocess = (
            PARTS[config.part],
            start.image_size,
            start.preprocess,
        )
        self.to(start.device)

    def prepare(self, task) -> dict:
        """The words of the BLIP that it started from."""
        self.read_by(task)
        return {"words": self.loaded[0].prepared["words"]}

    @classmethod
    def real(cls) -> Config:
        """As large as what it starts from."""
        return cls.Config()
