"""FitNet (Romero et al., ICLR 2015) for a dual encoder: hints from the middle block of both towers."""

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..learner import Batch, Stage
from ..models.export import same_words
from . import contrast, taps
from .language import masked_mean
from .pyramid import resized, to_map
from .student import Amount, Pairs, Student, for_teacher


class FitNet(Student):
    """CLIP's loss and the squared distance of a regressed middle block from the teacher's, in both towers."""

    differs = (
        "FitNet-DE: an adaptation to dual encoders. The hint is the middle block of the image and of the text tower; \
the regressor is linear without the ReLU of the recipe for CNNs, as tokens of transformers have signs; the target is \
normalised over channels without parameters; weight 100 as in mdistiller; the task is CLIP's loss. One stage as there, \
stages=2 as in the paper, whose first trains on hints alone"
    )

    @dataclasses.dataclass(frozen=True)
    class Config:
        """stages: 2 spends the first fifth of the steps on the hints alone."""

        w_hint: Amount = 100.0
        stages: Literal[1, 2] = 1

    def __init__(self, models, config):
        super().__init__(models, config)
        both = self.student, self.teacher
        self.blocks = {m: {"image": taps.middle(m.image), "text": taps.middle(m.text)} for m in both}
        widths = {"image": [m.image.width for m in both], "text": [m.text.width for m in both]}
        self.regressors = nn.ModuleDict({side: nn.Linear(*w) for side, w in widths.items()}).to(self.device)
        self.by_token = same_words(*both)

    def stages(self, task, options, seed: int) -> list[Stage]:
        steps, both = self.steps(task, options), {"*": 1.0}
        if self.config.stages == 1:
            return [self.stage("train", steps, task, options, seed, both)]
        first = max(1, steps // 5)
        hints = self.stage("hints", first, task, options, seed, both)
        return [hints, self.stage("train", max(1, steps - first), task, options, seed, both, first)]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """`clip`, `hint_image`, `hint_text`; in the stage of hints without `clip`."""
        image, text = self.tapped(self.student, batch["image"], batch["text"])
        with torch.no_grad():
            image_t, text_t = self.tapped(self.teacher, for_teacher(batch), batch["text"])
        w = self.config.w_hint
        found = {
            "hint_image": w * self.image_hint(image, image_t),
            "hint_text": w * self.text_hint(text, text_t),
        }
        if stage is not None and stage.name == "hints":
            return found
        both = (contrast.gathered(x.embed) for x in (image, text))
        return {"clip": contrast.pairs(Pairs(*both, self.student.logit_scale).logits)} | found

    def tapped(self, model, images: Tensor, texts: list[str]) -> tuple[taps.Taps, taps.Taps]:
        at = self.blocks[model]
        return taps.of_images(model, images, [at["image"]]), taps.of_texts(model, texts, [at["text"]])

    def image_hint(self, student: taps.Taps, teacher: taps.Taps) -> Tensor:
        """MSE of regressed patches, resized to the teacher's grid, from its normalised ones."""
        x = to_map(self.regressors["image"](student.levels[0]), student.grid)
        target = to_map(normed(teacher.levels[0]), teacher.grid)
        return F.mse_loss(resized(x, target.shape[2:]).float(), target)

    def text_hint(self, student: taps.Taps, teacher: taps.Taps) -> Tensor:
        """MSE of regressed words from the teacher's, one by one where both cut texts alike, else of their means."""
        x, target = self.regressors["text"](student.levels[0]).float(), normed(teacher.levels[0])
        if not self.by_token:
            return F.mse_loss(masked_mean(x, student.mask), masked_mean(target, teacher.mask))
        n = min(x.shape[1], target.shape[1])  # of a tower that is not causal, padding runs as well
        away = (x[:, :n] - target[:, :n]).square()
        return masked_mean(away, student.mask[:, :n]).mean()


def normed(x: Tensor) -> Tensor:
    """Layer normalisation over the last axis without parameters, in float32: single channels of raw tokens are huge."""
    return F.layer_norm(x.float(), x.shape[-1:])
