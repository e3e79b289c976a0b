"""Pictures that say their values where one points: by style alone, without a script or a way to the kernel and back.

Each value is an element over its place, in an ipywidgets HTML, and its text appears while the pointer is there. Where
buttons lie on the picture, the text belongs to the button that is pointed at or has the focus.
"""

import html
from collections.abc import Callable, Hashable, Iterable, Mapping

import ipywidgets
import numpy as np

from .drawing import Drawing, png
from .reading import Memory
from .values import Value

KEPT = 2**25  # bytes of the drawings that one picture keeps
OVER = "1 / 1 / 2 / 2"  # of a grid: what lies there lies on the picture
STYLE = (
    "<style>.vlmlab-values{position:absolute;inset:0}.vlmlab-values i{position:absolute;font-style:normal}"
    ".vlmlab-values b{display:none;position:absolute;z-index:9;pointer-events:none;white-space:pre;padding:1px 6px;"
    "border-radius:3px;background:#222;color:#fff;font:12px/1.4 sans-serif}"
    ".vlmlab-values i:hover b{display:block}.vlmlab-beside,.vlmlab-beside *{pointer-events:none}"
    ".vlmlab-beside{position:absolute!important;inset:0;margin:0}</style>"  # out of the grid, whose cells are the buttons'
)


def layer(elements: Iterable[str]) -> str:
    """The HTML that lies on a picture."""
    return f'{STYLE}<div class="vlmlab-values">{"".join(elements)}</div>'


def element(value: Value, name: str = "") -> str:
    """One value: its place, and its text beside it, towards the middle of the picture."""
    side = "right" if value.left + value.width / 2 > 0.5 else "left"
    column = value.height > 0.5
    across = f"{side}:{100 if column else 0}%"
    down = "top:0" if column else "top:100%" if value.top < 0.25 else "bottom:100%"
    place = f"left:{value.left:.2%};top:{value.top:.2%};width:{value.width:.2%};height:{value.height:.2%}"
    named = f' class="{name}"' if name else ""
    return f'<i style="{place}"{named}><b style="{across};{down}">{html.escape(value.text)}</b></i>'


class Picture(ipywidgets.GridBox):
    """A drawing that says its values where one points."""

    def __init__(self):
        self.image = ipywidgets.Image(
            format="png", layout={"grid_area": OVER, "width": "100%", "margin": "0"}
        )
        self.says = ipywidgets.HTML(layout={"grid_area": OVER, "margin": "0"})
        layout = {"grid_template_columns": "minmax(0, 1fr)", "max_width": "100%", "margin": "0"}
        layout["overflow"] = "visible"  # a text may stand beyond the edge
        super().__init__([self.image, self.says], layout=layout)
        self.made, self.drawing, self.at = Memory(KEPT), None, None

    @property
    def pixels(self) -> np.ndarray | None:
        """What is shown, uint8 (height, width, 3); None before the first drawing."""
        return None if self.drawing is None else self.drawing.marked(self.at)

    @property
    def value(self) -> bytes:
        """The PNG that is shown."""
        return self.image.value

    def follow(self, key: Hashable, make: Callable[[], Drawing], at: Hashable = None) -> None:
        """Show what was made for this key, or make it; a mark alone draws nothing again."""
        self.show(self.made.get(key, make, lambda drawing: drawing.nbytes), at)

    def show(self, drawing: Drawing, at: Hashable = None) -> None:
        """Show a drawing with one of its marks; its values are sent when they are others."""
        self.drawing, self.at = drawing, at
        pixels = self.pixels
        self.image.value = png(pixels)
        self.layout.width = f"{pixels.shape[1]}px"
        self.says.value = layer(map(element, drawing.values))


class Beside(ipywidgets.HTML):
    """Values of the buttons that stand before it in a grid: each shows when its button is pointed at or has the focus."""

    def __init__(self, rows: int, columns: int):
        self.grid = rows, columns
        super().__init__()
        self.add_class("vlmlab-beside")

    def rules(self) -> ipywidgets.HTML:
        """The style that ties values to buttons, to be put behind this in the grid."""
        each = (
            f"button:nth-child({n}):is(:hover,:focus-visible)~.vlmlab-beside .v{n} b{{display:block}}"
            for n in range(1, self.grid[0] * self.grid[1] + 1)
        )
        return ipywidgets.HTML(f"<style>{''.join(each)}</style>", layout={"display": "none"})

    def say(self, texts: Mapping[int, str]) -> None:
        """Cell, along the rows -> its text."""
        rows, columns = self.grid
        places = {n: (n % columns / columns, n // columns / rows, 1 / columns, 1 / rows) for n in texts}
        self.value = layer(element(Value(*places[n], text), f"v{n + 1}") for n, text in texts.items())
