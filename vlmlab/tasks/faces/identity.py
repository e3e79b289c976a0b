"""Whose face it is, and on what ground: all that says nothing about what it feels."""

import dataclasses

import numpy as np

Colour = tuple[float, float, float]  # 0 to 1


def rgb(*texts: str) -> tuple[Colour, ...]:
    """Colours written as in HTML."""
    return tuple(tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)) for text in texts)


YELLOWS = rgb("#ffd93b", "#fcc21b", "#ffb02e", "#ffcc4d")
SKINS = rgb("#f7d7c4", "#d8b094", "#bb9167", "#8e562e", "#613d30")  # the five tones of emoji
ODD = rgb("#c5a3e0", "#dcdcdc", "#f4b6c2")
HAIRS = rgb("#2b2b2b", "#4e342e", "#8d5524", "#d9a441", "#b5482a", "#9e9e9e", "#5c6bc0")
INK = rgb("#4a3420")[0]
HAIR_STYLES = ("short", "long", "curly", "spikes", "bun")
GLASSES = ("round", "square")
OUTLINES = (0.0, 0.0, 0.9)


@dataclasses.dataclass(frozen=True)
class Identity:
    """Colours as (r, g, b); lengths in pixels of a frame of 64.

    hair, glasses: a style or ""; outline: width of the line around the head, 0 for none; whites: whether the eyes
    show whites around pupils or are dark ovals; round: exponent of the head's outline, 2 for an ellipse. ground: the
    colours behind the face, one or two that blend along `angle`.
    """

    skin: Colour
    ink: Colour
    hair: str
    hair_colour: Colour
    glasses: str
    outline: float
    whites: bool
    nose: bool
    width: float
    height: float
    round: float
    eye_gap: float
    eye_y: float
    eye_size: float
    brow_width: float
    mouth_y: float
    mouth_size: float
    ground: tuple[Colour, ...]
    angle: float


def one(rng: np.random.Generator, choices: tuple):
    return choices[rng.integers(len(choices))]


def drawn(rng: np.random.Generator) -> Identity:
    """A random identity: most faces are yellow and bald, as emoji are."""
    yellow = rng.random() < 0.7
    skin = one(rng, YELLOWS if yellow else SKINS if rng.random() < 0.85 else ODD)
    hairy = rng.random() < (0.15 if yellow else 0.8)
    return Identity(
        skin=skin,
        ink=INK if sum(skin) > 1.3 else (0.1, 0.07, 0.05),
        hair=one(rng, HAIR_STYLES) if hairy else "",
        hair_colour=one(rng, HAIRS),
        glasses=one(rng, GLASSES) if rng.random() < 0.15 else "",
        outline=one(rng, OUTLINES),
        whites=bool(rng.random() < 0.55),
        nose=bool(rng.random() < (0.1 if yellow else 0.6)),
        width=rng.uniform(23.0, 27.0),
        height=rng.uniform(24.5, 27.5),
        round=rng.uniform(2.0, 2.5),
        eye_gap=rng.uniform(8.8, 10.8),
        eye_y=rng.uniform(-5.5, -3.5),
        eye_size=rng.uniform(0.9, 1.15),
        brow_width=rng.uniform(1.7, 2.6),
        mouth_y=rng.uniform(11.5, 13.0),
        mouth_size=rng.uniform(0.9, 1.1),
        ground=ground(rng, skin),
        angle=rng.uniform(0, 2 * np.pi),
    )


def ground(rng: np.random.Generator, skin: Colour) -> tuple[Colour, ...]:
    """White, or of six colours the one or two that differ most from the skin."""
    kind = rng.random()
    if kind < 0.4:
        return ((1.0, 1.0, 1.0),)
    colours = 0.25 + 0.75 * rng.random((6, 3))
    order = np.argsort(-np.abs(colours - skin).sum(1))
    return tuple(tuple(colours[i].tolist()) for i in order[: 1 if kind < 0.7 else 2])
