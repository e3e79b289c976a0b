"""The shapes of a face, back to front. Points are pixels of a frame of 64 around the head's centre, y downwards."""

import numpy as np

from .drawing import Shape
from .identity import Colour, Identity

TURN = np.linspace(0, 2 * np.pi, 33)  # closed: the last point is the first
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], 1)
ACROSS = np.linspace(-1, 1, 15)  # along a mouth or an eye
ROUND = np.sqrt(1 - ACROSS**2)
WHITE, BLACK = (1.0, 1.0, 1.0), (0.15, 0.1, 0.08)
MOUTH, TONGUE, BLUE, PINK = (0.38, 0.08, 0.12), (0.91, 0.36, 0.42), (0.36, 0.66, 0.96), (0.96, 0.4, 0.4)
TINTS = {"red": (0.9, 0.2, 0.12), "green": (0.5, 0.74, 0.22)}
DROP = np.stack([0.5 * np.sin(TURN) * np.sin(TURN / 2) ** 1.5, -0.5 * np.cos(TURN)], 1)  # point up, 1 high


def mix(a: Colour, b: Colour, share: float) -> Colour:
    share = min(max(share, 0.0), 1.0)
    return tuple((1 - share) * x + share * y for x, y in zip(a, b))


def face(who: Identity, feels: dict[str, float]) -> list[Shape]:
    """All shapes of a face."""
    found = [*back_hair(who), *head(who, feels), *front_hair(who), *signs_below(who, feels)]
    found += [
        *eyes(who, feels),
        *brows(who, feels),
        *mouth(who, feels),
        *signs_above(who, feels),
        *glasses(who),
    ]
    return found


def outline_of(who: Identity, grow: float = 0.0) -> np.ndarray:
    """The head's outline, `grow` pixels outwards."""
    bent = np.sign(CIRCLE) * np.abs(CIRCLE) ** (2 / who.round)
    return bent * (who.width + grow, who.height + grow)


def head(who: Identity, feels: dict[str, float]) -> list[Shape]:
    """The head in its colour, which blood or its lack changes."""
    skin = who.skin
    for name, colour in TINTS.items():
        skin = mix(skin, colour, 0.7 * feels[name])
    edge = mix(skin, BLACK, 0.6) if who.outline else None
    shape = outline_of(who)
    found = [Shape("rest", shape, skin, edge, who.outline)]
    if feels["blue"] > 0.05:
        for level in (-0.2, -0.45):
            brow = shape[shape[:, 1] < level * who.height]
            found.append(Shape("rest", brow, BLUE, alpha=min(0.5, 0.5 * feels["blue"])))
    return found


def back_hair(who: Identity) -> list[Shape]:
    if who.hair == "long":
        around = outline_of(who, 3.0)
        around[:, 1] *= np.where(around[:, 1] > 0, 0.95, 1.0)
        around[:, 0] *= np.where(around[:, 1] > 0, 1.06, 1.0)
        return [Shape("rest", around, who.hair_colour)]
    if who.hair == "bun":
        return [Shape("rest", CIRCLE * 7 + (0, -who.height - 2), who.hair_colour)]
    return []


def front_hair(who: Identity) -> list[Shape]:
    """What grows over the forehead."""
    if not who.hair:
        return []
    rim = outline_of(who, 1.2)
    top = rim[rim[:, 1] < -0.45 * who.height]
    if who.hair == "curly":
        return [Shape("rest", CIRCLE * 5.5 + point, who.hair_colour) for point in top[::2]]
    if who.hair == "spikes":
        far = np.where(np.arange(len(top))[:, None] % 2, 1.16, 0.95)
        return [Shape("rest", np.concatenate([top * far, top[::-1] * 0.82]), who.hair_colour)]
    parting = np.stack([top[::-1, 0] * 0.96, np.full(len(top), -0.62 * who.height)], 1)
    parting[:, 1] += 3.5 * (parting[:, 0] / who.width) ** 2
    return [Shape("rest", np.concatenate([top, parting]), who.hair_colour)]


def eyes(who: Identity, feels: dict[str, float]) -> list[Shape]:
    return [shape for side in (-1, 1) for shape in eye(who, feels, side)]


def eye(who: Identity, feels: dict[str, float], side: int) -> list[Shape]:
    """One eye: between the lids whites with a pupil, or a dark oval."""
    at = np.array([side * who.eye_gap, who.eye_y])
    k = who.eye_size * (1.0 if who.whites else 0.9)
    wide = 5.2 * k if who.whites else 3.4 * k
    up = max(4.3 * k + feels["lid_upper"], 0.7)
    low = max(4.3 * k - feels["lid_lower"], 0.9 - up)
    upper = np.stack([wide * ACROSS, -up * ROUND], 1)
    lower = np.stack([wide * ACROSS, low * ROUND], 1)
    lids = np.concatenate([upper, lower[::-1]])
    if not who.whites:
        found = [Shape("eyes", lids + at, BLACK, BLACK, 0.8)]
        if up + low > 6:
            light = CIRCLE * 0.9 + (-0.3 * wide + 0.5 * feels["gaze"], -0.4 * up)
            found.append(Shape("eyes", light + at, WHITE))
        return found
    radius = max(2.9 * k + feels["pupil"], 0.8)
    pupil = CIRCLE * radius + (feels["gaze"], 0.0)
    pupil[:, 1] = np.clip(
        pupil[:, 1], np.interp(pupil[:, 0], *upper.T), np.interp(pupil[:, 0], *lower.T)
    )  # the lids cover it
    edge = np.concatenate([upper, lower[::-1], upper[:1]])
    return [
        Shape("eyes", lids + at, WHITE),
        Shape("eyes", pupil + at, BLACK),
        Shape("eyes", edge + at, None, mix(who.skin, BLACK, 0.65), 0.8),
        Shape("eyes", upper + at, None, BLACK, 1.3),
    ]


def brows(who: Identity, feels: dict[str, float]) -> list[Shape]:
    found = []
    for side in (-1, 1):
        up = feels["brow_skew"] if side > 0 else 0.0
        y = who.eye_y - 4.9 * who.eye_size - 3.4 - up
        inner = (who.eye_gap - 4.6 + feels["brow_gap"], y - feels["brow_inner"])
        outer = (who.eye_gap + 4.8, y - feels["brow_outer"] + 0.6)
        t = np.linspace(0, 1, 9)[:, None]
        line = (1 - t) * inner + t * np.array(outer) - 4 * t * (1 - t) * (0, 1.3)
        found.append(Shape("brows", line * (side, 1), None, who.ink, who.brow_width))
    return found


def mouth(who: Identity, feels: dict[str, float]) -> list[Shape]:
    """Lips from corner to corner, and between them teeth and a tongue."""
    half = max(who.mouth_size * (8.0 + feels["mouth_width"]), 2.0)
    opening = max(feels["mouth_open"], 0.0) * who.mouth_size
    lift = feels["mouth_curve"] * (ACROSS**2 - 0.4) + feels["mouth_skew"] * ACROSS.clip(0) ** 2
    middle, x = who.mouth_y - lift, half * ACROSS
    upper, lower = middle - 0.4 * opening * ROUND, middle + 0.6 * opening * ROUND
    between = lambda a, b: np.concatenate([np.stack([x, a], 1), np.stack([x, b], 1)[::-1]])
    found = []
    if opening > 0.8:
        found.append(Shape("mouth", between(upper, lower), MOUTH))
        if (down := feels["teeth"] * min(0.42 * opening, 3.0)) > 0.3:
            found.append(Shape("mouth", between(upper, upper + down * ROUND), WHITE))
        if half > 0.7 * opening > 3:
            high = np.maximum(lower - 0.4 * opening * (1 - (ACROSS / 0.75) ** 2).clip(0), upper)
            found.append(Shape("mouth", between(high, lower), TONGUE))
    edge = between(upper, lower)
    found.append(
        Shape("mouth", np.concatenate([edge, edge[:1]]), None, who.ink, 1.1 if opening > 0.8 else 2.2)
    )
    if feels["tongue"] > 0.15:
        out = CIRCLE * (3.2, 3.6 * feels["tongue"]) + (0, middle[7] + 0.3 * opening + 2.4 * feels["tongue"])
        found.append(Shape("mouth", out, TONGUE, mix(TONGUE, BLACK, 0.4), 0.8))
    if feels["dimple"] > 0.1:
        bow = np.array([(1.6, -2.0), (2.7, 0.0), (1.6, 2.0)]) * feels["dimple"] + (half + 1.2, middle[-1])
        found.append(Shape("mouth", bow, None, who.ink, 1.2))
    return found


def signs_below(who: Identity, feels: dict[str, float]) -> list[Shape]:
    """What eyes and mouth are drawn over: cheeks and nose."""
    found = []
    if feels["blush"] > 0.05:
        for side in (-1, 1):
            cheek = CIRCLE * (4.6, 2.8) + (side * (who.eye_gap + 5), who.eye_y + 10)
            found.append(Shape("rest", cheek, PINK, alpha=min(0.5, 0.6 * feels["blush"])))
    shade = mix(who.skin, BLACK, 0.55)
    if who.nose:
        bridge = np.array([(0.6, -1.0), (1.8, 3.6), (-0.9, 4.2)])
        found.append(Shape("rest", bridge, None, shade, 1.1))
    if (size := feels["wrinkle"]) > 0.1:
        for y in (-3.0, -0.6, 1.8):
            line = np.array([(-2.4 * size, y + 1), (0, y), (2.4 * size, y + 1)])
            found.append(Shape("rest", line, None, shade, 1.0 * size))
        for side in (-1, 1):
            fold = np.array([(3.0, 2.5), (5.5, 5.0), (7.5, 8.5)]) * (side, 1)
            found.append(Shape("rest", fold, None, shade, 1.2 * size))
    return found


def signs_above(who: Identity, feels: dict[str, float]) -> list[Shape]:
    """Drops: tears below the eyes, sweat at the temple."""
    edge, found = mix(BLUE, BLACK, 0.35), []
    for side, size in ((-1, feels["tears"]), (1, 2 * feels["tears"] - 1)):
        if size > 0.15:
            drop = DROP * (9 * size, 10 * size) + (side * (who.eye_gap + 1.5), who.eye_y + 4.5 + 5 * size)
            found.append(Shape("rest", drop, BLUE, edge, 0.6))
    if (size := feels["sweat"]) > 0.15:
        drop = DROP * (9 * size, 10 * size) + (who.width - 5.5, -0.52 * who.height)
        found.append(Shape("rest", drop, BLUE, edge, 0.6))
    return found


def glasses(who: Identity) -> list[Shape]:
    if not who.glasses:
        return []
    bent = CIRCLE if who.glasses == "round" else np.sign(CIRCLE) * np.abs(CIRCLE) ** 0.5
    frame = np.concatenate([bent, bent[:1]]) * (7.6, 7.4)
    found = [
        Shape("rest", frame + (side * who.eye_gap, who.eye_y + 0.5), None, BLACK, 1.3) for side in (-1, 1)
    ]
    inner = who.eye_gap - 7.6
    return [*found, Shape("rest", np.array([(-inner, who.eye_y), (inner, who.eye_y)]), None, BLACK, 1.3)]
