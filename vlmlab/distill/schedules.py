"""The schedules of cmapkd: which stages, for how long, on which levels, and what trains in them."""

import dataclasses

STUDENT, BUILDER, ALSN = "student.*", "builder.*", "alsn.*"
LEVELS = 4
UNIT = 5e-5  # of the rates below: the published lr of the student at first


@dataclasses.dataclass(frozen=True)
class Part:
    """epochs: of the schedule's own length. levels: how many of the deepest of both sides are active. rates: what
    trains -> learning rate as published, for lr = 5e-5. adaptive: whether ALSN weighs the levels, else all count
    alike. entropy: whether ALSN's objective has its entropy."""

    name: str
    epochs: int
    levels: int
    rates: dict[str, float]
    adaptive: bool = False
    entropy: bool = True

    @property
    def student_trains(self) -> bool:
        return STUDENT in self.rates


PREFIT = Part("prefit", 1, 4, {"teacher_builder.*": 1e-3, "decoders.*": 1e-3, "pair_scale": 1e-3})


def both(student: float, builder: float) -> dict[str, float]:
    return {STUDENT: student, BUILDER: builder}


SCHEDULES: dict[str, tuple[Part, ...]] = {
    # fresh builders get more than the pretrained student, and ALSN is trained before the stage that it weighs
    "unified": (
        Part("coarse", 5, 1, both(5e-5, 5e-4)),
        Part("medium", 5, 2, both(3e-5, 3e-4)),
        Part("alsn", 5, 4, {ALSN: 1e-4}, adaptive=True),
        Part("fine", 10, 4, both(1e-5, 1e-4) | {ALSN: 5e-5}, adaptive=True),
    ),
    # Table 1 of the plan gives one rate per stage; ALSN comes last, where it changes no reported number
    "seed_table1": (
        Part("coarse", 5, 1, both(5e-5, 5e-5)),
        Part("medium", 5, 2, both(3e-5, 3e-5)),
        Part("fine", 10, 4, both(1e-5, 1e-5)),
        Part("alsn", 5, 4, {ALSN: 1e-4}, adaptive=True),
    ),
    # section 4.3 and the plan's third technical part
    "seed_plan3": (
        Part("warm", 5, 4, both(5e-5, 1e-5)),
        Part("alsn", 5, 4, {ALSN: 1e-4}, adaptive=True),
        Part("joint", 10, 4, both(1e-5, 5e-6) | {ALSN: 5e-5}, adaptive=True, entropy=False),
    ),
    # all at once, as long as the unified one
    "one_stage": (Part("joint", 25, 4, both(5e-5, 5e-4) | {ALSN: 1e-4}, adaptive=True),),
}
# a stage on all levels before ALSN learns from them, one epoch of those that precede it
WARM_ALL = Part("warm_all", 1, 4, both(3e-5, 3e-4))


def parts(name: str, warm_all: bool, adaptive: bool = True) -> list[Part]:
    """The stages of a schedule. warm_all: an epoch on all levels goes before the stage of ALSN where its levels were
    not all trained, taken from the stage before it. adaptive: without ALSN its epochs go to the last stage."""
    found = list(SCHEDULES[name])
    at = next((i for i, part in enumerate(found) if part.name == "alsn"), 0)
    if warm_all and at and found[at - 1].levels < LEVELS:
        before = found[at - 1]
        found[at - 1] = dataclasses.replace(before, epochs=before.epochs - WARM_ALL.epochs)
        found.insert(at, WARM_ALL)
    if not adaptive:
        unused = sum(part.epochs for part in found if not part.student_trains)
        found = [part for part in found if part.student_trains]
        found[-1] = dataclasses.replace(found[-1], epochs=found[-1].epochs + unused)
    return found


def length(name: str) -> int:
    """Epochs of a schedule without the prefit of the teacher's builder."""
    return sum(part.epochs for part in SCHEDULES[name])
