"""Pictures of the generated faces. An id says which: "train/17" is face 17 of the training part, "test/17+lines" face
17 of the test part in the look "lines". With an id alone the picture never changes.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ... import source_code
from . import drawing, expression, identity, parts
from .drawing import SIZE, Shape
from .identity import Colour, Identity

PARTS = {"train": (1, 4000), "val": (2, 500), "test": (3, 1500)}  # part -> (seed, faces)
INK, WHITE = (0.1, 0.1, 0.1), (1.0, 1.0, 1.0)
STRAIGHT = np.eye(2, 3)


@dataclasses.dataclass(frozen=True)
class Face:
    """weights: (emotion,) what it feels; who: all else; move: (2, 3) how it lies in the frame; grey: no colours;
    over: what covers it."""

    weights: np.ndarray
    who: Identity
    move: np.ndarray
    grey: bool = False
    lines: bool = False
    over: tuple[Shape, ...] = ()

    @property
    def shapes(self) -> list[Shape]:
        found = parts.face(self.who, expression.parameters(self.weights))
        return [*(drawn_in_lines(found) if self.lines else found), *self.over]

    def image(self, size: int = SIZE) -> np.ndarray:
        """uint8 (size, size, 3)"""
        found = drawing.painted(self.shapes, ground(self.who, size), self.move)
        return np.asarray(Image.fromarray(found).convert("L").convert("RGB")) if self.grey else found

    def masks(self, size: int = SIZE) -> np.ndarray:
        """bool (region, size, size), see drawing.masks."""
        return drawing.masks(self.shapes, size, self.move)


def parse(id: str) -> tuple[str, int, str]:
    """'test/17+lines' -> ('test', 17, 'lines'); the last is '' for the plain look. ValueError for what is no face."""
    part, _, rest = id.partition("/")
    number, _, look = rest.partition("+")
    if part not in PARTS or not number.isdecimal() or (look and look not in LOOKS):
        raise ValueError(
            f"there is no face {id!r}; faces are PART/NUMBER or PART/NUMBER+LOOK, with parts {', '.join(PARTS)} and "
            f"looks {', '.join(LOOKS)}"
        )
    return part, int(number), look


def face(id: str) -> Face:
    """The face of an id: a function of the seed of its part, and its number."""
    part, number, look = parse(id)
    weights, rng = felt(part, number)
    who = identity.drawn(rng)
    found = Face(weights, who, placed(rng, 0.12, 0.12))
    return LOOKS[look](found, rng) if look else found


def felt(part: str, number: int) -> tuple[np.ndarray, np.random.Generator]:
    """(emotion,) weights of a face, and the generator of all else about it. Faces take the emotions in turn."""
    rng = np.random.default_rng([PARTS[part][0], number])
    return expression.weights(rng, number % len(expression.prototypes())), rng


def placed(rng: np.random.Generator, least: float, turn: float) -> np.ndarray:
    """(2, 3): up to `least` smaller, turned by up to `turn` radians either way, anywhere inside the frame."""
    scale, angle = 1 - rng.uniform(0, least), rng.uniform(-turn, turn)
    return about_centre(scale, angle, 0.5 * SIZE * (1 - scale) * rng.uniform(-1, 1, 2))


def about_centre(scale: float, angle: float, shift: np.ndarray) -> np.ndarray:
    c, s, middle = scale * np.cos(angle), scale * np.sin(angle), SIZE / 2
    linear = np.array([[c, -s], [s, c]])
    return np.column_stack([linear, middle - linear @ [middle, middle] + shift])


def ground(who: Identity, size: int) -> np.ndarray:
    """What lies behind the face, uint8 (size, size, 3)."""
    first, last = 255 * np.float32(who.ground[0]), 255 * np.float32(who.ground[-1])
    if len(who.ground) == 1:
        return np.broadcast_to(first.astype(np.uint8), (size, size, 3))
    line = np.linspace(-0.7, 0.7, size, dtype=np.float32)
    ramp = np.cos(who.angle) * line[:, None] + np.sin(who.angle) * line + 0.5
    ramp = ramp.astype(np.float32).clip(0, 1)[..., None]
    return (first * ramp + last * (1 - ramp)).astype(np.uint8)


def drawn_in_lines(shapes: list[Shape]) -> list[Shape]:
    """Black on white: dark parts of the eyes and lines stay, all else becomes an outline; see-through parts go."""
    found = []
    for s in shapes:
        if s.alpha < 1:
            continue
        dark = s.region == "eyes" and s.fill is not None and sum(s.fill) < 1
        fill = s.fill and (INK if dark else WHITE)
        found.append(s._replace(fill=fill, line=INK, width=s.width or 0.9))
    return found


def lines(found: Face, rng: np.random.Generator) -> Face:
    return dataclasses.replace(found, lines=True, who=dataclasses.replace(found.who, ground=(WHITE,)))


def grey(found: Face, rng: np.random.Generator) -> Face:
    return dataclasses.replace(found, grey=True)


def rotated(found: Face, rng: np.random.Generator) -> Face:
    """By 25 to 60 degrees either way."""
    angle = np.deg2rad(rng.uniform(25, 60)) * rng.choice([-1, 1])
    return dataclasses.replace(found, move=about_centre(0.92, angle, np.zeros(2)))


def covered(found: Face, rng: np.random.Generator) -> Face:
    """A board before the eyes, the mouth or one side of the face."""
    where = rng.choice(["eyes", "mouth", "side"])
    colour: Colour = tuple(rng.uniform(0.2, 0.9, 3).tolist())
    side = int(rng.choice([-1, 1]))
    boxes = {"eyes": (0, -5.5, 30, 7.5), "mouth": (0, 14, 24, 9), "side": (side * 18, 0, 16, 34)}
    x, y, wide, high = boxes[str(where)]
    corners = np.array([(-wide, -high), (wide, -high), (wide, high), (-wide, high)]) + (x, y)
    return dataclasses.replace(found, over=(Shape("rest", corners, colour),))


LOOKS: dict[str, Callable[[Face, np.random.Generator], Face]] = {
    f.__name__: f for f in (lines, grey, rotated, covered)
}


def image(id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The 64 x 64 RGB picture of an id. With `rng` the same face smaller, turned, shifted, perhaps mirrored, on
    another ground and in other light."""
    return Image.fromarray(fixed(id) if rng is None else varied(id, rng))


@functools.lru_cache(maxsize=8192)
def fixed(id: str) -> np.ndarray:
    """uint8 (64, 64, 3)"""
    return face(id).image()


def varied(id: str, rng: np.random.Generator) -> np.ndarray:
    """A random training picture, uint8 (64, 64, 3)."""
    found = face(id)
    move = placed(rng, 0.3, 0.3)
    if rng.random() < 0.5:
        move = move @ np.array([[-1, 0, SIZE], [0, 1, 0], [0, 0, 1]])  # in a mirror, then placed
    behind = identity.ground(rng, found.who.skin)
    who = dataclasses.replace(found.who, ground=behind, angle=rng.uniform(0, 2 * np.pi))
    light = rng.uniform(0.93, 1.07, 3).astype(np.float32) * np.float32(rng.uniform(0.8, 1.1))
    image = dataclasses.replace(found, who=who, move=move).image()
    return (image * light).clip(0, 255).astype(np.uint8)


def masks(id: str) -> np.ndarray:
    """bool (region, 64, 64) of the picture of an id, in the order of drawing.REGIONS; each pixel is in one."""
    return face(id).masks()


def content(id: str) -> bytes:
    """What the picture is a function of, for fingerprints."""
    return f"{id} {recipe()}".encode()


@functools.cache
def recipe() -> str:
    """Digest of the tables and the code that draw."""
    digest = hashlib.sha256()
    for table in expression.tables():
        digest.update(table.read_bytes())
    for module in (drawing, expression, identity, parts):
        digest.update(source_code.digest(Path(module.__file__)).encode())
    digest.update(source_code.digest(Path(__file__)).encode())
    return digest.hexdigest()[:16]


def concept(id: str) -> str:
    """The face, whatever the look."""
    return id.partition("+")[0]
