"""A place for one pane: a list to choose it from, its picture, and its code."""

from collections import OrderedDict
from collections.abc import Callable

import ipywidgets
import numpy as np

from .clickable import Clickable, cells_of
from .drawing import Drawing, png
from .pane import Pane
from .panes import PANES

ROWS, COLUMNS, KEPT = 16, 24, 24  # cells over a picture whose samples can be clicked; drawings kept


class Slot(ipywidgets.VBox):
    """given(): arguments of panes. state(): what a user has chosen, by name. choose(sample): an image of the map."""

    def __init__(
        self, name: str, given: Callable, state: Callable, choose: Callable, code: Callable, moved: Callable
    ):
        self.given, self.state, self.choose = given, state, choose
        self.kept: OrderedDict[tuple, Drawing | str] = OrderedDict()
        self.drawing: Drawing | None = None
        self.chooser = ipywidgets.Dropdown(options=list(PANES), value=name, layout={"width": "230px"})
        self.chooser.add_class("vlmlab-pane")
        copy = ipywidgets.Button(description="copy as code", layout={"width": "120px"})
        copy.tooltip = "show the cell that draws this as a static figure"
        copy.add_class("vlmlab-copy")
        copy.on_click(lambda _: code(self.pane))
        self.holder = ipywidgets.VBox(layout={"overflow": "auto", "width": "100%"})
        self.image = ipywidgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        self.image.add_class("vlmlab-drawing")
        self.why = ipywidgets.HTML()
        self.map: Clickable | None = None
        super().__init__([ipywidgets.HBox([self.chooser, copy]), self.holder], layout={"max_width": "100%"})
        self.chooser.observe(moved, "value")

    @property
    def pane(self) -> Pane:
        return PANES[self.chooser.value]

    def draw(self) -> None:
        """Draw what changed: another figure, or only the mark in the one that is there."""
        state = self.state()
        key = (self.pane.name, *(state[name] for name in self.pane.follows))
        if key not in self.kept:
            self.kept[key] = self.made(state["depth"])
            if len(self.kept) > KEPT:
                self.kept.popitem(last=False)
        made = self.kept[key]
        self.drawing = made if isinstance(made, Drawing) else None
        if self.drawing is None:
            self.why.value = f"<div style='max-width:400px'>{made}</div>"
            self.holder.children = (self.why,)
        else:
            self.put(self.drawing.marked(state["layer"]))

    def made(self, depth: int) -> Drawing | str:
        """The drawing, or why there is none."""
        try:
            return self.pane.drawing(self.given(), depth)
        except ValueError as e:
            return str(e)

    def put(self, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        if self.drawing.spots is None:
            self.image.value = png(pixels)
            self.image.layout.width = f"{width}px"
            self.holder.children = (self.image,)
            return
        if self.map is None or self.map.size != (width, height):
            self.map = Clickable(ROWS, COLUMNS, width, height, self.clicked)
            self.map.add_class("vlmlab-map")
        self.map.show(pixels)
        self.map.name({c: f"{len(s)} images" if len(s) > 1 else "an image" for c, s in self.spots.items()})
        self.holder.children = (self.map,)

    @property
    def spots(self) -> dict[int, list[int]]:
        return cells_of(self.drawing.spots, ROWS, COLUMNS)

    def clicked(self, cell: int) -> None:
        """Choose the image there; of several, the next one each time."""
        if there := self.spots.get(cell):
            now = self.state()["sample"]
            self.choose(there[(there.index(now) + 1) % len(there)] if now in there else there[0])
