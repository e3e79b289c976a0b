"""A place for one pane: a list to choose it from, its picture, and its code."""

import ipywidgets
import numpy as np

from .clickable import Clickable, cells_of
from .drawing import Drawing
from .frame import wrapping
from .pane import Pane
from .panes import PANES
from .picture import KEPT, Picture
from .reading import Memory

ROWS, COLUMNS = 16, 24  # cells over a picture whose samples can be clicked
TOLD = 3  # images of one cell that are told apart


class Slot(ipywidgets.VBox):
    """One pane of an explorer, by its name at first."""

    def __init__(self, name: str, explorer):
        self.explorer = explorer
        self.made = Memory(KEPT)
        self.drawing: Drawing | None = None
        self.chooser = ipywidgets.Dropdown(options=list(PANES), value=name, layout={"width": "164px"})
        self.chooser.add_class("vlmlab-pane")
        self.holder = ipywidgets.VBox(layout={"overflow": "visible", "width": "100%"})
        self.image = Picture()
        self.image.add_class("vlmlab-drawing")
        self.why = ipywidgets.HTML()
        self.map: Clickable | None = None
        self.across, self.up = (
            ipywidgets.FloatRangeSlider(
                value=(0, 1),
                max=1,
                step=0.01,
                readout=False,
                description=arrow,
                style={"description_width": "20px"},
            )
            for arrow in ("↔", "↕")
        )
        for brush, name in ((self.across, "across"), (self.up, "up")):
            brush.layout.width = "48%"
            brush.tooltip = "only images of this part of the map"
            brush.add_class(f"vlmlab-{name}")
            brush.observe(explorer.moved, "value")
        head = wrapping(self.chooser, explorer.tools_of(lambda: self.pane))
        super().__init__([head, self.holder], layout={"max_width": "100%"})
        self.chooser.observe(explorer.moved, "value")

    @property
    def pane(self) -> Pane:
        return PANES[self.chooser.value]

    def draw(self) -> None:
        """Draw what changed: another figure, or only the mark in the one that is there."""
        state = self.explorer.state()
        key = (self.pane.name, *(state[name] for name in self.pane.follows))
        made = self.made.get(
            key, lambda: self.make(state["depth"]), lambda it: 0 if isinstance(it, str) else it.nbytes
        )
        self.drawing = made if isinstance(made, Drawing) else None
        self.explorer.gallery.within(self, self.brushed(state["test"]))
        if self.drawing is None:
            self.why.value = f"<div style='max-width:400px'>{made}</div>"
            self.holder.children = (self.why,)
        else:
            self.put(state["layer"])

    def make(self, depth: int) -> Drawing | str:
        """The drawing, or why there is none."""
        try:
            return self.pane.drawing(self.explorer.arguments(), depth)
        except ValueError as e:
            return str(e)

    def put(self, layer: int) -> None:
        if self.drawing.spots is None:
            self.image.show(self.drawing, layer)
            self.holder.children = (self.image,)
            return
        height, width = self.drawing.pixels.shape[:2]
        if self.map is None or self.map.size != (width, height):
            self.map = Clickable(ROWS, COLUMNS, width, height, self.clicked)
            self.map.add_class("vlmlab-map")
            brushes = ipywidgets.HBox([self.across, self.up], layout={"width": f"{width}px"})
            self.brushes = ipywidgets.VBox([self.map, brushes])
        self.map.show(self.drawing.marked(layer))
        self.map.name({cell: self.told(samples) for cell, samples in self.spots.items()})
        self.holder.children = (self.brushes,)

    def brushed(self, test: str) -> set[tuple[str, int]] | None:
        """(test, sample) of the images within the two brushes of the map; None for all."""
        ranges = self.across.value, self.up.value
        if self.drawing is None or self.drawing.spots is None or ranges == ((0, 1), (0, 1)):
            return None
        x, y = self.drawing.spots[:, 0], 1 - self.drawing.spots[:, 1]
        (left, right), (low, high) = ranges
        inside = (left <= x) & (x <= right) & (low <= y) & (y <= high)
        return {(test, int(sample)) for sample in np.flatnonzero(inside)}

    def told(self, samples: list[int]) -> str:
        """What is said of the images in one cell."""
        more = [f"and {len(samples) - TOLD} more"] if len(samples) > TOLD else []
        return "\n".join([*(self.explorer.tell(sample) for sample in samples[:TOLD]), *more])

    @property
    def spots(self) -> dict[int, list[int]]:
        return cells_of(self.drawing.spots, ROWS, COLUMNS)

    def clicked(self, cell: int) -> None:
        """Choose the image there; of several, the next one each time."""
        if there := self.spots.get(cell):
            now = self.explorer.state()["sample"]
            self.explorer.choose_here(
                there[(there.index(now) + 1) % len(there)] if now in there else there[0]
            )
