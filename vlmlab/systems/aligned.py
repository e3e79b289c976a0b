"""What ALBEF and BLIP have in common: images and texts are aligned before they are fused, by encoders that a momentum copy
follows (`online`, `teacher`), with queues of what the copy made; a head tells which pairs belong together."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import layers, matching, momentum
from .system import System
from .words import CLS, SPECIAL

TEMPERATURES = 0.001, 0.5  # limits of the learnt one


class Aligned(System):
    """Subclasses have `online`, encoders with see, read, image_joint and text_joint, and say where they look (`looking`)."""

    begins = CLS  # the token that a text begins with where it looks at an image
    floor = 0.0  # added to the weights by which hard negatives are drawn

    def build_matching(self, c) -> None:
        """The momentum copy of `online`, the queues, the head and the temperature, of sizes width, joint and queue."""
        self.teacher = momentum.frozen_copy(self.online)
        self.itm = nn.Linear(c.width, 2)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.image_queue, self.text_queue = (momentum.Queue(c.queue, c.joint) for _ in range(2))

    def itc(self, fast: tuple[Tensor, Tensor], alpha: Tensor | float) -> Tensor:
        """Contrast of unit features (batch, joint) of images and of texts with `keys`, those of the teacher, and the queues."""
        queues = self.image_queue.rows, self.text_queue.rows
        return matching.contrast(fast, self.keys, queues, self.temperature, alpha)

    @torch.no_grad()
    def to_match(self, fast: tuple[Tensor, Tensor], texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Positions of images and of texts to be told apart, and whether they belong together, see `matching.to_match`."""
        logits = fast[0] @ self.keys[1].T / self.temperature
        return matching.to_match(logits, matching.equal(texts, logits.device), self.floor)

    @torch.no_grad()
    def follow(self, m: float) -> None:
        """The teacher follows, the queues take in what it made, the temperature stays within limits."""
        momentum.follow(self.teacher, self.online, m)
        self.image_queue.push(self.keys[0])
        self.text_queue.push(self.keys[1])
        self.temperature.clamp_(*TEMPERATURES)

    def encode_image(self, images: Tensor) -> Tensor:
        """images (batch, 3, height, width), preprocessed -> (batch, joint), unit length."""
        return F.normalize(self.online.image_joint(self.online.see(images)[:, 0]), dim=1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """texts -> (text, joint), unit length."""
        return F.normalize(self.online.text_joint(self.online.read(*self.ids(texts))[:, 0]), dim=1)

    def match(self, images: Tensor, texts: list[str]) -> Tensor:
        """(batch,) logits of whether each text belongs to its image; above 0 it does."""
        fused = self(images, *self.ids(texts, first=self.begins))
        return self.itm(fused[:, 0]) @ torch.tensor([-1.0, 1.0], device=self.device)

    def looking(self) -> layers.Attention:
        """The attention from words to the image that `relevance` reads."""
        raise NotImplementedError

    def relevance(self, images: Tensor, texts: list[str]) -> Tensor:
        """(batch, rows, columns): where it looked to find that text and image match, mean over words it knows."""
        asked, side = self.ids(texts)[0] >= len(SPECIAL), self.sizes.image // self.sizes.patch
        return layers.relevance(
            self.looking(), lambda: self.match(images.clone(), texts), asked, (side, side)
        )
