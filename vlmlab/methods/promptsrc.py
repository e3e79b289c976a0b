"""PromptSRC: prompts held near the frozen model and averaged over epochs (Khattak et al., ICCV 2023)."""

import dataclasses

import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor, nn

from ..learner import Batch, Stage
from ..models.towers import Edit
from . import prompts
from .method import Method

# CLIP's list has 80 entries; PromptSRC's copy stops after 60
TEMPLATES = tuple(fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES[:60])


class PromptSRC(Method):
    """Independent text and image prompts, regularised towards frozen features, logits and earlier epochs.

    The paper trains 20 epochs of SGD 0.0025 at batch 4, crops from 0.08. The context takes the place
    of the task's template. The published code also averages the frozen fp16 weights over epochs, which
    rounds them anew; here only the prompts are averaged.
    """

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Defaults are the paper's for base-to-new."""

        tokens: int = 4
        depth: int = 9  # prompts stand in blocks 1..depth
        image_tokens: int | None = None  # of the image tower, where it has other ones
        image_depth: int | None = None
        w_text: float = 25.0
        w_image: float = 10.0
        w_logits: float = 1.0
        gpa_mean: float = 15.0  # epoch with the largest weight in the average
        gpa_std: float = 1.0
        epochs: int = 20  # of the training; the average is used after the last one

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        image_tokens = config.tokens if config.image_tokens is None else config.image_tokens
        image_depth = config.depth if config.image_depth is None else config.image_depth
        prompts.check_depth(config.depth, vlm.text)
        prompts.check_depth(image_depth, vlm.image)
        if image_tokens < 1:
            raise ValueError(f"image_tokens must be at least 1, got {image_tokens}")
        words = prompts.first_words(vlm, config.tokens)
        deeper = torch.randn(config.depth - 1, *words.shape, device=words.device) * 0.02
        self.text = nn.Parameter(torch.cat([words[None], deeper]))
        self.image = nn.Parameter(torch.randn(image_depth, image_tokens, vlm.image.width) * 0.02)
        self.register_buffer("text_average", torch.zeros_like(self.text))
        self.register_buffer("image_average", torch.zeros_like(self.image))
        self.to(vlm.device)

    def prompts(self) -> list[str]:
        return self.fill(prompts.opening(self.config.tokens) + " {}.")

    def text_edits(self) -> dict[int, Edit]:
        return prompts.text_edits(self.text)

    def image_edits(self) -> dict[int, Edit]:
        return prompts.image_edits(self.image)

    def ensemble_class_features(self) -> Tensor:
        """(class, joint) frozen features, averaged over 60 templates before they are normalised."""

        def compute():
            with torch.no_grad():
                mean = sum(self.vlm.origin.encode_text(self.fill(t)) for t in TEMPLATES) / len(TEMPLATES)
                return F.normalize(mean, dim=-1)

        return self._once(("ensemble",), compute)

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Cross-entropy; L1 to the frozen text and image features; KL to the frozen logits, per entry."""
        c, images, labels = self.config, batch["image"], batch["label"]
        z, w = F.normalize(self.encode_image(images)["cls"], dim=-1), self.class_features()
        with torch.no_grad():
            z0, w0 = F.normalize(self.vlm.origin.encode_image(images), dim=-1), self.ensemble_class_features()
        logits, logits0 = self.cosine_logits(z, w), self.cosine_logits(z0, w0)
        kl = F.kl_div(logits.log_softmax(-1), logits0.log_softmax(-1), reduction="sum", log_target=True)
        return {
            "ce": F.cross_entropy(logits, labels),
            "anchor_text": c.w_text * F.l1_loss(w, w0),
            "anchor_image": c.w_image * F.l1_loss(z, z0),
            "anchor_logits": c.w_logits * kl / logits.numel(),
        }

    def epoch_weights(self) -> Tensor:
        """(epochs,) float64 shares of the epochs in the average: a Gaussian over 1..epochs, sum 1."""
        c = self.config
        epoch = torch.arange(1, c.epochs + 1, dtype=torch.float64)
        return (-(epoch - c.gpa_mean).square() / (2 * c.gpa_std**2)).softmax(0)

    def after_step(self, stage: Stage, step: int) -> None:
        if stage.ends_epoch(step):
            self.average(step // stage.epoch + 1)

    @torch.no_grad()
    def average(self, epoch: int) -> None:
        """Add the prompts of epoch 1..epochs to the average; after the last one the average is the model."""
        if not 1 <= epoch <= self.config.epochs:
            raise ValueError(f"epoch {epoch} of {self.config.epochs}; build with epochs= the number trained")
        weight = self.epoch_weights()[epoch - 1].item()
        for average, current in ((self.text_average, self.text), (self.image_average, self.image)):
            average.add_(current, alpha=weight)
            if epoch == self.config.epochs:
                current.copy_(average)
