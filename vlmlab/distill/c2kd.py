"""C2KD (Huo et al., CVPR 2024) for a dual encoder: crossed transfers through proxies, where rankings agree."""

import dataclasses
from typing import Annotated, Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import processes
from ..learner import Batch, Stage
from ..models.vlm import VLM
from . import contrast, proxies, taps
from .student import Pairs, Student, for_teacher

SIDES = ("image", "text")
OTHER = {"image": "text", "text": "image"}


class C2KD(Student):
    """CLIP's loss; the teacher's texts teach the student's images and its images the student's texts, by proxies."""

    differs = (
        "C2KD-DE: not C2KD, which distils a classifier of one modality into one of another (audio and image) with \
C classes. Here the classes are the B pairs of the batch, each student tower is paired with the teacher's other tower, \
proxies read the pooled features before the projection, and CLIP's loss on the student's own embeddings is added. In the \
mode frozen the teacher does not learn from the student, only its proxies do; faithful updates a copy of it"
    )

    @dataclasses.dataclass(frozen=True)
    class Config:
        """krc: least Kendall rank correlation of the rows that are taught; quirk: the authors' zeroed target logit."""

        mode: Literal["frozen", "faithful"] = "frozen"
        krc: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.0
        quirk: bool = False

    def __init__(self, models, config):
        super().__init__(models, config)
        self.partner = self.teacher.thaw("*") if config.mode == "faithful" else self.teacher
        joint = self.teacher.encode_text(["a"]).shape[1]
        own = self.student.encode_text(["a"]).shape[1]
        self.to_teacher = nn.ModuleDict({side: nn.Linear(own, joint) for side in SIDES})
        self.student_proxy = nn.ModuleDict(
            {s: proxies.head(getattr(self.student, s).width, joint, joint) for s in SIDES}
        )
        self.teacher_proxy = nn.ModuleDict(
            {s: proxies.head(getattr(self.teacher, s).width, joint, joint) for s in SIDES}
        )
        for part in (self.to_teacher, self.student_proxy, self.teacher_proxy):
            part.to(self.device)

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """`clip` and, summed over both crossed transfers, `ce`, `student_proxy`, `teacher_proxy`, `selected`."""
        faithful = self.config.mode == "faithful"
        pooled, embed = self.tapped(self.student, batch["image"], batch["text"])
        with torch.set_grad_enabled(torch.is_grad_enabled() and faithful):
            pooled_t, embed_t = self.tapped(self.partner, for_teacher(batch), batch["text"])
        v, t = (F.normalize(embed[side], dim=-1) for side in SIDES)
        found = {"clip": contrast.pairs(Pairs(v, t, self.student.logit_scale).logits)}
        for side in SIDES:
            for name, term in self.transfer(side, embed[side], pooled[side], embed_t, pooled_t).items():
                found[name] = found.get(name, 0) + term
        return found

    def tapped(self, model: VLM, images: Tensor, texts: list[str]) -> tuple[dict, dict]:
        """Pooled features and embeddings (batch of all processes, ...) by side, in float32."""
        both = taps.of_images(model, images, [1]), taps.of_texts(model, texts, [1])
        pooled = {side: processes.gather(x.pooled.float()) for side, x in zip(SIDES, both)}
        return pooled, {side: processes.gather(x.embed.float()) for side, x in zip(SIDES, both)}

    def transfer(
        self, side: str, own: Tensor, pooled: Tensor, embed_t: dict, pooled_t: dict
    ) -> dict[str, Tensor]:
        """The terms of the student's tower `side`, taught by the teacher's other one. Logits are cosines of a tower's
        features with the teacher's embeddings of what they are matched to."""
        other, c, scale = OTHER[side], self.config, self.student.logit_scale
        banks = {s: F.normalize(embed_t[s].detach(), dim=-1) for s in SIDES}

        def logits(x: Tensor, bank: str) -> Tensor:
            return contrast.cosines(F.normalize(x.float(), dim=-1), banks[bank], scale)

        student, teacher = logits(self.to_teacher[side](own), other), logits(embed_t[other], side)
        proxy = logits(self.student_proxy[side](pooled), other)
        proxy_t = logits(self.teacher_proxy[other](pooled_t[other]), side)
        right = torch.arange(len(student), device=student.device)
        found = {"ce": F.cross_entropy(student, right)}
        found["student_proxy"] = sum(proxies.within(student, proxy).values())
        mirror = proxies.within(teacher, proxy_t)
        found["teacher_proxy"] = mirror["to_proxy"] + proxies.others(proxy, proxy_t, c.krc, c.quirk)
        if c.mode == "faithful":
            found["ce"] = found["ce"] + F.cross_entropy(teacher, right)
            found["teacher_proxy"] = found["teacher_proxy"] + mirror["from_proxy"]
        return found | {"selected": proxies.others(proxy_t, proxy, c.krc, c.quirk)}
