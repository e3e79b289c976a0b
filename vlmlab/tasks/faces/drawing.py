"""Paint shapes with Agg, the renderer of matplotlib: anti-aliased, a few tens of microseconds a shape."""

from typing import NamedTuple

import numpy as np

from .identity import Colour

REGIONS = ("brows", "eyes", "mouth", "rest")
SIZE = 64
CENTRE = (32.0, 33.0)  # of the head
LEAST = 0.05  # of a pixel that a part must cover to have it in its mask


class Shape(NamedTuple):
    """A polygon or line in pixels of a frame of 64 around the head's centre, y downwards. fill, line: colours or
    None; alpha of both."""

    region: str
    points: np.ndarray
    fill: Colour | None = None
    line: Colour | None = None
    width: float = 0.0
    alpha: float = 1.0


def painted(shapes: list[Shape], ground: np.ndarray, move: np.ndarray) -> np.ndarray:
    """uint8 (size, size, 3): the shapes on a ground of that size, later ones over earlier ones.

    move: (2, 3), what is done to points of the frame of 64 after the head's centre was put to `CENTRE`.
    """
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    size = len(ground)
    renderer = RendererAgg(size, size, 72)  # at 72 dots an inch a point is a pixel
    canvas = np.asarray(renderer.buffer_rgba())
    canvas[..., :3], canvas[..., 3] = ground, 255
    k = size / SIZE
    upright = np.array([[k, 0, 0], [0, -k, size], [0, 0, 1]])  # Agg counts from the bottom
    centred = np.array([[1, 0, CENTRE[0]], [0, 1, CENTRE[1]], [0, 0, 1]])
    transform = Affine2D(upright @ np.vstack([move, [0, 0, 1]]) @ centred)
    widths = k * float(np.sqrt(abs(np.linalg.det(move[:, :2]))))
    gc = renderer.new_gc()
    gc.set_snap(False)
    gc.set_capstyle("round")
    gc.set_joinstyle("bevel")  # lines are smooth
    for shape in shapes:
        gc.set_linewidth(shape.width * widths if shape.line is not None else 0)
        gc.set_foreground((*(shape.line or (0, 0, 0)), shape.alpha), isRGBA=True)
        face = None if shape.fill is None else (*shape.fill, shape.alpha)
        renderer.draw_path(gc, Path(shape.points), transform, face)
    return canvas[..., :3].copy()


def masks(shapes: list[Shape], size: int, move: np.ndarray) -> np.ndarray:
    """bool (region, size, size) in the order of `REGIONS`, each pixel in one: the part that covers most of it, or
    the rest. What can be seen through hides nothing."""
    colours = dict(zip(REGIONS, np.eye(3).tolist()))
    flat = [
        s._replace(
            fill=s.fill and tuple(colours.get(s.region, (0.0, 0.0, 0.0))),
            line=s.line and tuple(colours.get(s.region, (0.0, 0.0, 0.0))),
            alpha=1.0,
        )
        for s in shapes
        if s.alpha > 0.5
    ]
    parts = painted(flat, np.zeros((size, size, 3), np.uint8), move)
    label = np.where(parts.max(-1) > 255 * LEAST, parts.argmax(-1), len(REGIONS) - 1)
    return label == np.arange(len(REGIONS))[:, None, None]
