"""PromptKD (Li et al., CVPR 2024) for retrieval: prompts and a projector make a frozen image tower speak the teacher's
space; texts are the teacher's."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import processes
from ..learner import Batch, Stage
from ..models import edits
from ..models.tokens import Edit
from ..models.vlm import VLM
from ..schema import Count
from . import contrast
from .proxies import head
from .student import Amount, Student


class PromptKD(Student):
    """Deep prompts in the frozen image tower and a projector; KL to the teacher's matching of images to texts."""

    differs = (
        "PromptKD-DE: the classes are the captions of the batch, not the names of a data set, and the teacher is the \
public model, not one with prompts of PromptSRC fitted to each data set first. KL is the mean over images (the authors \
divide by the number of classes too and multiply by 1000: paper=True). Trained by the common protocol, not SGD 0.005 \
over 20 epochs of batch 8. Retrieval needs the teacher's text tower, whose parameters and FLOPs count"
    )

    @dataclasses.dataclass(frozen=True)
    class Config:
        """tokens and depth as the authors have them for base-to-new; w_kd: weight of KL, of 1000 / classes with paper."""

        tokens: Count = 4
        depth: Count = 9  # prompts stand in blocks 1..depth
        w_kd: Amount = 1.0
        paper: bool = False

    def __init__(self, models, config):
        super().__init__(models, config)
        tower = self.student.image
        if config.depth > tower.depth:
            raise ValueError(f"depth={config.depth}, but prompts can stand in blocks 1 to {tower.depth}")
        own, its = (m.encode_text(["a"]).shape[1] for m in (self.student, self.teacher))
        self.prompts = nn.Parameter(torch.randn(config.depth, config.tokens, tower.width) * 0.02)
        self.projector = head(own, its, its)
        self.projector.to(self.device)
        self.prompts.data = self.prompts.data.to(self.device)

    def copy_of(self, model: VLM) -> VLM:
        return model  # frozen

    def edits(self) -> dict[int, Edit]:
        """Prompts behind the patches, before ln_pre, renewed before every further block."""
        first, *deeper = self.prompts
        renewed = {layer: edits.mix("prompt", x, 1.0) for layer, x in enumerate(deeper, start=2)}
        return {0: edits.insert("prompt", first, after="patch")} | renewed

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """`kd` of image (batch, 3, height, width) and text: KL over the captions of the batch."""
        teacher = self.teacher_pairs(batch)
        features = processes.gather(self.student.image(batch["image"], self.edits()).float())
        v = F.normalize(self.projector(features), dim=-1)
        logits = contrast.cosines(v, teacher.text, self.student.logit_scale)
        weight = 1000 / logits.shape[1] if self.config.paper else 1.0
        return {"kd": self.config.w_kd * weight * contrast.divergence(teacher.logits, logits)}

    def after_step(self, stage: Stage, step: int) -> None:
        """The scale is the given model's, which stays as it is."""

    def encode_image(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, the teacher's joint), not normalised."""
        return self.projector(self.student.image(images, self.edits()))

    def encode_text(self, texts: list[str]) -> Tensor:
        """The teacher's embeddings (text, joint), not normalised."""
        return self.teacher.encode_text(texts)

    def alone(self) -> VLM:
        raise ValueError(
            "PromptKD trains prompts and a projector to the teacher's space, whose text tower it needs: it is no model "
            "of its own that could be written or be a teacher. Its run folder holds them: vlmlab.open_run"
        )
