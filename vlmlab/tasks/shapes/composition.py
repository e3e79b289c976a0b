"""What is in a scene of coloured shapes, and where: a function of its id alone, nothing is stored.

"pairs/test/2.17" is scene 17 of seed 2 on the test side of a kind:

- `one`: one shape in one of 16 places;
- `pairs`: two different shapes, side by side or one above the other;
- `many`: one to four shapes, each in a quarter of its own, equal ones allowed.

What makes a scene, its *key*, is all of this but the exact pixels: shapes, colours, sizes (not of `many`) and places. Every
key lies on one side, train, val or test, so that no scene is on two. The scenes of `one` and `pairs` go through all
keys of their side, in the order of the seed, before one comes again; in `many` the counts are balanced (`composed`).
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

PIXELS = 64  # width and height
COLOURS = {
    "red": (214, 44, 48),
    "orange": (240, 138, 30),
    "yellow": (244, 214, 50),
    "green": (52, 160, 72),
    "blue": (52, 100, 220),
    "purple": (150, 66, 190),
}
SHAPES = ("circle", "square", "triangle", "heart")
SIZES = ("small", "large")
RADII = ((6, 7), (11, 12))  # of small and of large shapes
MOST = 4  # shapes of a scene
SHADES = 12  # how far each channel of a colour may be from its own
GROUNDS = ((205, 255), (0, 45))  # light and dark greys
THINGS = len(SIZES) * len(COLOURS) * len(SHAPES)
PLACES = 4  # of `one`, in each direction
KEYS = {
    "one": THINGS * PLACES**2,
    "pairs": 2 * THINGS**2,
    "many": (len(COLOURS) * len(SHAPES) + 1) ** MOST,
}
SIDES = {"train": 0.7, "val": 0.1, "test": 0.2}  # shares of the keys
BLOCK = 256  # scenes drawn at a time
CHANCES = 10  # numbers in [0, 1) that decide what is asked


class Thing(NamedTuple):
    """One shape: positions in SIZES, COLOURS and SHAPES, its centre and radius in pixels, its exact colour."""

    size: int
    colour: int
    shape: int
    x: int
    y: int
    radius: int
    rgb: tuple[int, int, int]

    @property
    def kind(self) -> tuple[int, int]:
        return self.colour, self.shape


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is in a picture.

    things: of `pairs` the left or upper one first. across: `pairs` side by side. swapped: the caption of `pairs` begins
    with the second. focus: of `many` the colour (0 to 5) or the shape (6 to 9) that is counted, -1 for all.
    chances: numbers in [0, 1) that decide what is asked. ground: a level of grey.
    """

    kind: str
    key: int
    things: tuple[Thing, ...]
    across: bool
    swapped: bool
    focus: int
    chances: tuple[float, ...]
    ground: int


ROWS = np.dtype(
    [
        *((name, "i4") for name in ("key", "count", "focus", "ground")),
        *((name, "?") for name in ("across", "swapped")),
        *((name, "i4", MOST) for name in ("size", "colour", "shape", "cell", "x", "y", "radius")),
        ("rgb", "i4", (MOST, 3)),
        ("chances", "f8", CHANCES),
    ]
)


def parse(id: str) -> tuple[str, str, int, int]:
    """'pairs/test/2.17' -> ('pairs', 'test', 2, 17). ValueError for an id of no scene."""
    try:
        kind, side, number = id.split("/")
        seed, i = map(int, number.split("."))
    except ValueError:
        raise ValueError(f"{id!r} is no scene; one is called 'pairs/test/2.17'") from None
    if kind not in KEYS or side not in SIDES or min(seed, i) < 0:
        raise ValueError(
            f"{id!r} is no scene; kinds are {', '.join(KEYS)}, sides {', '.join(SIDES)}, and its numbers count from 0"
        )
    return kind, side, seed, i


def scene(id: str, rng: np.random.Generator | None = None) -> Scene:
    """The scene of an id; with `rng` the same key with other pixels: places, radii, shades and ground anew."""
    kind, side, seed, i = parse(id)
    number, at = divmod(i, BLOCK)
    if rng is None:
        return known(kind, side, seed, number)[at]
    rows = block(kind, side, seed, number)[at : at + 1].copy()
    arrange(kind, rows, rng)
    return read(kind, rows)[0]


@functools.lru_cache(maxsize=128)  # 32,768 scenes, about 60 MB
def known(kind: str, side: str, seed: int, number: int) -> list[Scene]:
    """The scenes of a block."""
    return read(kind, block(kind, side, seed, number))


def read(kind: str, rows: np.ndarray) -> list[Scene]:
    """Rows of ROWS as scenes."""
    columns = [rows[name].tolist() for name in ("size", "colour", "shape", "x", "y", "radius", "rgb")]
    things = [
        tuple(Thing(*numbers, tuple(rgb)) for *numbers, rgb in zip(*of, strict=True))
        for of in zip(*columns, strict=True)
    ]
    names = ("count", "key", "across", "swapped", "focus", "chances", "ground")
    others = zip(*(rows[name].tolist() for name in names), strict=True)
    return [
        Scene(kind, key, of[:count], across, swapped, focus, tuple(chances), ground)
        for of, (count, key, across, swapped, focus, chances, ground) in zip(things, others, strict=True)
    ]


@functools.lru_cache(maxsize=1024)  # 262,144 scenes, about 70 MB: training reads them in any order
def block(kind: str, side: str, seed: int, number: int) -> np.ndarray:
    """BLOCK scenes as rows of ROWS, number * BLOCK being the first."""
    rng = np.random.default_rng([seed, list(KEYS).index(kind), list(SIDES).index(side), number])
    rows = np.zeros(BLOCK, ROWS)
    if kind == "many":
        composed(rows, side, rng)
    else:
        own = listed(kind, side, seed)
        rows["key"] = own[(number * BLOCK + np.arange(BLOCK)) % len(own)]
        COMPOSE[kind](rows)
    arrange(kind, rows, rng)
    rows["swapped"] = rng.random(BLOCK) < 0.5
    rows["chances"] = rng.random((BLOCK, CHANCES))
    rows.setflags(write=False)
    return rows


@functools.cache
def sides(kind: str) -> np.ndarray:
    """(key,) the position in SIDES of every key; a pair is on the side of the pair in the other order, or else a question
    how they stand would tell its answer."""
    drawn = np.random.default_rng(list(KEYS).index(kind)).random(KEYS[kind])
    if kind == "pairs":
        drawn = drawn.reshape(THINGS, THINGS, 2)
        drawn = np.where(np.tri(THINGS, dtype=bool)[..., None], drawn, drawn.swapaxes(0, 1)).ravel()
    return np.searchsorted(np.cumsum([*SIDES.values()][:-1]), drawn, side="right").astype(np.int8)


@functools.lru_cache(maxsize=64)
def listed(kind: str, side: str, seed: int) -> np.ndarray:
    """The keys of a side in the order of a seed; `pairs` has no two equal shapes."""
    keys = np.flatnonzero(sides(kind) == list(SIDES).index(side))
    if kind == "pairs":
        first, second = np.divmod(keys // 2, THINGS)
        keys = keys[first != second]
    return np.random.default_rng(seed).permutation(keys)


def spell(rows: np.ndarray, k: int, thing: np.ndarray) -> None:
    """Fill in thing k of every row, numbers from 0 to THINGS."""
    rest, rows["shape"][:, k] = np.divmod(thing, len(SHAPES))
    rows["size"][:, k], rows["colour"][:, k] = np.divmod(rest, len(COLOURS))


def compose_one(rows: np.ndarray) -> None:
    rows["count"] = 1
    thing, rows["cell"][:, 0] = np.divmod(rows["key"], PLACES**2)
    spell(rows, 0, thing)


def compose_pairs(rows: np.ndarray) -> None:
    rows["count"] = 2
    both, across = np.divmod(rows["key"], 2)
    rows["across"] = across == 1
    for k, thing in enumerate(np.divmod(both, THINGS)):
        spell(rows, k, thing)


COMPOSE = {"one": compose_one, "pairs": compose_pairs}


def composed(rows: np.ndarray, side: str, rng: np.random.Generator) -> None:
    """Fill in `many`, so that counts tell nothing but themselves.

    Half of the scenes are for counting all shapes: 1 to 4 are equally frequent. In the others those of one colour or of one
    shape (`focus`) are counted: 0 to 3 are equally frequent. All but these numbers is drawn again until the key lies
    on the side, so that all sides have the same counts.
    """
    n, (colours, shapes) = len(rows), (len(COLOURS), len(SHAPES))
    of_shape = rng.random(n) < 0.5
    for_all = rng.random(n) < 0.5
    counted = np.where(for_all, 0, rng.integers(0, MOST, n))
    rows["count"] = rng.integers(np.maximum(counted, 1), MOST + 1)
    rows["size"] = rng.integers(0, len(SIZES), (n, MOST))
    table, left = sides("many"), np.arange(n)
    while m := len(left):
        focus = np.where(
            of_shape[left], rng.integers(colours, colours + shapes, m), rng.integers(0, colours, m)
        )
        focus = np.where(for_all[left], -1, focus)
        wanted, there = (np.arange(MOST) < many[left, None] for many in (counted, rows["count"]))
        colour = of_focus(rng, focus, colours, wanted)
        shape = of_focus(rng, np.where(focus < colours, -1, focus - colours), shapes, wanted)
        cell = rng.random((m, MOST)).argsort(1)
        key = (np.where(there, colour * shapes + shape + 1, 0) * (colours * shapes + 1) ** cell).sum(1)
        for name, values in (
            ("focus", focus),
            ("colour", colour),
            ("shape", shape),
            ("cell", cell),
            ("key", key),
        ):
            rows[name][left] = values
        left = left[table[key] != list(SIDES).index(side)]


def of_focus(rng: np.random.Generator, focus: np.ndarray, kinds: int, wanted: np.ndarray) -> np.ndarray:
    """(n, MOST) numbers below `kinds`: the focus where wanted and any other elsewhere; any where it is -1 or too high."""
    free, other = rng.integers(0, kinds, wanted.shape), 1 + rng.integers(0, kinds - 1, wanted.shape)
    focus = focus[:, None]
    chosen = np.where(wanted, focus, (focus + other) % kinds)
    return np.where((focus >= 0) & (focus < kinds), chosen, free)


def arrange(kind: str, rows: np.ndarray, rng: np.random.Generator) -> None:
    """Fill in all that the key leaves open: radii, centres, shades and the ground."""
    n = len(rows)
    radius = rows["radius"] = np.array(RADII)[rows["size"], rng.integers(0, 2, (n, MOST))]
    PLACE[kind](rows, radius, rng)
    shade = rng.integers(-SHADES, SHADES + 1, (n, MOST, 3))
    rows["rgb"] = (np.array([*COLOURS.values()])[rows["colour"]] + shade).clip(0, 255)
    low, high = np.array(GROUNDS)[rng.integers(0, len(GROUNDS), n)].T
    rows["ground"] = rng.integers(low, high + 1)


def place_one(rows: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> None:
    """Inside the cell, which never has a centre of another one of the same radius."""
    wide = (PIXELS - 2 - 2 * radius) // PLACES
    for name, at in (("x", rows["cell"] % PLACES), ("y", rows["cell"] // PLACES)):
        rows[name] = radius + 1 + at * wide + rng.integers(0, wide)


def place_pairs(rows: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> None:
    """One in each half, along the other direction apart by less than half of that."""
    half = PIXELS // 2
    along = rng.integers(radius + 1, half - radius) + half * (np.arange(MOST) == 1)
    apart = (along[:, 1] - along[:, 0]) // 2 - (RADII[1][1] - RADII[0][0])
    beside = rng.integers(radius + 1, PIXELS - 1 - radius)
    moved = beside[:, 0] + rng.integers(-apart, apart + 1)
    beside[:, 1] = moved.clip(radius[:, 1] + 1, PIXELS - 2 - radius[:, 1])
    across = rows["across"][:, None]
    rows["x"], rows["y"] = np.where(across, along, beside), np.where(across, beside, along)


def place_many(rows: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> None:
    """Inside the quarter."""
    half = PIXELS // 2
    for name, at in (("x", rows["cell"] % 2), ("y", rows["cell"] // 2)):
        rows[name] = at * half + rng.integers(radius + 1, half - radius)


PLACE = {"one": place_one, "pairs": place_pairs, "many": place_many}
