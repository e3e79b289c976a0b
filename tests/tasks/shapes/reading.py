"""What a picture of shapes shows, read from its pixels alone: knows nothing of how it was drawn."""

import colorsys
import re

import numpy as np
from scipy import ndimage

# degrees of the colour circle up to which each name goes
HUES = (
    (15, "red"),
    (38, "orange"),
    (75, "yellow"),
    (190, "green"),
    (250, "blue"),
    (320, "purple"),
    (361, "red"),
)
NUMBERS = ("zero", "one", "two", "three", "four")


def colour(rgb):
    hue, saturation, _ = colorsys.rgb_to_hsv(*(np.asarray(rgb) / 255))
    assert saturation > 0.5
    return next(name for last, name in HUES if 360 * hue < last)


def outline(mask):
    """The shape of a mask that is cut to its box: full, wide at the bottom, the same upside down, or none of these."""
    if mask.all():
        return "square"
    if mask[-1].mean() > 0.9:
        return "triangle"
    return "circle" if (mask == mask[::-1]).mean() > 0.95 else "heart"


def read(picture):
    """Per shape {colour, shape, size, x, y, mask}, and the mask of the ground."""
    pixels = np.asarray(picture).astype(int)
    ink = pixels.max(2) - pixels.min(2) > 40  # grounds are grey
    assert len(np.unique(pixels[~ink], axis=0)) == 1
    parts, n = ndimage.label(ink, np.ones((3, 3)))
    found = []
    for k in range(1, n + 1):
        mask = parts == k
        colours = np.unique(pixels[mask], axis=0)
        assert len(colours) == 1
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        found.append(
            {
                "colour": colour(colours[0]),
                "shape": outline(cut),
                "size": "large" if cut.shape[1] > 19 else "small",
                "x": (columns[0] + columns[-1]) / 2,
                "y": (rows[0] + rows[-1]) / 2,
                "mask": mask,
            }
        )
    return found


def named(thing, words):
    """Whether the adjectives and the noun in `words` all hold."""
    return all(word.rstrip("s") in (thing["colour"], thing["shape"], thing["size"]) for word in words.split())


def holds(a, relation, b):
    dx, dy = a["x"] - b["x"], a["y"] - b["y"]
    if relation in ("left of", "right of"):
        return abs(dx) > 1.9 * abs(dy) and (dx < 0) == (relation == "left of")
    return abs(dy) > 1.9 * abs(dx) and (dy < 0) == (relation == "above")


def is_true(text, things):
    """Whether a caption, or a sentence of a document, says what is there, and all of it where it counts."""
    sentence = re.match("there (is|are) ", text)
    text = text[sentence.end() :] if sentence else text
    if found := re.fullmatch(
        r"(?:an?|the) (\S+ \S+ \S+) (?:is )?(left of|right of|above|below) (?:an?|the) (.+)", text
    ):
        first, relation, second = found.groups()
        return any(
            named(a, first) and named(b, second) and holds(a, relation, b) for a in things for b in things
        )
    if re.match("an? ", text):
        return any(named(thing, text.partition(" ")[2]) for thing in things)
    said = {}
    for part in re.split(", | and ", text):
        number, _, what = part.partition(" ")
        said[what] = NUMBERS.index(number)
    counted = {what: sum(named(thing, what) for thing in things) for what in said}
    return counted == said and (bool(sentence) or sum(said.values()) == len(things))


def answer(question, things):
    """The answer to a question, from what was read."""
    yes = lambda value: "yes" if value else "no"
    if found := re.fullmatch(r"is there an? (.+)\?", question):
        return yes(any(named(thing, found[1]) for thing in things))
    if found := re.fullmatch(r"is the (.+) (left of|right of|above|below) the (.+)\?", question):
        (a,), (b,) = ([thing for thing in things if named(thing, found[i])] for i in (1, 3))
        assert holds(a, found[2], b) != holds(b, found[2], a)
        return yes(holds(a, found[2], b))
    if found := re.fullmatch(r"how many (.+) are there\?", question):
        what = found[1].removesuffix("shapes").strip()
        return str(sum(named(thing, what) for thing in things))
    sides = {"left": ("x", min), "right": ("x", max), "top": ("y", min), "bottom": ("y", max)}
    if found := re.fullmatch(
        r"what (colour is the shape|shape is) (?:on|at) the (left|right|top|bottom)\?", question
    ):
        axis, best = sides[found[2]]
        return best(things, key=lambda thing: thing[axis])[found[1].split()[0]]
    found = re.fullmatch(r"what (colour|shape) (is|are) the (\S+)(?: ones?)?\?", question)
    meant = [thing for thing in things if named(thing, found[3])]
    assert (len(meant) > 1) == (found[2] == "are")
    (only,) = {thing[found[1]] for thing in meant}
    return only
