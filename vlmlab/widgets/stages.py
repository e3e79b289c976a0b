"""`explore_weights`: how much each stage of blocks adds, epoch by epoch, and for easy and hard images."""

import dataclasses

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes

from .. import plots
from ..scores.classification import logits as classify
from ..tasks.split import Split
from ..train.evaluate import pictures_for, restored
from ..train.run import Run, open_run
from .drawing import drawn, part
from .frame import Frame, guarded, wrapping
from .given import trained_of
from .pane import IMPORTS
from .picture import Picture
from .reading import some
from .watch import Watch

STEPS = "over the epochs of training"
HARD = "over images, from easy to hard"
GROUPS = 5  # of images, by difficulty
HEIGHT = 2.8  # inches


def explore_weights(run: Run | str, samples: int = 60) -> "Weights":
    """A radar of the weights of a run's stages, over its epochs or over images from easy to hard, with a play control.

        run = vlmlab.fit("lafter_nga", vlm, task)
        vlmlab.explore_weights(run)

    run: of a method whose blocks are read in stages (lafter_nga), or the path of its folder. samples: at most so
    many images of the run's first test, for the difficulty. Raises ValueError for a run without stages,
    FileNotFoundError for a folder that is gone.
    """
    run = run if isinstance(run, Run) and run._model is not None else open_run(getattr(run, "path", run))
    if not hasattr(run.model, "stage_weights") or not hasattr(run.model, "at_epoch"):
        raise ValueError(
            f"{run.path} is of {type(run.model).__name__}, whose blocks are not read in stages; expected is a run of "
            "lafter_nga"
        )
    return Weights(run, samples)


def named(model) -> list[str]:
    """What the stages are called: their blocks."""
    return [f"blocks {a}-{b}" if b > a else f"block {a}" for a, b in model.spans]


def weights_by_epoch(model) -> xr.DataArray:
    """The weights of the stages after each epoch that was kept, (epoch, stage); shares of 1 where they are shares."""
    values = []
    for epoch in range(1, int(model.epochs_kept) + 1):
        with model.at_epoch(epoch), torch.no_grad():
            values.append(model.stage_weights().detach().cpu().numpy())
    coords = {"epoch": np.arange(1, len(values) + 1), "stage": named(model)}
    return xr.DataArray(np.stack(values), coords, ("epoch", "stage"), "weight")


def shares_by_difficulty(model, test: Split, groups: int = GROUPS) -> xr.DataArray:
    """Share of each stage in the length of the fused feature, (difficulty, stage), from the easiest group of images
    to the hardest by the probability of their class.

    Share: ||lambda_s z_s|| / sum of these over the stages, the mean over a group.
    """
    pictures = pictures_for(model)
    with restored(model), torch.inference_mode():
        found = classify(model, test, test.classes, pictures, {model.rules[0]: None})[model.rules[0]]
        parts = []
        for images in pictures(test):
            z = model.encode_image(images)
            each = [z[f"stage{i}"].float().norm(dim=-1) for i in range(1, len(model.spans) + 1)]
            parts.append((torch.stack(each, 1) * model.stage_weights().abs()).cpu().numpy())
    lengths = np.concatenate(parts)
    shares = lengths / lengths.sum(1, keepdims=True)
    log_p = found - np.logaddexp.reduce(found, axis=1, keepdims=True)
    order = np.argsort(-log_p[np.arange(len(found)), test.labels], kind="stable")
    means = [shares[part].mean(0) for part in np.array_split(order, min(groups, len(order)))]
    coords = {"difficulty": np.arange(1, len(means) + 1), "stage": named(model)}
    return xr.DataArray(np.stack(means), coords, ("difficulty", "stage"), "share")


class Weights(Frame):
    """The widget that `explore_weights` returns."""

    def __init__(self, run: Run, samples: int):
        super().__init__(f"stages of {run.path.name}", (str(run.path),), trained_of(run))
        self.run, self.samples = run, samples
        self.data = {STEPS: weights_by_epoch(run.model)}
        self.by = ipywidgets.Dropdown(
            options=[STEPS, HARD], value=self.kept.get("by", STEPS), description="show"
        )
        self.at = ipywidgets.IntSlider(description="epoch", min=1, max=1)
        self.play = ipywidgets.Play(interval=700, min=1, max=1)
        ipywidgets.jslink((self.play, "value"), (self.at, "value"))
        tools = self.tools(self.cell, self.figure, lambda: f"{self.shown.dims[0]} {self.at.value}")
        self.parts = self.curves, self.polygon = Picture(), Picture()
        for name in ("by", "at", "play", "curves", "polygon"):
            getattr(self, name).add_class(f"vlmlab-weights-{name}")
        self.fill(wrapping(self.by, self.play, self.at, tools), wrapping(*self.parts))
        self.by.observe(lambda _: self.chosen(), "value")
        self.at.observe(lambda _: self.draw(), "value")
        self.chosen()

    @guarded
    def chosen(self) -> None:
        if self.by.value == HARD and HARD not in self.data:
            test = next((t for t in self.run.task.tests.values() if isinstance(t, Split)), None)
            if test is None:
                raise ValueError("the run's task has no labelled test to tell easy from hard")
            if self.curves.drawing is None:
                self.step()  # the epochs, until there is more
            few = some(test, self.samples)
            watch = Watch(f"reading {len(few)} images", 2 * len(few))  # for the answers and for the features
            counted = dataclasses.replace(few, read=watch.counting(few.read))
            self.long(watch, lambda: shares_by_difficulty(self.run.model, counted), self.judged)
            return
        self.step()

    def judged(self, shares: xr.DataArray) -> None:
        self.data[HARD] = shares
        self.step()

    def step(self) -> None:
        """Set the slider to the steps of what is shown."""
        axis = self.shown.dims[0]
        last = self.shown.sizes[axis]
        self.at.description = axis
        self.at.max = self.play.max = last
        self.at.value = self.play.value = min(
            self.kept.get("at", last), last
        )  # a page takes the slider from play
        self.draw()

    @property
    def shown(self) -> xr.DataArray:
        return self.data.get(self.by.value, self.data[STEPS])

    def figure(self):
        return radar(self.shown, self.at.value)

    @guarded
    def draw(self) -> None:
        data, by, at = self.shown, self.by.value, self.at.value
        steps = data[data.dims[0]].values.tolist()
        self.curves.follow(data.dims, lambda: drawn(part(lambda ax: curves(data, ax), HEIGHT), steps), at)
        if round_enough(data):
            paint = lambda ax: polygon(data, at, ax)
            self.polygon.follow((data.dims, at), lambda: drawn(part(paint, HEIGHT, polar=True)))
        self.remember(at=at, by=by)

    def cell(self) -> str:
        make = "weights_by_epoch(model)"
        if self.by.value == HARD:
            make = f"shares_by_difficulty(model, widgets.some(next(iter(run.task.tests.values())), {self.samples}))"
        return (
            f"{IMPORTS['vlmlab.']}\n{IMPORTS['']}\nfrom vlmlab.widgets import stages\n\n"
            f"run = vlmlab.open_run({str(self.run.path)!r})\nmodel = run.model\n"
            f"fig = stages.radar(stages.{make}, {self.at.value})\nfig\n"
        )

    def pictures(self) -> list[np.ndarray]:
        return [p.pixels for p in self.parts if p.drawing is not None]


def curves(data: xr.DataArray, ax: Axes) -> None:
    """The weights of all stages along the first axis."""
    plots.lines(data, data.dims[0], "stage", ax=ax, ylabel=str(data.name))
    ax.legend(fontsize=7)


def polygon(data: xr.DataArray, at: int, ax: Axes) -> None:
    """The weights at one step, on polar Axes."""
    axis, rim = data.dims[0], max(0.1, float(np.ceil(data.max() * 10) / 10))
    one = data.sel({axis: [at]}).assign_coords({axis: [f"{axis} {at}"]})
    narrow = [str(name).replace(" ", "\n") for name in one["stage"].values]  # names stand beside the circle
    plots.radar(one.assign_coords(stage=narrow), "stage", axis, ax=ax, limits=(0, rim))


def radar(data: xr.DataArray, at: int):
    """A figure of the weights at one step of the first axis, beside the curve of all steps; for fewer than three
    stages the curve alone, since a radar has three spokes at least."""
    fig, axes = plots.figure(2, HEIGHT, cols=2 if round_enough(data) else 1, squeeze=False)
    plt.close(fig)
    curves(data, axes[0, 0])
    axes[0, 0].axvline(at, color="0.35", linewidth=1.2)
    if round_enough(data):
        place = axes[0, 1].get_subplotspec()
        axes[0, 1].remove()
        polygon(data, at, fig.add_subplot(place, projection="polar"))
    return fig


def round_enough(data: xr.DataArray) -> bool:
    return data.sizes["stage"] >= 3
