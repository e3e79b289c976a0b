"""A pane: one picture of an explorer, and the cell that draws it again.

A pane is a function whose arguments are what it needs; what it draws again on, and the code of its cell, follow from
them and from its own text: the code is the body of the function below the lines that make its arguments.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping

import matplotlib.pyplot as plt

from .. import plots
from .drawing import Drawing, drawn

# argument -> the line that makes it in a cell, in this order; `{...}` are values of an explorer
LINES = {
    "tests": "tests = {tests}",
    "test": "test = tests[{name!r}]",
    "models": "models = {models}",
    "acts": "acts = {{name: widgets.streams(model, test) for name, model in models.items()}}",
    "every": "every = {{t: {{name: widgets.streams(m, x) for name, m in models.items()}} for t, x in tests.items()}}",
    "texts": "texts = {{name: widgets.class_features(model, test) for name, model in models.items()}}",
    "sample": "sample = {sample}",
    "probs": "probs = {{name: widgets.attention(model, test, sample) for name, model in models.items()}}",
    "pictures": "pictures = {{name: widgets.seen(model, test, sample) for name, model in models.items()}}",
    "layer": "layer = {layer}",
    "head": "head = {head}  # 0: the mean of all",
    "query": "query = {query}",
}
AFTER = {  # argument -> those that its line uses
    "test": ("tests",),
    "models": ("tests",),
    "acts": ("models", "test"),
    "every": ("models", "tests"),
    "texts": ("models", "test"),
    "probs": ("models", "test", "sample"),
    "pictures": ("models", "test", "sample"),
}
CHOSEN = ("test", "sample", "layer", "head", "query")  # what a user moves
IMPORTS = {  # what a cell imports, where its text uses it
    "plt.": "import matplotlib.pyplot as plt",
    "np.": "import numpy as np",
    "vlmlab.": "import vlmlab",
    "": "from vlmlab import measures, plots, widgets",
}


@dataclasses.dataclass(frozen=True)
class Pane:
    """name: as it is offered. draw: the function, with `axes` first, a list of Axes. across: how many Axes, of the
    number of models. height: in inches. marks: whether a line at the chosen block runs through it. fits: says of the
    arguments why there is nothing to draw, or "". spots: arguments -> (sample, 2) of what can be chosen by a click."""

    name: str
    draw: Callable
    across: Callable[[int], int]
    height: float
    marks: bool
    fits: Callable[[Mapping], str]
    spots: Callable | None

    @property
    def needs(self) -> tuple[str, ...]:
        """The arguments of `draw` behind `axes`."""
        return tuple(inspect.signature(self.draw).parameters)[1:]

    @property
    def follows(self) -> tuple[str, ...]:
        """What a user moves that this has to be drawn again for."""
        used = {*self.needs, *(a for n in self.needs for a in AFTER.get(n, ()))}
        return tuple(name for name in CHOSEN if name in used)

    def figure(self, given: Mapping[str, object]):
        """The figure, which no notebook shows by itself. ValueError where there is nothing to draw."""
        if why := self.fits(given):
            raise ValueError(why)
        count = self.across(len(given["models"]))
        fig, axes = plots.figure(min(count, 2), self.height, cols=count, squeeze=False)
        plt.close(fig)
        self.draw(axes.ravel().tolist(), **{name: given[name] for name in self.needs})
        return fig

    def still(self, given: Mapping[str, object]):
        """The figure as its code draws it, with the mark at the chosen block."""
        fig = self.figure(given)
        for ax in fig.axes[: self.across(len(given["models"]))] if self.marks else ():
            ax.axvline(given["layer"], color="0.35", linewidth=1.2)
        return fig

    def drawing(self, given: Mapping[str, object], depth: int) -> Drawing:
        """The figure as pixels, ready for a mark at any block."""
        spots = None if self.spots is None else lambda: self.spots(given)
        return drawn(self.figure(given), range(1, depth + 1) if self.marks else (), spots)

    def code(self, values: Mapping[str, object], models: int) -> str:
        """A cell that draws it as a static figure. values: texts and numbers for `LINES`."""
        used = [*self.needs, *(("layer",) if self.marks else ())]
        for name in used:
            used += [other for other in AFTER.get(name, ()) if other not in used]
        lines = [line.format(**values) for name, line in LINES.items() if name in used]
        count = self.across(models)
        lines += [
            f"fig, axes = plots.figure({min(count, 2)}, {self.height}, cols={count}, squeeze=False)",
            "axes = axes.ravel().tolist()",
            body(self.draw),
        ]
        if self.marks:
            lines += ["for ax in axes:", '    ax.axvline(layer, color="0.35", linewidth=1.2)']
        text = "\n".join([*lines, "plt.show()"])
        return "\n".join([*(line for name, line in IMPORTS.items() if name in text), "", text]) + "\n"


PANES: dict[str, Pane] = {}


def pane(
    name: str,
    across: Callable[[int], int] = lambda models: 1,
    height: float = 2.2,
    marks: bool = False,
    fits: Callable[[Mapping], str] = lambda given: "",
    spots: Callable | None = None,
) -> Callable[[Callable], Callable]:
    """Offer a function as a pane; its text must stand by itself below the lines that make its arguments."""

    def add(draw: Callable) -> Callable:
        PANES[name] = Pane(name, draw, across, height, marks, fits, spots)
        return draw

    return add


def body(function: Callable) -> str:
    """The text of a function without its head and docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    first = node.body[1 if ast.get_docstring(node) else 0]
    return textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 : node.end_lineno]))
