"""The embedded models by name: the learner that makes each, what its pretraining sets, and the models it stands on."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Recipe:
    """learner: of `vlmlab.fit`; settings: beside its defaults; models: role -> name of an embedded model."""

    learner: str
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    models: Mapping[str, str] = dataclasses.field(default_factory=dict)


RECIPES = {
    # bf16 takes 0.4 to 0.6 of the time where a CPU has it
    "tiny": Recipe("clip", {"precision": "amp_bf16", "line_samples": 320_000}),
    # a teacher: wider, on other grids of patches (9 x 9, at last 12 x 12), at most 25 MB
    "small": Recipe(
        "clip",
        {
            "width": 180,
            "head_width": 36,
            "image": 72,
            "precision": "amp_bf16",
            "fine": 6,
            "fine_samples": 435_200,
            "line_samples": 192_000,
        },
    ),
    "tiny-siglip": Recipe("siglip", models={"vlm": "tiny"}),
    "tiny-janus": Recipe("janus", models={"vlm": "tiny-siglip"}),
}
