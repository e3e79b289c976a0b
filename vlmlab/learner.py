"""What is trained: a learner, its stages, their batches. The loop in `train/` knows nothing else of it."""

import contextlib
import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .display import Panel, Shown, million, settings, some
from .precision import autocast, not_finite

Batch = Mapping[str, object]  # tensors by what they are: image, label, distribution, text, view ...
Feed = Callable[[int], Iterator[Batch]]  # from step n on; batch n is a function of (seed, n) alone


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that share a rate: those whose name matches the pattern and no earlier group's."""

    names: str = "*"
    lr: float = 1e-3
    weight_decay: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a training: so many steps of one optimiser on one feed.

    steps: in all; epoch: in one pass over the data, where there are passes. groups: what trains; parameters
    in no group stand still. optimiser: adamw, adam or sgd, with further keywords in `options`. rate: (step,
    lr of a group) -> learning rate. save: steps between two saved states. clip: largest norm of the gradient.
    """

    name: str
    steps: int
    feed: Feed | None = None
    groups: tuple[Group, ...] = (Group(),)
    optimiser: str = "adamw"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rate: Callable[[int, float], float] = lambda step, lr: lr
    save: int = 100
    epoch: int | None = None
    clip: float | None = None

    def ends_epoch(self, step: int) -> bool:
        """Whether a pass over the data, maybe a shortened last one, ends with this step (from 0)."""
        return self.epoch is not None and ((step + 1) % self.epoch == 0 or step + 1 == self.steps)


class Learner(Shown, nn.Module):
    """A network, or a part on top of others, that trains in stages; subclasses say how.

    models: what it is given, by role (`models_needed`); they are not its own and never change. config: its
    frozen `Config`, which says what it is; its `Options` say how it is trained. Settings of `fit` are fields
    of both.
    """

    models_needed: ClassVar[tuple[str, ...]] = ("vlm",)
    rules: ClassVar[tuple[str, ...]] = ("unified",)  # of inference
    # protocol -> rules whose numbers the method's paper reports, where that is not the first alone
    reports: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    differs: ClassVar[str] = ""  # what is not as in the method's paper, said once beside its numbers
    workers = 0  # processes that load its data
    precision = "fp32"  # where no model says it

    @dataclasses.dataclass(frozen=True)
    class Config:
        """No parameters."""

    @dataclasses.dataclass(frozen=True)
    class Options:
        """No choices."""

    def __init__(self, models: Mapping[str, nn.Module], config: object):
        super().__init__()
        self.loaded, self.config = tuple(models.values()), config
        self.prepared: dict = {}  # what `prepare` found, also in a run opened from disk
        if self.loaded:
            self.precision = self.loaded[0].precision

    def panel(self) -> Panel:
        own = self.own()
        trained = {name: p.numel() for name, p in self.trainable().items()}
        facts = {
            "stands on": ", ".join(getattr(m, "name", type(m).__name__) for m in self.loaded),
            "trains": f"{million(sum(trained.values()))} numbers in {len(trained)} tensors",
            "largest": some(sorted(trained, key=trained.get, reverse=True), 4),
            "keeps": f"{million(sum(x.numel() for x in own.values()))} numbers in {len(own)} tensors",
            "settings": settings(dataclasses.asdict(self.config)) if self.config else "",
        }
        return Panel(type(self).__name__, facts["trains"], facts)

    @classmethod
    def build(cls, models: Mapping[str, nn.Module], classes, config: object) -> "Learner":
        """The learner on models by role; classes: names and template of the task's classes, or None."""
        return cls(models, config)

    @property
    def device(self) -> torch.device:
        return self.loaded[0].device if self.loaded else next(self.parameters()).device

    def autocast(self) -> contextlib.AbstractContextManager:
        """The mixed-precision context in which its losses are computed."""
        if self.loaded:
            return self.loaded[0].autocast()
        return autocast(self.device, self.precision)

    def stages(self, task, options: object, seed: int) -> list[Stage]:
        """What `fit` does, in order; none for what is only run."""
        return []

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Named, already weighted loss terms; their sum is trained."""
        raise TypeError(f"{type(self).__name__} is not trained in steps")

    def beside(self, batch: Batch, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the log keeps of a step besides its terms, single numbers; no part of the loss. Called before backward."""
        return {}

    def enter(self, stage: Stage) -> None:
        """Take a stage's shape (grow, copy a head, freeze): once, before anything is loaded into it."""

    def after_step(self, stage: Stage, step: int) -> None:
        """After step 0, 1, ... of a stage: averages, a queue, clamping."""

    def prepare(self, task) -> dict:
        """Solve or search what is not found in steps; what it returns is kept as `prepared`."""
        return {}

    def own(self) -> dict[str, Tensor]:
        """What a run keeps, by name: parameters and buffers that are not those of the models given."""
        others = {id(x) for model in self.loaded for x in (*model.parameters(), *model.buffers())}
        kept: dict[int, tuple[str, Tensor]] = {}
        for name, value in self.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor) and id(value) not in others:
                kept.setdefault(id(value), (name, value))  # tied ones once
        return dict(kept.values())

    def check_given(self) -> None:
        """ValueError, after freezing them again, when parameters of the models given would train."""
        given = {id(p) for model in self.loaded for p in model.parameters()}
        wrong = {n: p.requires_grad_(False) for n, p in self.trainable().items() if id(p) in given}
        if wrong:
            raise ValueError(
                f"{type(self).__name__} would train {len(wrong)} parameters of a model that it was given, for "
                f"example {next(iter(wrong))}; train its own copies: self.vlm = vlm.thaw('visual.*ln_*')"
            )

    def damaged_weight(self) -> str | None:
        """The first weight with a NaN or an infinity in the models that it was given: no lr mends that."""
        return not_finite(item for model in self.loaded for item in model.named_parameters())

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training may change, by name."""
        return {n: p for n, p in self.named_parameters() if p.requires_grad}


def grouped(
    parameters: Mapping[str, nn.Parameter], groups: tuple[Group, ...]
) -> list[dict[str, nn.Parameter]]:
    """The parameters of each group, by name. ValueError for a group that gets none."""
    found: list[dict[str, nn.Parameter]] = [{} for _ in groups]
    for name, parameter in parameters.items():
        first = next((i for i, g in enumerate(groups) if fnmatch.fnmatchcase(name, g.names)), None)
        if first is not None:
            found[first][name] = parameter
    for group, members in zip(groups, found):
        if not members:
            raise ValueError(
                f"no parameter is left for the group {group.names!r}; there are "
                f"{', '.join(list(parameters)[:8]) or 'none that train'}"
            )
    return found
