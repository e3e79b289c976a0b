"""A new BLIP on captions that another one wrote and a filter kept (Li et al. 2022, section 3.3): the last step of CapFilt."""

import dataclasses
from collections.abc import Mapping

from torch import nn

from ..learner import Stage
from . import capfilt
from .blip import Blip
from .system import Share


class BlipBootstrapped(Blip):
    """A BLIP that learns from what a captioner wrote and a filter kept.

    models: captioner and filter, runs of `blip_tuned`. It has their words, and none of their weights.
    """

    models_needed = ("captioner", "filter")
    differs = f"{Blip.differs}; the clean pairs of captioner and filter are not trained on again"

    @dataclasses.dataclass(frozen=True)
    class Options(Blip.Options):
        """p: of the nucleus that captions are drawn from."""

        p: Share = 0.9

    def __init__(self, models: Mapping[str, nn.Module], config):
        super().__init__(models, config)
        self.to(self.device)

    def prepare(self, task) -> dict:
        self.read_by(task)
        return {"words": self.loaded[0].prepared["words"]}

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        self.read_by(task)
        clean, _ = capfilt.bootstrapped(*self.loaded, task.train, seed, options.p)
        return super().stages(dataclasses.replace(task, train=clean), options, seed)
