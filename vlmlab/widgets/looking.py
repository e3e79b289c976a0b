"""Where a token looks: block, head and token to choose, and attention over the image, a click away from another patch."""

from collections.abc import Callable, Mapping

import ipywidgets
import matplotlib as mpl
import numpy as np
import xarray as xr
from PIL import Image, ImageDraw

from .. import plots
from ..methods.method import Method
from ..names_and_colours import SKY
from . import attending
from .clickable import MOST, Clickable
from .drawing import Drawing
from .frame import labelled, wrapping
from .picture import Picture
from .values import Value

SIDES = {1: 288, 2: 208}  # number of models -> pixels of a picture under attention
MEAN = "mean"


class Looking(ipywidgets.VBox):
    """One picture a model, and one of the difference of two whose patches agree.

    kept: what was chosen before. moved() is called when a control moved; tools: the buttons below.
    """

    def __init__(
        self, methods: Mapping[str, Method], kept: Mapping, moved: Callable, tools: ipywidgets.Widget
    ):
        self.depth = max(m.vlm.image.depth for m in methods.values())
        self.heads = max(int(m.vlm.image.blocks[0].attn.num_heads) for m in methods.values())
        self.side, self.kept, self.moved = SIDES[len(methods)], kept, moved
        self.settled = True  # False while controls are set by what was chosen
        self.views: list[Clickable] = []
        self.gap = None
        self.controls(kept)
        self.row, self.caption = wrapping(grid_gap="8px"), ipywidgets.HTML()
        choices = wrapping(self.layer, self.head, self.query, self.same)
        layout = {"flex": "1 1 420px", "min_width": "300px"}
        super().__init__([choices, self.row, self.caption, tools], layout=layout)

    def controls(self, kept: Mapping) -> None:
        said = {"style": {"description_width": "3.5em"}, "layout": {"width": "300px"}}
        layer, head = min(kept.get("layer", self.depth), self.depth), min(kept.get("head", 0), self.heads)
        self.layer = ipywidgets.IntSlider(layer, 1, self.depth, description="block", **said)
        options = [(MEAN, 0), *((str(n), n) for n in range(1, self.heads + 1))]
        self.head = ipywidgets.SelectionSlider(options=options, value=head, description="head", **said)
        self.query = ipywidgets.Dropdown(description="looks", **said)
        text = "one colour scale for all blocks"
        self.same = ipywidgets.Checkbox(
            kept.get("same", True), description=text, indent=False, layout={"width": "260px"}
        )
        for name in ("layer", "head", "query", "same"):
            control = getattr(self, name)
            control.add_class(f"vlmlab-{name}")
            control.observe(lambda _: self.moved() if self.settled else None, "value")

    @property
    def chosen(self) -> dict:
        """What the controls say."""
        return {name: getattr(self, name).value for name in ("layer", "head", "query", "same")}

    def show(self, probs: Mapping[str, xr.DataArray], seen: Mapping[str, np.ndarray]) -> None:
        """Take another image: attention (layer, head, query, token) and the image as each model gets it."""
        self.probs, self.seen = probs, seen
        there = {text: q for p in probs.values() for text, q in attending.queries(p).items()}
        if dict(self.query.options or ()) != there:
            before = self.query.value or self.kept.get("query")
            self.settled = False
            self.query.options = list(there.items())
            self.query.value = before if before in there.values() else next(iter(there.values()))
            self.settled = True
        grids = [grid_of(p) for p in probs.values()]
        if [view.patches for view in self.views] != grids:
            self.lay_out(grids)

    def lay_out(self, grids: list[tuple[int, int]]) -> None:
        """A picture with a button on each patch for each model, and room for the difference."""
        self.views = [self.view(i, grid) for i, grid in enumerate(grids)]
        named = [ipywidgets.VBox([labelled(n), v]) for n, v in zip(self.probs, self.views)]
        self.gap = None
        if len(grids) == 2 and grids[0] == grids[1]:
            self.gap = Picture()
            self.gap.add_class("vlmlab-gap")
            text = f"{' − '.join(self.probs)}: red: the first looks more"
            named.append(ipywidgets.VBox([labelled(text), self.gap]))
        self.row.children = tuple(named)

    def view(self, number: int, grid: tuple[int, int]) -> Clickable:
        """A picture with a place a patch; of more patches than a page holds, none."""
        rows, columns = grid if grid[0] * grid[1] <= MOST else (1, 1)
        wide = self.side if columns >= rows else round(self.side * columns / rows)
        tall = round(wide * rows / columns)
        view = Clickable(rows, columns, wide, tall, lambda cell: self.look(cell, columns))
        view.patches = grid
        view.add_class(f"vlmlab-picture-{number}")
        if (rows, columns) != grid:
            view.name({})
        return view

    def look(self, cell: int, columns: int) -> None:
        """The patch that was clicked becomes the one that looks."""
        text = f"patch in row {cell // columns + 1}, column {cell % columns + 1}"
        if text in dict(self.query.options):
            self.query.value = dict(self.query.options)[text]

    def draw(self) -> None:
        at, said, grids = self.chosen, [], []
        for (name, p), view in zip(self.probs.items(), self.views):
            weights = attending.weights_of(p, at["query"], at["layer"], at["head"])
            there = bool(np.isfinite(weights).any())
            most = attending.brightest(p, at["query"], at["head"]) if at["same"] else None
            view.show(under(self.seen[name], weights if there else None, view.size, most))
            grids.append(attending.as_grid(weights))
            if view.grid == view.patches:
                view.say(named_cells(grids[-1]))
            lacks = f"{name} has no such token in block {at['layer']}"
            said.append(f"{name} looks at {summed(weights)}" if there else lacks)
        if self.gap is not None:
            gap = grids[0] - grids[1]
            there = bool(np.isfinite(gap).any())
            self.gap.layout.visibility = "visible" if there else "hidden"
            if there:
                self.gap.show(difference(gap, self.views[0].size))
                said.append(f"largest difference {float(abs(gap).max()):.3f}")
        self.caption.value = labelled("; ".join(said)).value


def grid_of(probs: xr.DataArray) -> tuple[int, int]:
    """Rows and columns of patches. ValueError for a model whose tokens are on no grid."""
    if "row" not in probs.coords:
        raise ValueError("the patches of this model stand on no grid, so nothing can be drawn over the image")
    return int(probs["row"].max()) + 1, int(probs["col"].max()) + 1


def under(picture: np.ndarray, weights: xr.DataArray | None, size: tuple[int, int], most) -> np.ndarray:
    """A picture under attention in so many pixels, as `plots.overlay` draws it but in a part of the time, since it
    follows a slider; None for the picture alone."""
    seen = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
    if weights is None:
        return np.asarray(seen)
    grid = np.asarray(attending.as_grid(weights), np.float32)
    shares = np.clip(np.nan_to_num(grid) / (most or float(np.nanmax(grid)) or 1.0), 0, 1)
    strength = np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BILINEAR))
    alpha = 0.75 * strength[..., None]
    pixels = np.asarray(seen) * (1 - alpha) + 255 * mpl.colormaps["inferno"](strength)[..., :3] * alpha
    drawn = Image.fromarray(np.round(pixels).astype(np.uint8))
    if "query_row" in weights.coords and int(weights["query_row"]) >= 0:
        wide, high = size[0] / grid.shape[1], size[1] / grid.shape[0]
        left, top = int(weights["query_col"]) * wide, int(weights["query_row"]) * high
        ImageDraw.Draw(drawn).rectangle((left, top, left + wide, top + high), outline=SKY, width=2)
    return np.asarray(drawn)


def named_cells(grid: xr.DataArray) -> dict[int, str]:
    """Cell, along the rows -> what is said of its weight (row, column)."""
    columns, numbers = grid.sizes["column"], np.ndenumerate(np.asarray(grid))
    return {
        r * columns + c: f"row {r + 1}, column {c + 1}\n{v:.3g}" for (r, c), v in numbers if np.isfinite(v)
    }


def difference(gap: xr.DataArray, size: tuple[int, int]) -> Drawing:
    """(row, column) from blue (the second looks more) over white to red (the first does)."""
    rows, columns = gap.shape
    shares = np.asarray(gap) / (2 * float(abs(gap).max()) or 1.0) + 0.5
    colours = (255 * mpl.colormaps["RdBu_r"](shares)[..., :3]).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.NEAREST))
    places = (
        (cell % columns / columns, cell // columns / rows, text) for cell, text in named_cells(gap).items()
    )
    return Drawing(pixels, values=tuple(Value(x, y, 1 / columns, 1 / rows, text) for x, y, text in places))


def summed(weights: xr.DataArray) -> str:
    """'patches 71%, prompt tokens 12%': how much of the attention each role gets."""
    by_role: dict[str, float] = {}
    for role, value in zip(weights["role"].values.tolist(), np.nan_to_num(weights.values).tolist()):
        by_role[role] = by_role.get(role, 0.0) + value
    return ", ".join(f"{plots.label(role)} {share:.0%}" for role, share in by_role.items())
