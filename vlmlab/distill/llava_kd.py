"""LLaVA-KD (Cai et al., ICCV 2025) for a dual encoder: three stages, matching of the batch by images and by patches, and
relations among patches."""

import dataclasses
import fnmatch

import torch
import torch.nn.functional as F
from torch import Tensor

from ..learner import Batch, Stage
from ..models.vlm import VLM
from ..schema import Count
from . import contrast, taps
from .pyramid import resized, to_map
from .student import Amount, Pairs, Student, for_teacher

# of open_clip's two-tower models: what stands between a tower and the joint space
PROJECTIONS = ("visual.proj", "visual.head*", "*text_projection*", "logit_scale")
STAGES = {"dpt": 5, "sft": 10, "dft": 10}  # epochs


class LLaVAKD(Student):
    """Distilled pre-training of the projections, then CLIP's loss alone, then everything with all terms."""

    differs = (
        "LLaVA-KD-DE: an adaptation to dual encoders, which have no generative head and no vocabulary; the softmax \
over words is one over the captions of the batch, that of visual tokens the match of every patch with them. The published \
code holds no training loop. The image tower trains in the last two stages (theirs is frozen: freeze_vision=True); \
epochs are ours"
    )

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Weights of the paper's three terms. grid: rows and columns on which patches are compared, by default the
        student's."""

        w_response: Amount = 1.0
        w_visual: Amount = 1.0
        w_relation: Amount = 0.5
        grid: Count | None = None
        freeze_vision: bool = False

    def stages(self, task, options, seed: int) -> list[Stage]:
        """DPT, SFT and DFT, 5, 10 and 10 parts of the steps."""
        total, whole, at, done, found = self.steps(task, options), sum(STAGES.values()), 0, 0, []
        for name, epochs in STAGES.items():
            done += epochs
            steps = max(1, round(total * done / whole) - at)
            found.append(self.stage(name, steps, task, options, seed, self.rates(name), at))
            at += steps
        return found

    def rates(self, name: str) -> dict[str, float]:
        if name == "dpt":
            there = [f"student.clip.{pattern}" for pattern in PROJECTIONS]
            return {p: 1.0 for p in there if fnmatch.filter(self.trainable(), p)}
        return {"student.clip.[!v]*" if self.config.freeze_vision else "*": 1.0}

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """`clip`, and but in the stage sft `response`, `visual`, `relation`."""
        if stage is not None and stage.name == "sft":
            return super().losses(batch, stage)
        c = self.config
        grid = (c.grid, c.grid) if c.grid else taps.grid_of(self.student)
        s, patches = self.seen(self.student, batch["image"], batch["text"], grid)
        with torch.no_grad():
            t, patches_t = self.seen(self.teacher, for_teacher(batch), batch["text"], grid)
        return {
            "clip": contrast.pairs(s.logits),
            "response": c.w_response * contrast.both_ways(t.logits, s.logits),
            "visual": c.w_visual * visual(Pairs(patches, s.text, s.scale), Pairs(patches_t, t.text, t.scale)),
            "relation": c.w_relation * relation(patches, patches_t),
        }

    def seen(
        self, model: VLM, images: Tensor, texts: list[str], grid: tuple[int, int]
    ) -> tuple[Pairs, Tensor]:
        """The embeddings, and those of patches (batch, patch, joint) on a grid, read as the image itself is."""
        tower = model.image
        image = taps.of_images(model, images, [tower.depth])
        dense = tower.project(tower.norm(image.levels[0])).float()
        patches = resized(to_map(dense, image.grid), grid).flatten(2).transpose(1, 2)
        both = contrast.gathered(image.embed), contrast.gathered(model.encode_text(texts))
        return Pairs(*both, model.logit_scale), F.normalize(patches, dim=-1)


def visual(student: Pairs, teacher: Pairs) -> Tensor:
    """KL(teacher || student) of every patch over the captions, mean over patches and images; image: unit features
    (batch, patch, joint)."""
    rows = (contrast.cosines(x.image.flatten(0, 1), x.text, x.scale) for x in (teacher, student))
    return contrast.divergence(*rows)


def relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over images of 1 - cos of the flattened Gram matrices of unit patches (batch, patch, joint), in [0, 2]."""
    s, t = (torch.einsum("bpd,bqd->bpq", x, x).flatten(1) for x in (student, teacher.detach()))
    return (1 - F.cosine_similarity(s, t, dim=1)).mean()
