"""KD (Hinton et al. 2015) for a dual encoder: the classes are the B texts, or images, of the batch."""

import dataclasses

from torch import Tensor

from ..learner import Batch, Stage
from . import contrast
from .student import Above, Amount, Student


class KD(Student):
    """CLIP's loss and the teacher's soft matching of the batch, KL(teacher || student) of rows and columns."""

    differs = (
        "KD-DE: an adaptation to dual encoders. Hinton et al. soften the logits of fixed classes; here the classes \
are the texts (images) of the batch, so that the loss depends on its size. Each model keeps its own logit scale, T is 1 \
as in CLIP-KD, where Hinton et al. use 2 to 20"
    )

    @dataclasses.dataclass(frozen=True)
    class Config:
        """w_kd * T^2 * KL at temperature T_kd."""

        w_kd: Amount = 1.0
        T_kd: Above = 1.0

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """`clip` and `kd` of image (batch, 3, height, width) and text."""
        student, teacher, c = self.student_pairs(batch), self.teacher_pairs(batch), self.config
        kd = contrast.both_ways(teacher.logits, student.logits, c.T_kd)
        return {"clip": contrast.pairs(student.logits), "kd": c.w_kd * kd}
