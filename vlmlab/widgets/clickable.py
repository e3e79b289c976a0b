"""A picture with places that can be clicked: an ipywidgets Image below a grid of transparent buttons.

Plain ipywidgets, so it works wherever they do, with the keyboard too, and no script of its own is loaded.
"""

from collections.abc import Callable, Mapping

import ipywidgets
import numpy as np

from .drawing import png
from .picture import OVER, Beside

MOST = 1024  # buttons


class Clickable(ipywidgets.GridBox):
    """rows × columns cells over a picture of so many pixels; choose(cell) is called with the number of one that is
    clicked, along the rows.

    keyboard: whether Tab stops at the cells. ValueError for more cells than a page can hold.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        width: int,
        height: int,
        choose: Callable[[int], None],
        keyboard: bool = False,
    ):
        if rows * columns > MOST:
            raise ValueError(f"{rows} × {columns} places are more than {MOST}")
        self.image = ipywidgets.Image(
            format="png",
            layout={"grid_area": OVER, "width": f"{width}px", "height": f"{height}px", "margin": "0"},
        )
        cell = ipywidgets.Layout(
            width="auto", height="auto", margin="0", padding="0", border="none", min_width="0"
        )
        clear = ipywidgets.ButtonStyle(button_color="transparent")
        self.cells = [
            ipywidgets.Button(layout=cell, style=clear, tabbable=keyboard) for _ in range(rows * columns)
        ]
        for number, button in enumerate(self.cells):
            button.on_click(lambda _, number=number: choose(number))
        self.over = ipywidgets.GridBox(
            self.cells,
            layout={
                "grid_area": OVER,
                "grid_template_columns": f"repeat({columns}, minmax(0, 1fr))",
                "grid_template_rows": f"repeat({rows}, minmax(0, 1fr))",
                "grid_gap": "0",
                "width": f"{width}px",
                "height": f"{height}px",
                "overflow": "visible",
            },
        )
        super().__init__(
            [self.image, self.over],
            layout={"width": f"{width}px", "height": f"{height}px", "margin": "0", "overflow": "visible"},
        )
        self.grid, self.size = (rows, columns), (width, height)
        self.says: Beside | None = None

    def show(self, pixels: np.ndarray) -> None:
        self.image.value = png(pixels)

    def say(self, values: Mapping[int, str]) -> None:
        """The values of cells, shown at once where one points; for what a cell is, see `name`."""
        if self.says is None:
            self.says = Beside(*self.grid)
            self.over.children = (*self.cells, self.says, self.says.rules())
        self.says.say(values)

    def name(self, names: Mapping[int, str], rest: str = "") -> None:
        """What each cell says when pointed at; the others are off unless `rest` names them."""
        for number, button in enumerate(self.cells):
            text = names.get(number, rest)
            if button.tooltip != text:
                button.tooltip = text
            if button.disabled is bool(text):
                button.disabled = not text


def cells_of(spots: np.ndarray, rows: int, columns: int) -> dict[int, list[int]]:
    """Cell -> the spots (sample, 2), shares of width and height, that lie in it; those outside lie in none."""
    found: dict[int, list[int]] = {}
    for sample, (x, y) in enumerate(spots):
        row, column = int(y * rows), int(x * columns)
        if 0 <= row < rows and 0 <= column < columns:
            found.setdefault(row * columns + column, []).append(sample)
    return found
