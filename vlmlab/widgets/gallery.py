"""The picture strip of an explorer: filters, pages, thumbnails to click."""

from collections.abc import Callable

import ipywidgets
import numpy as np

from . import sheet
from .clickable import Clickable
from .frame import labelled

PAGE = sheet.ROWS * sheet.COLUMNS
NARROW = {"description_width": "4.3em"}


class Gallery(ipywidgets.VBox):
    """Thumbnails of the rows of a table (see `sheet.table`). choose(number) is called for one that is clicked, keep(name=value, ...)
    when filters changed."""

    def __init__(
        self, rows, tests, models: list[str], kept: dict, choose: Callable[[int], None], keep: Callable
    ):
        self.models, self.choose, self.keep, self.at, self.chosen = models, choose, keep, 0, 0
        self.small: dict[tuple, object] = {}
        self.parts: dict[object, set[tuple[str, int]]] = {}  # brushes of maps -> the images within
        width, height = sheet.COLUMNS * sheet.SIDE, sheet.ROWS * sheet.SIDE
        self.cells = Clickable(sheet.ROWS, sheet.COLUMNS, width, height, self.clicked, keyboard=True)
        self.cells.add_class("vlmlab-sheet")
        self.filters = self.controls()
        self.back = ipywidgets.Button(description="◀", tooltip="page before", layout={"width": "44px"})
        self.on = ipywidgets.Button(description="▶", tooltip="next page", layout={"width": "44px"})
        self.on.add_class("vlmlab-next")
        self.where = ipywidgets.Label()
        self.where.add_class("vlmlab-where")
        for button, step in ((self.back, -1), (self.on, 1)):
            button.on_click(lambda _, step=step: self.turn(step))
        self.told = ipywidgets.HTML(layout={"width": f"{width}px"})
        self.told.add_class("vlmlab-told")
        pager = ipywidgets.HBox([self.back, self.on, self.where])
        self.brush = ipywidgets.FloatRangeSlider(
            description="r(x)",
            step=0.01,
            readout_format=".2f",
            style=NARROW,
            layout={"width": f"{width - 4}px"},
        )
        self.brush.tooltip = "only images whose r(x) is between these"
        self.brush.add_class("vlmlab-brush")
        search, *others = self.filters.values()
        columns = {"grid_template_columns": "repeat(2, minmax(0, 1fr))", "width": f"{width}px"}
        pairs = ipywidgets.GridBox(others, layout=columns)
        parts = [search, pairs, self.brush, pager, self.cells, self.told]
        super().__init__(parts, layout={"width": f"{width + 8}px"})
        self.take(rows, tests, dict(kept))
        for control in (*self.filters.values(), self.brush):
            control.observe(lambda _: self.filter(), "value")

    def controls(self) -> dict[str, ipywidgets.Widget]:
        said = {"style": NARROW, "layout": {"width": "auto"}}
        alone = [(f"only {m} right", f"only {m}") for m in self.models] if len(self.models) > 1 else []
        controls = {
            "text": ipywidgets.Text(
                description="search",
                placeholder="class, prediction or file",
                style=NARROW,
                layout={"width": f"{sheet.COLUMNS * sheet.SIDE - 4}px"},
            ),
            "test": ipywidgets.Dropdown(description="test", options=[sheet.EVERY], **said),
            "name": ipywidgets.Dropdown(description="class", options=[sheet.EVERY], **said),
            "answer": ipywidgets.Dropdown(
                description="answers", options=[*sheet.ANSWERS.items(), *alone], **said
            ),
            "order": ipywidgets.Dropdown(description="order", options=sheet.ORDERS, **said),
        }
        if len(self.models) > 1:
            controls["model"] = ipywidgets.Dropdown(description="model", options=self.models, **said)
        for name, control in controls.items():
            control.add_class(f"vlmlab-{name}")
        return controls

    @property
    def model(self) -> str:
        return self.filters["model"].value if "model" in self.filters else self.models[0]

    def take(self, rows, tests, kept: dict) -> None:
        """Show another table, with what was chosen before where that still exists."""
        self.rows, self.tests = rows, tests
        lines = min(sheet.ROWS, -(-len(rows) // sheet.COLUMNS))  # no empty ones below a few images
        self.cells.layout.height, self.cells.layout.overflow = f"{lines * sheet.SIDE}px", "hidden"
        self.filters["test"].options = [sheet.EVERY, *tests]
        names = dict.fromkeys(n for n in rows["name"] if n)
        self.filters["name"].options = [sheet.EVERY, *sorted(names)]
        for name, control in self.filters.items():
            values = [v[1] if isinstance(v, tuple) else v for v in getattr(control, "options", ())]
            if name in kept and (not values or kept[name] in values):
                control.value = kept[name]
        self.bound(kept.get("r"))
        self.filter()

    def bound(self, kept: tuple[float, float] | None) -> None:
        """Let the brush span all r(x) that there are, with the range that was kept; no brush where there are none."""
        column = sheet.with_r(self.rows, self.model)
        self.brush.layout.display = "none" if column is None else ""
        if column is None:
            return
        values = self.rows[[c for c in self.rows if c.startswith("r ")]]
        low, high = np.floor(100 * np.nanmin(values)) / 100, np.ceil(100 * np.nanmax(values)) / 100
        with self.brush.hold_trait_notifications():
            self.brush.min, self.brush.max = low, high
            self.brush.value = kept or (low, high)

    @property
    def r(self) -> tuple[float, float] | None:
        """The range of r(x) that is asked for; None for all."""
        all_of_it = self.brush.layout.display == "none" or self.brush.value == (
            self.brush.min,
            self.brush.max,
        )
        return None if all_of_it else self.brush.value

    def filter(self) -> None:
        asked = {name: c.value for name, c in self.filters.items() if name != "model"}
        found = sheet.found(self.rows, self.model, **asked, r=self.r)
        places = {n: (self.rows.at[n, "test"], int(self.rows.at[n, "sample"])) for n in found}
        self.numbers = [n for n in found if all(places[n] in part for part in self.parts.values())]
        self.at = 0
        self.draw()
        self.keep(**{name: c.value for name, c in self.filters.items()}, r=self.r)

    def within(self, brush: object, images: set[tuple[str, int]] | None) -> None:
        """Only images (test, sample) that a brush of a map covers; None for all."""
        if self.parts.get(brush) != images:
            self.parts.pop(brush, None)
            if images is not None:
                self.parts[brush] = images
            self.filter()

    def turn(self, step: int) -> None:
        self.at = min(max(0, self.at + step), self.pages - 1)
        self.draw()

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.numbers) // PAGE))

    @property
    def shown(self) -> list[int]:
        return self.numbers[self.at * PAGE : (self.at + 1) * PAGE]

    def clicked(self, cell: int) -> None:
        if cell < len(self.shown):
            self.choose(self.shown[cell])

    def mark(self, number: int) -> None:
        """Frame an image and say what it is; its page is turned to where the filters let it through."""
        self.chosen = number
        if number not in self.shown and number in self.numbers:
            self.at = self.numbers.index(number) // PAGE
        self.draw()

    def draw(self) -> None:
        self.cells.show(self.pixels())
        self.cells.name({i: sheet.told(self.rows.loc[n], self.models) for i, n in enumerate(self.shown)})
        self.where.value = (
            f"{len(self.numbers)} of {len(self.rows)} images, page {self.at + 1} of {self.pages}"
        )
        self.back.disabled, self.on.disabled = self.at == 0, self.at == self.pages - 1
        self.told.value = labelled(sheet.told(self.rows.loc[self.chosen], self.models)).value

    def pixels(self) -> np.ndarray:
        return sheet.page(self.rows, self.shown, self.model, self.chosen, self.thumbnail)

    def thumbnail(self, number: int):
        row = self.rows.loc[number]
        if (key := (row["test"], row["sample"])) not in self.small:
            self.small[key] = sheet.thumbnail(self.tests[row["test"]].image(int(row["sample"])))
        return self.small[key]
