"""CMAPKD: pyramid distillation across modalities with adaptive weights of levels, as corrected by the audit.

A pyramid P2 to P5 of the image tower and a hierarchy L1 to L4 of the text tower are built for the student and, first
of all and then frozen, for the teacher. The student's levels follow the teacher's; so do the matching of levels across
the batch and the relations among samples and among levels. Pyramids and ALSN are for training alone.
"""

import dataclasses
import math
from typing import Annotated, Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import processes
from ..feeds import in_order, moved
from ..learner import Batch, Stage
from ..schema import Count
from . import schedules, terms
from .builder import Builder, Levels, PlainBuilder, tapped
from .pyramid import resized, sizes_for, to_map
from .schedules import PREFIT, UNIT, Part
from .selection import Selection
from .student import Above, Amount, Epochs, Student, for_teacher
from .student_terms import StudentTerms
from .taps import grid_of

PCA_IMAGES = 2000
HELD_OUT = 10  # every tenth image, on which ALSN learns where its objective is the utility
Level = Annotated[int, msgspec.Meta(ge=1, le=5)]
# what can be as the plan's code has it, by the part of the audit
Literals = Literal["language", "last_axis", "quarter", "raw_products", "batch_means", "heads_only", "sigmoid"]


class CMAPKD(Student):
    """Levels of a pyramid and of a hierarchy of texts, their matching and their relations, weighted by ALSN."""

    differs = (
        "there is no published CMAPKD to differ from; this is the plan as the audit corrects it (distances of \
channels, masked pooling of texts, the task's loss on the deployed embeddings, a trained basis of the teacher, ALSN \
before the joint stage). literal=(...) gives back the plan's own forms, schedule= its two schedules"
    )

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Weights as the plan has them.

        teacher_basis: prefit trains the teacher's pyramid first, literal leaves it random; without one, pca compares in
        the principal axes of the teacher's taps and regress in the taps themselves, within a modality alone. sizes: sides of P2 to P5;
        native_grid: all on the student's own. vision_levels, language_levels: 2 to 5 and 1 to 4. weights: of levels;
        manual: from P2 and L1 on. objective: of ALSN. relation_of: which levels of samples are compared. balance init:
        each term counts relative to its own mean over the first 50 steps. literal: what is as in the plan's code.
        """

        schedule: Literal["unified", "seed_table1", "seed_plan3", "one_stage"] = "unified"
        warm_all: bool = True
        teacher_basis: Literal["prefit", "pca", "regress", "literal"] = "prefit"
        channels: Count = 256
        sizes: tuple[Count, Count, Count, Count] = (56, 28, 14, 7)
        native_grid: bool = False
        vision_levels: tuple[Level, ...] = (2, 3, 4, 5)
        language_levels: tuple[Level, ...] = (1, 2, 3, 4)
        weights: Literal["alsn", "uniform", "manual"] = "alsn"
        manual: tuple[Above, Above, Above, Above] = (0.1, 0.2, 0.3, 0.4)
        objective: Literal["literal", "relative", "utility"] = "literal"
        alsn_inputs: Literal["teacher", "student", "both"] = "teacher"
        w_intra: Amount = 1.0
        w_align: Amount = 0.5
        w_align_pyr: Amount = 0.5
        w_rel: Amount = 0.3
        w_rel_layer: Amount = 0.3
        w_task: Amount = 0.1
        w_decoder: Amount = 1.0  # of the prefit: that maps keep what is where
        eta_entropy: Amount = 0.1
        kappa_spread: Amount = 0.1
        tau_alsn: Above = 1.0
        tau_utility: Above = 0.1
        s_pair: Above = 1 / 0.07
        T_kd: Above = 1.0
        align_single: Literal["student", "interactive"] = "student"
        compatibility: Literal["diagonal", "uniform"] = "diagonal"
        relation_of: Literal["each", "P5", "L4", "concat"] = "each"
        relation_levels: Literal["correlation", "cka"] = "correlation"
        balance: Literal["none", "init"] = "none"
        literal: tuple[Literals, ...] = ()

    @dataclasses.dataclass(frozen=True)
    class Options(Student.Options):
        """epochs: by default those of the schedule, whose stages share them out; the prefit is besides. prefit: its steps,
        by default one of the schedule's epochs, too few where max_steps makes that short."""

        epochs: Epochs | None = None
        prefit: Count | None = None

    def __init__(self, models, config):
        super().__init__(models, config)
        self.check(config)
        grid = grid_of(self.student)
        sizes = [grid] * 4 if config.native_grid else sizes_for(config.sizes, grid)
        plan = "language" in config.literal
        channels, own = (config.channels,) * 2, config.teacher_basis in ("prefit", "literal")
        if own:
            self.teacher_builder = Builder(self.teacher, channels, sizes, plan)
        else:
            components = config.channels if config.teacher_basis == "pca" else None
            self.teacher_builder = PlainBuilder(self.teacher, components, sizes)
            channels = channels if components else self.teacher_builder.widths
        self.builder = Builder(self.student, channels, sizes, plan)
        self.alsn = Selection(config, sum(channels), schedules.LEVELS)
        self.terms = StudentTerms(config)
        width = self.teacher.image.width
        self.decoders = nn.ModuleList(nn.Conv2d(config.channels, width, 1) for _ in sizes) if own else None
        self.pair_scale = nn.Parameter(torch.tensor(math.log(config.s_pair)))
        for name in ("builder", "teacher_builder", "alsn", "terms", "decoders"):
            if getattr(self, name) is not None:
                getattr(self, name).to(self.device)
        self.pair_scale.data = self.pair_scale.data.to(self.device)
        parts = schedules.parts(config.schedule, config.warm_all, config.weights == "alsn")
        self.parts = {part.name: part for part in (PREFIT, *parts)}

    def check(self, c: Config) -> None:
        """ValueError for levels that are none, and for a schedule in which ALSN has no stage of its own."""
        for name, levels, deepest in (
            ("vision_levels", c.vision_levels, 5),
            ("language_levels", c.language_levels, 4),
        ):
            legal = range(deepest - 3, deepest + 1)
            if not {*levels} <= {*legal} or deepest not in levels or len({*levels}) < len(levels):
                raise ValueError(
                    f"{name} are some of {', '.join(map(str, legal))}, with {deepest}, the only one of the first stage; "
                    f"got {levels}"
                )
        intra = c.teacher_basis in ("pca", "regress")
        if intra and (c.w_align or (c.w_rel and c.w_rel_layer and c.relation_levels != "cka")):
            raise ValueError(
                f"teacher_basis={c.teacher_basis!r} has axes of its own for each level and modality, between which "
                "nothing can be compared: w_align must be 0, and w_rel_layer too or relation_levels 'cka'"
            )
        if c.objective == "utility" and not any(p.name == "alsn" for p in schedules.SCHEDULES[c.schedule]):
            raise ValueError(
                f"objective='utility' is learnt on images that are held out, in a stage of its own, which the schedule "
                f"{c.schedule} does not have"
            )

    # stages

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        """The stages of the schedule, before them the prefit of the teacher's builder."""
        c, images, held = self.config, *self.divided(task.train)
        length = schedules.length(c.schedule)
        total = self.steps(task, options, options.epochs or length)
        found, done, at = [], 0.0, 0
        if c.teacher_basis == "prefit":
            prefit = options.prefit or max(1, round(total / length))
            found.append(self.stage(PREFIT.name, prefit, task, options, seed, multiples(PREFIT)))
        for part in (p for p in self.parts.values() if p is not PREFIT):
            done += part.epochs
            steps = max(1, round(total * done / length) - at)
            data = held if part.name == "alsn" else images
            rates = self.rates(part)
            found.append(self.stage(part.name, steps, task, options, seed, rates, at, data))
            at += steps
        return found

    def divided(self, images) -> tuple:
        """The images on which the student learns and those on which ALSN does: the same, but for the utility."""
        if self.config.objective != "utility":
            return images, images
        held = range(0, len(images), HELD_OUT)
        return images.select([i for i in range(len(images)) if i % HELD_OUT]), images.select(held)

    def rates(self, part: Part) -> dict[str, float]:
        """What trains in a stage; ALSN not where it is not used, or would see what the student has learnt on."""
        c, rates = self.config, multiples(part)
        if c.weights != "alsn" or (c.objective == "utility" and part.name != "alsn"):
            rates.pop(schedules.ALSN, None)
        return rates

    def prepare(self, task) -> dict:
        """The teacher's principal axes, where they are its basis."""
        if self.config.teacher_basis != "pca":
            return {}
        images = task.train.select(range(min(PCA_IMAGES, len(task.train))))
        feed = (moved(batch, self.device) for batch in in_order(images, self.teacher))
        self.teacher_builder.fit(self.teacher_taps(batch) for batch in feed)
        return {"pca_images": len(images)}

    def enter(self, stage: Stage) -> None:
        """The decoders are thrown away behind the prefit."""
        if stage.name != PREFIT.name:
            self.decoders = None

    # what is compared

    def levels(self, batch: Batch, leaf: bool = False) -> Levels:
        """The student's levels of image (batch, 3, height, width) and text."""
        taps = tapped(self.builder, self.student, batch["image"], batch["text"], leaf)
        return self.builder(*taps)

    @torch.no_grad()
    def teacher_levels(self, batch: Batch) -> Levels:
        """The teacher's, without a graph."""
        return self.teacher_builder(*self.teacher_taps(batch))

    @torch.no_grad()
    def teacher_taps(self, batch: Batch):
        return tapped(self.teacher_builder, self.teacher, for_teacher(batch), batch["text"])

    def active(self, part: Part) -> Tensor:
        """bool (side, level): the levels of a stage that the configuration has."""
        c, first = self.config, schedules.LEVELS - part.levels
        chosen = [[k in c.vision_levels for k in range(2, 6)], [k in c.language_levels for k in range(1, 5)]]
        found = torch.tensor(chosen, device=self.device)
        found[:, :first] = False
        return found

    def costs(self, s: Levels, t: Levels) -> Tensor:
        """(batch, side, level) losses of all levels."""
        loss = terms.literal_level_loss if "last_axis" in self.config.literal else terms.level_loss
        vision = torch.stack([loss(a, b) for a, b in zip(s.maps, t.maps)], dim=1)
        language = torch.stack(
            [loss(s.language[:, k], t.language[:, k]) for k in range(schedules.LEVELS)], dim=1
        )
        return torch.stack([vision, language], dim=1)

    def weights(self, s: Levels, t: Levels, part: Part | None = None) -> Tensor:
        """(batch, side, level) weights of a stage, by default of the last one: ALSN's, uniform or manual ones."""
        part = part or [*self.parts.values()][-1]
        c, active = self.config, self.active(part)
        if c.weights == "alsn" and part.adaptive:
            return self.alsn(s, t, active)
        manual = c.manual if c.weights == "manual" else (1.0,) * schedules.LEVELS
        w = torch.tensor(manual, device=self.device) * active
        return (w / w.sum(-1, keepdim=True)).expand(len(s.vision), -1, -1)

    # losses

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Weighted terms of a stage, by default of the last one; see `student_terms` and `selection`."""
        part = self.parts[stage.name] if stage is not None else [*self.parts.values()][-1]
        if part is PREFIT:
            return self.prefit(batch)
        learns = schedules.ALSN in self.rates(part)
        by_utility = learns and self.config.objective == "utility"
        with torch.set_grad_enabled(torch.is_grad_enabled() and (part.student_trains or by_utility)):
            s, t = self.levels(batch, leaf=by_utility), self.teacher_levels(batch)
            costs, active = self.costs(s, t), self.active(part)
        w, found = self.weights(s, t, part), {}
        if part.student_trains:
            scales = self.pair_scale.detach().exp(), self.student.logit_scale
            found = self.terms(s, t, costs, w.detach(), active, *scales)
        if learns:
            found["alsn"] = self.alsn.term(w, s, costs, active, part.entropy, self.scale)
        return found

    def prefit(self, batch: Batch) -> dict[str, Tensor]:
        """Of the teacher's builder: InfoNCE of its levels across modalities, and what its maps keep of the taps."""
        image, text = self.teacher_taps(batch)
        t = self.teacher_builder(image, text)
        every = torch.ones(schedules.LEVELS, dtype=torch.bool, device=self.device)
        alpha = terms.compatibility(every, every, self.config.compatibility == "uniform")
        pairs = terms.same_pairs(*map(processes.gather, (t.vision, t.language)), alpha, self.pair_scale.exp())
        kept = [
            F.mse_loss(
                resized(decode(p), image.grid), to_map(F.layer_norm(x.float(), x.shape[-1:]), image.grid)
            )
            for decode, p, x in zip(self.decoders, t.maps, image.levels)
        ]
        return {"prefit_pairs": pairs, "prefit_decoder": self.config.w_decoder * sum(kept)}


def multiples(part: Part) -> dict[str, float]:
    """What trains in a stage -> its rate as a multiple of lr."""
    return {pattern: rate / UNIT for pattern, rate in part.rates.items()}
