"""What Flamingo, BLIP-2 and LLaVA have in common: a frozen image encoder, a frozen language model, and what learns between
them."""

import torch
from torch import Tensor, nn

from ..learner import Batch, Stage
from .language import Language
from .writing import Writer


class Between(Writer):
    """Lets a language model that has read captions write about images.

    models: vlm, whose image tower is read before its last block, and language, a run of `language`. Both stay as they
    are, and are no part of what a run keeps.
    """

    models_needed = ("vlm", "language")

    def __init__(self, models, config):
        super().__init__(models, config)
        self.sizes = self.language.sizes
        for name in ("image_size", "mean", "std", "preprocess"):
            setattr(self, name, getattr(self.vision, name))

    @property
    def vision(self) -> nn.Module:
        return self.loaded[0]

    @property
    def language(self) -> Language:
        return self.loaded[1]

    def prepare(self, task) -> dict:
        """The words of its language model."""
        self.read_by(task)
        return {"words": self.language.prepared["words"]}

    def see(self, images: Tensor) -> Tensor:
        """(batch, token, width): tokens of images (batch, 3, height, width) before the last block, class tokens first."""
        with torch.no_grad():
            return self.vision.image.prefix(images, self.vision.image.depth).x

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """lm of text, given image (batch, 3, height, width)."""
        return {"lm": self.language_loss(batch["text"], self.look(batch["image"]))}
