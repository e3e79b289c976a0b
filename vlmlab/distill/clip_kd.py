"""CLIP-KD (Yang et al., CVPR 2024): features, interactive contrast and soft matching of the batch."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..learner import Batch, Stage
from . import contrast
from .student import Amount, Student


class ClipKD(Student):
    """CLIP's loss, MSE to the teacher's embeddings (FD), contrast with the teacher's other tower (ICL), KL of the
    batch (CKD)."""

    differs = "the published recipe trains the student from random weights for 32 epochs at batch 1024 and lr 1e-3; here \
it starts from the same public weights and gets the same steps as every student. The scale of ICL is exponentiated \
(the authors' code uses ln(1/0.07) = 2.66 itself; literal_scale=True does) and, like all scales, without weight decay"

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Weights of the authors' recipe for ViT-L/14 to ViT-B/16."""

        w_fd: Amount = 2000.0
        w_icl: Amount = 1.0
        w_ckd: Amount = 1.0
        literal_scale: bool = False

    def __init__(self, models, config):
        super().__init__(models, config)
        own, its = (m.encode_text(["a"]).shape[1] for m in (self.student, self.teacher))
        same = own == its  # else a linear map of each tower's embedding
        self.to_teacher = nn.ModuleDict(
            {side: nn.Identity() if same else nn.Linear(own, its) for side in ("image", "text")}
        )
        self.icl_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.to_teacher.to(self.device)
        self.icl_scale.data = self.icl_scale.data.to(self.device)

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """`clip`, `fd`, `icl` and `ckd`, weighted."""
        s, t, c = self.student_pairs(batch), self.teacher_pairs(batch), self.config
        v, u = (
            F.normalize(self.to_teacher[side](getattr(s, side)).float(), dim=-1) for side in ("image", "text")
        )
        scale = self.icl_scale if c.literal_scale else self.icl_scale.exp()
        icl = (
            contrast.pairs(contrast.cosines(v, t.text, scale)),
            contrast.pairs(contrast.cosines(t.image, u, scale)),
        )
        return {
            "clip": contrast.pairs(s.logits),
            "fd": c.w_fd * (F.mse_loss(v, t.image) + F.mse_loss(u, t.text)),
            "icl": c.w_icl * sum(icl) / 2,
            "ckd": c.w_ckd * contrast.both_ways(t.logits, s.logits),
        }
