"""`explore`: one or two models on the images of a task, everything linked to the image, block, head and token chosen."""

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from .. import plots
from . import attending, given, reading, sheet
from .clickable import MOST, Clickable
from .drawing import painted, png
from .frame import Frame, guarded, labelled, wrapping
from .gallery import Gallery
from .own import OwnPictures
from .pane import CHOSEN
from .panes import PANES
from .slot import Slot

SIDES = {1: 288, 2: 208}  # number of models -> pixels of a picture under attention
MEAN = "mean"


def explore(models, task, samples: int = 32) -> "Explorer | None":
    """An explorer of one model, or of two side by side, on the images of a task.

        vlm, task = vlmlab.load("tiny"), vlmlab.task("emoji/animals", protocol="base_to_new", shots=16)
        run = vlmlab.fit("mmrlpp", vlm, task)
        vlmlab.explore({"CLIP": vlm, "MMRL++": run}, task)

    models: a model of two towers, a method, a run, the path of a run's folder, or a dict of at most two of them.
    task: what `vlmlab.task` gives, or a Split, as `widgets.own_images` makes one of pictures and class names.
    samples: at most so many images of each test, evenly spread.

    What there is to read, and its size, is said before, with a button that stops it (then None is returned, and the
    same call goes on); it is kept in memory, so that the cell shows the same at once when it runs again, with what
    was chosen. Attention is read for each image that is chosen. Without a page that runs it, as under papermill,
    the cell keeps a picture of what it shows.

    Raises ValueError for models or tests that cannot be looked at, FileNotFoundError for a run folder that is gone.
    """
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1, got {samples!r}")
    tests = given.tests_of(task, samples)
    some = {name: reading.some(test.value, samples) for name, test in tests.items()}
    found = given.models_of(models, next(iter(some.values())))
    methods = {name: model.value for name, model in found.items()}
    try:
        readings = reading.read(methods, some)
    except reading.Stopped:
        return None
    codes = {
        "models": "{" + ", ".join(f"{name!r}: {model.code}" for name, model in found.items()) + "}",
        "tests": next(iter(tests.values())).code,
    }
    return Explorer(methods, some, readings, codes)


class Explorer(Frame):
    """The widget that `explore` returns. methods, tests: by name; readings: (model, test) -> Reading; codes: what
    makes models and tests in a cell."""

    def __init__(self, methods, tests, readings, codes):
        shows = (*methods, *tests, *(t.fingerprint() for t in tests.values()))
        super().__init__(f"{' and '.join(methods)} on {', '.join(tests)}", shows)
        self.methods, self.tests, self.readings, self.codes = (
            methods,
            dict(tests),
            dict(readings),
            dict(codes),
        )
        self.rows = sheet.table(self.tests, self.readings)
        self.depth = max(m.vlm.image.depth for m in methods.values())
        self.number = min(self.kept.get("number", 0), len(self.rows) - 1)
        self.gallery = Gallery(self.rows, self.tests, list(methods), self.kept, self.choose, self.remember)
        self.own = OwnPictures(self.add_own, self.guarded)
        self.controls()
        self.settled = True  # False while controls are set by what was chosen
        self.views: list[Clickable | ipywidgets.Image] = []
        shown = self.kept.get("panes", ["norms by block", "answers by block"])
        self.slots = [
            Slot(name, self.arguments, self.state, self.choose_here, self.copy, self.moved_pane)
            for name in shown
        ]
        looking = ipywidgets.VBox(
            [
                wrapping(self.layer, self.head, self.query, self.same),
                self.looking,
                self.caption,
                self.copy_attention,
            ],
            layout={"flex": "1 1 420px", "min_width": "300px"},
        )
        self.fill(
            wrapping(self.gallery, looking),
            wrapping(*self.slots, grid_gap="12px"),
            self.own,
        )
        with self.guarded():
            self.show_image()

    def controls(self) -> None:
        kept, said = self.kept, {"style": {"description_width": "3.5em"}, "layout": {"width": "300px"}}
        depth = self.depth
        heads = max(self.heads(m) for m in self.methods.values())
        self.layer = ipywidgets.IntSlider(
            min(kept.get("layer", depth), depth), 1, depth, description="block", **said
        )
        names = [MEAN, *range(1, heads + 1)]
        head = min(kept.get("head", 0), heads)
        self.head = ipywidgets.SelectionSlider(
            options=list(zip(map(str, names), range(heads + 1))), value=head, description="head", **said
        )
        self.query = ipywidgets.Dropdown(description="looks", **said)
        self.query.style.description_width = "3.5em"
        self.same = ipywidgets.Checkbox(
            kept.get("same", True),
            description="one colour scale for all blocks",
            indent=False,
            layout={"width": "260px"},
        )
        self.looking = wrapping(grid_gap="8px")
        self.caption = ipywidgets.HTML()
        self.copy_attention = ipywidgets.Button(description="copy as code", layout={"width": "120px"})
        self.copy_attention.tooltip = "show the cell that draws this as a static figure"
        self.copy_attention.on_click(lambda _: self.copy(PANES["attention"]))
        for name in ("layer", "head", "query", "same"):
            control = getattr(self, name)
            control.add_class(f"vlmlab-{name}")
            control.observe(lambda _: self.moved(), "value")

    @staticmethod
    def heads(method) -> int:
        return int(method.vlm.image.blocks[0].attn.num_heads)

    def state(self) -> dict:
        """What is chosen now."""
        row = self.rows.loc[self.number]
        return {
            "test": row["test"],
            "sample": int(row["sample"]),
            "layer": self.layer.value,
            "head": self.head.value,
            "query": self.query.value,
            "depth": self.depth,
        }

    def arguments(self) -> dict:
        """What panes may need, by the names of their arguments."""
        state = self.state()
        test = state["test"]
        return {
            **{name: state[name] for name in CHOSEN},
            "test": self.tests[test],
            "tests": self.tests,
            "models": self.methods,
            "acts": {m: self.readings[m, test].record for m in self.methods},
            "every": {t: {m: self.readings[m, t].record for m in self.methods} for t in self.tests},
            "texts": {m: self.readings[m, test].texts for m in self.methods},
            "probs": self.probs(),
            "pictures": self.seen(),
        }

    def probs(self) -> dict:
        """Attention of the chosen image, read once."""
        state = self.state()
        test, sample = self.tests[state["test"]], state["sample"]
        found = {}
        for name, method in self.methods.items():
            key = (id(self.readings[name, state["test"]]), sample)
            found[name] = reading.LOOKED.get(
                key, lambda m=method: reading.attention(m, test, sample), lambda p: p.nbytes
            )
        return found

    def seen(self) -> dict[str, np.ndarray]:
        state = self.state()
        return {
            name: reading.seen(m, self.tests[state["test"]], state["sample"])
            for name, m in self.methods.items()
        }

    @guarded
    def choose(self, number: int) -> None:
        """Make another image the one that all is about."""
        self.number = number
        self.show_image()

    def choose_here(self, sample: int) -> None:
        """Another image of the same test, by its number there."""
        rows = self.rows
        self.choose(int(rows.index[(rows["test"] == self.state()["test"]) & (rows["sample"] == sample)][0]))

    def show_image(self) -> None:
        self.gallery.mark(self.number)
        probs = self.probs()
        self.base = self.seen()
        union = {text: q for p in probs.values() for text, q in attending.queries(p).items()}
        if dict(self.query.options or ()) != union:
            before = self.query.value or self.kept.get("query")
            self.settled = False
            self.query.options = list(union.items())
            self.query.value = before if before in union.values() else next(iter(union.values()))
            self.settled = True
        self.hold_views(probs)
        self.draw()

    def hold_views(self, probs: dict) -> None:
        """One picture a model with a button on each patch, and one of the difference where grids agree."""
        grids = [grid_of(p) for p in probs.values()]
        agree = len(grids) == 2 and grids[0] == grids[1]
        if [getattr(v, "grid", None) for v in self.views[: len(grids)]] == grids:
            return
        self.views = [self.view(i, grid) for i, grid in enumerate(grids)]
        wide, tall = (f"{n}px" for n in self.views[0].size)
        self.gap = ipywidgets.Image(format="png", layout={"width": wide, "height": tall}) if agree else None
        named = [ipywidgets.VBox([labelled(n), v]) for n, v in zip(probs, self.views)]
        if agree:
            self.gap.add_class("vlmlab-gap")
            named.append(
                ipywidgets.VBox([labelled(f"{' − '.join(probs)}: red: the first looks more"), self.gap])
            )
        self.looking.children = tuple(named)

    def view(self, number: int, grid: tuple[int, int]) -> Clickable:
        """A picture with a place a patch; of more patches than a page holds, none."""
        rows, columns = grid if grid[0] * grid[1] <= MOST else (1, 1)
        side = SIDES[len(self.methods)]
        wide = side if columns >= rows else round(side * columns / rows)
        tall = round(wide * rows / columns)
        view = Clickable(rows, columns, wide, tall, lambda cell: self.look(cell, columns))
        view.grid = grid
        view.add_class(f"vlmlab-picture-{number}")
        here = {r * columns + c: f"row {r + 1}, column {c + 1}" for r in range(rows) for c in range(columns)}
        view.name(here if (rows, columns) == grid else {})
        return view

    @guarded
    def look(self, cell: int, columns: int) -> None:
        """The patch that was clicked becomes the one that looks."""
        text = f"patch in row {cell // columns + 1}, column {cell % columns + 1}"
        if text in dict(self.query.options):
            self.query.value = dict(self.query.options)[text]

    @guarded
    def moved(self) -> None:
        if self.settled:
            self.draw()

    @guarded
    def moved_pane(self, _) -> None:
        self.remember(panes=[slot.chooser.value for slot in self.slots])
        self.draw()

    def draw(self) -> None:
        """Draw what depends on the choices of now; what was drawn before is only shown."""
        self.draw_attention()
        for slot in self.slots:
            slot.draw()
        self.remember(
            number=self.number, layer=self.layer.value, head=self.head.value, query=self.query.value
        )
        self.remember(same=self.same.value)

    def draw_attention(self) -> None:
        state, probs = self.state(), self.probs()
        weights, said = {}, []
        for (name, p), view in zip(probs.items(), self.views):
            w = attending.weights_of(p, state["query"], state["layer"], state["head"])
            there = bool(np.isfinite(w).any())
            most = attending.brightest(p, state["query"], state["head"]) if self.same.value else None
            view.show(under(self.base[name], w if there else None, view.size, state["query"], p, most))
            weights[name] = w
            said.append(
                f"{name} looks at {summed(w)}"
                if there
                else f"{name} has no such token in block {state['layer']}"
            )
        if len(probs) == 2 and self.gap is not None:
            first, second = (attending.as_grid(w) for w in weights.values())
            gap = first - second
            there = bool(np.isfinite(gap).any())
            self.gap.layout.visibility = "visible" if there else "hidden"
            if there:
                self.gap.value = png(difference(gap, self.views[0].size))
                said.append(f"largest difference {float(abs(gap).max()):.3f}")
        self.caption.value = labelled("; ".join(said)).value

    def copy(self, pane) -> None:
        state = self.state()
        values = {**self.codes, **state, "name": state["test"]}
        self.show_code(pane.code(values, len(self.methods)))

    def add_own(self, pictures, names: list[str]) -> None:
        """Read pictures of one's own and choose the first of them. ValueError for what cannot be read."""
        split = given.own_images(pictures, names or list(next(iter(self.tests.values())).classnames))
        found = reading.read(self.methods, {given.OWN: split})
        self.tests[given.OWN] = split
        self.readings |= found
        self.rows = sheet.table(self.tests, self.readings)
        self.gallery.small = {k: v for k, v in self.gallery.small.items() if k[0] != given.OWN}
        self.number = int(self.rows.index[self.rows["test"] == given.OWN][0])
        self.codes["tests"] = own_code(self.codes["tests"], split)
        for slot in self.slots:
            slot.kept.clear()
        self.gallery.chosen = self.number
        self.gallery.take(self.rows, self.tests, {})
        self.show_image()

    def pictures(self) -> list[np.ndarray]:
        from PIL import Image

        sheets = Image.new("RGB", (sheet.COLUMNS * sheet.SIDE, sheet.ROWS * sheet.SIDE), "white")
        drawn_sheet = Image.fromarray(self.gallery.pixels())
        sheets.paste(drawn_sheet, mask=drawn_sheet)
        state = self.state()
        attention = PANES["attention"]
        first = [np.asarray(sheets)]
        try:
            first.append(attention.drawing(self.arguments(), state["depth"]).pixels)
        except ValueError:
            pass  # a token that this block does not have
        return first + [s.drawing.marked(state["layer"]) for s in self.slots if s.drawing is not None]


def own_code(before: str, split) -> str:
    """The line of the tests with one's own pictures among them."""
    names = [id for id in split.ids]
    return f"{before} | {{{given.OWN!r}: widgets.own_images({names!r}, {list(split.classnames)!r})}}"


def grid_of(probs) -> tuple[int, int]:
    """Rows and columns of patches. ValueError for a model whose tokens are on no grid."""
    if "row" not in probs.coords:
        raise ValueError("the patches of this model stand on no grid, so nothing can be drawn over the image")
    return int(probs["row"].max()) + 1, int(probs["col"].max()) + 1


def under(picture, weights, size, query, probs, most) -> np.ndarray:
    """A picture under attention, without any margin, in so many pixels."""
    plots.use()
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    if weights is None:
        ax.imshow(picture, extent=(0, 1, 0, 1))
        ax.set_axis_off()
    else:
        plots.overlay(picture, weights, ax=ax, vmax=most)
    return painted(figure, 100)


def difference(gap, size: tuple[int, int]) -> np.ndarray:
    """(row, column) from blue (the second looks more) over white to red (the first does), without any margin."""
    most = float(abs(gap).max()) or 1.0
    figure = Figure(figsize=(size[0] / 100, size[1] / 100))
    ax = figure.add_axes((0, 0, 1, 1))
    plots.matrix(gap, ax, vmin=-most, vmax=most, cmap="RdBu_r", colorbar=False)
    ax.set_axis_off()
    return painted(figure, 100)


def summed(weights) -> str:
    """'patches 71 %, prompt tokens 12 %': how much of the attention each role gets."""
    by_role = {}
    for role, value in zip(weights["role"].values.tolist(), np.nan_to_num(weights.values).tolist()):
        by_role[role] = by_role.get(role, 0.0) + value
    return ", ".join(f"{plots.label(role)} {share:.0%}" for role, share in by_role.items())
