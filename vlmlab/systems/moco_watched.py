"""MoCo whose log also tells how far keys drift while they wait in the queue.

What the key encoder makes of the same images is kept for some steps; 1 - cosine of now and then is what the inconsistency of
keys in the queue comes to (He et al. 2020, section 3.2), whatever the loss makes of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..learner import Batch
from .moco import Moco

AGES = (1, 2, 4, 8)  # steps between the two
PROBE = 32  # images that are encoded every step


class MocoWatched(Moco):
    """MoCo that also logs how far its keys drift."""

    def __init__(self, models, config):
        super().__init__(models, config)
        self.register_buffer("probe", torch.zeros(PROBE, 3, config.image, config.image))
        self.register_buffer("earlier", torch.zeros(max(AGES), PROBE, config.joint))  # the newest first
        self.register_buffer("kept", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def beside(self, batch: Batch, terms) -> dict[str, Tensor]:
        """Also drift 1, drift 2, ...: mean 1 - cosine of the keys of the same images now and so many steps ago, from the
        first step on that has such keys."""
        found, before = super().beside(batch, terms), int(self.kept)
        if not before:  # the probe: the first key views, again and again where there are fewer
            self.probe.copy_(batch["key"][torch.arange(PROBE, device=self.device) % len(batch["key"])])
        now = self.keys_of_probe()
        drift = 1 - (now * self.earlier).sum(2).mean(1)
        self.earlier.copy_(torch.cat([now[None], self.earlier[:-1]]))
        self.kept.add_(1)
        return found | {f"drift {age}": drift[age - 1] for age in AGES if age <= before}

    def keys_of_probe(self) -> Tensor:
        """(image, joint), unit length, by statistics of the probe itself; those that the encoder collects stay as they are."""
        own = {name: value.clone() for name, value in self.key.named_buffers()}
        return F.normalize(torch.func.functional_call(self.key, own, (self.probe,)), dim=1)
