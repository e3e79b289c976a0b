"""Pictures for widgets: figures as pixels, with marks that move without drawing the figure again."""

import dataclasses
import io
from collections.abc import Callable, Hashable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from .. import plots
from .values import Box, Value, values_of

DPI = 120
MARK = (89, 89, 89)  # of the block that is looked at


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure that has been drawn.

    pixels: uint8 (height, width, 3). marks: what can be marked -> boxes there, as (left, top, right, bottom) in pixels;
    one without width is a line. spots: (sample, 2) of what can be chosen in it, x and y as shares of width and height; or None. values: what
    it says where one points.
    """

    pixels: np.ndarray
    marks: dict[Hashable, list[Box]] = dataclasses.field(default_factory=dict)
    spots: np.ndarray | None = None
    values: tuple[Value, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes

    def marked(self, at: Hashable = None) -> np.ndarray:
        """The pixels with one mark on them."""
        if at not in self.marks:
            return self.pixels
        image = Image.fromarray(self.pixels)
        pen = ImageDraw.Draw(image)
        for box in self.marks[at]:
            left, top, right, bottom = map(round, box)
            if left == right:
                pen.line([(left, top), (left, bottom)], fill=MARK, width=2)
            else:
                pen.rectangle((left, top, right, bottom), outline="white", width=4)
                pen.rectangle((left, top, right, bottom), outline=MARK, width=2)  # seen on light cells too
        return np.asarray(image)


def drawn(
    figure: Figure,
    marks: Sequence[int] = (),
    spots: Callable[[], np.ndarray] | None = None,
    boxes: Mapping[Hashable, Box] | None = None,
) -> Drawing:
    """Draw a figure. marks: values along x that a line may have to stand at. spots: gives points (sample, 2) in the
    coordinates of its first Axes. boxes: what can be framed -> (left, bottom, right, top) in these coordinates."""
    pixels = painted(figure, DPI)
    height, width = pixels.shape[:2]
    found: dict[Hashable, list[Box]] = {at: [] for at in marks}
    for ax in figure.axes:
        low, high = sorted(height - ax.transAxes.transform([(0, 0), (0, 1)])[:, 1])
        for at in marks:
            x = ax.transData.transform((at, ax.get_ylim()[0]))[0]
            found[at].append((x, low, x, high))
    for at, (left, bottom, right, top) in (boxes or {}).items():
        (x, down), (end, up) = figure.axes[0].transData.transform([(left, bottom), (right, top)])
        found[at] = [(x, height - max(down, up), end, height - min(down, up))]
    places = None
    if spots is not None:
        places = figure.axes[0].transData.transform(spots())
        places = np.stack([places[:, 0] / width, 1 - places[:, 1] / height], axis=1)
    return Drawing(pixels, found, places, values_of(figure))


def part(draw: Callable[[Axes], object], height: float, polar: bool = False) -> Figure:
    """A figure of one Axes, a column wide, which no notebook shows by itself."""
    fig, ax = plots.figure(1, height, subplot_kw={"projection": "polar" if polar else None})
    plt.close(fig)
    draw(ax)
    plots.style.plain_text(fig)
    return fig


def painted(figure: Figure, dpi: int) -> np.ndarray:
    """A figure as uint8 (height, width, 3), whatever the notebook draws with."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(pixels: np.ndarray) -> bytes:
    """uint8 (height, width, 3 or 4) as a PNG, packed fast rather than small."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def beside(pictures: Sequence[np.ndarray], width: int = 1000, gap: int = 8) -> np.ndarray:
    """Pictures in rows of at most so many pixels, on white: what a widget shows, as one picture."""
    rows: list[list[np.ndarray]] = [[]]
    for picture in pictures:
        picture = np.asarray(Image.fromarray(picture).convert("RGB"))
        if rows[-1] and sum(p.shape[1] + gap for p in rows[-1]) + picture.shape[1] > width:
            rows.append([])
        rows[-1].append(picture)
    across = max(sum(p.shape[1] + gap for p in row) for row in rows)
    tall = [max(p.shape[0] for p in row) + gap for row in rows]
    page = np.full((sum(tall), across, 3), 255, np.uint8)
    top = 0
    for row, high in zip(rows, tall):
        left = 0
        for p in row:
            page[top : top + p.shape[0], left : left + p.shape[1]] = p
            left += p.shape[1] + gap
        top += high
    return page
