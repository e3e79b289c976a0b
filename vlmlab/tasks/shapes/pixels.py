"""Pictures and masks of scenes, without smoothing: a pixel belongs to one shape or to the ground."""

import functools

import numpy as np
from PIL import Image

from .composition import PIXELS, SHAPES, Scene, Thing, scene


@functools.cache
def stamp(shape: int, radius: int) -> np.ndarray:
    """bool (2 radius + 1, 2 radius + 1), true on the shape; it touches all four edges."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    if SHAPES[shape] == "circle":
        return x**2 + y**2 <= (radius + 0.3) ** 2
    if SHAPES[shape] == "square":
        return np.full(x.shape, True)
    if SHAPES[shape] == "triangle":
        return 2 * abs(x) <= y + radius
    u, v = 1.13 * x / radius, 0.12 - 1.11 * y / radius
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3


def box(thing: Thing) -> tuple[slice, slice]:
    """Rows and columns of its square."""
    at = ((c - thing.radius, c + thing.radius + 1) for c in (thing.y, thing.x))
    return tuple(slice(*edges) for edges in at)


def picture(of: Scene) -> np.ndarray:
    """uint8 (64, 64, 3)."""
    pixels = np.full((PIXELS, PIXELS, 3), of.ground, np.uint8)
    for thing in of.things:
        pixels[box(thing)][stamp(thing.shape, thing.radius)] = thing.rgb
    return pixels


def mask(thing: Thing) -> np.ndarray:
    """bool (64, 64), true on the shape."""
    found = np.zeros((PIXELS, PIXELS), bool)
    found[box(thing)] = stamp(thing.shape, thing.radius)
    return found


def image(id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The 64 x 64 RGB picture of an id; with `rng` other pixels of the same key, of which all texts stay true."""
    return Image.fromarray(picture(scene(id, rng)))


def content(id: str) -> bytes:
    """The pixels, for fingerprints."""
    return picture(scene(id)).tobytes()
