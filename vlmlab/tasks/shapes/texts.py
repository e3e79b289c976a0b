"""What is true of a scene, in words: captions, sentences, names; and what is not, in captions with noise."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from .composition import COLOURS, MOST, SHAPES, SIZES, Scene, Thing, parse, scene
from .pixels import mask

COLOUR = tuple(COLOURS)
NUMBERS = ("zero", "one", "two", "three", "four")
RELATIONS = {True: ("left of", "right of"), False: ("above", "below")}  # by `across`
NOISE = 1  # of the seed of the noise
FLIPS = {
    "one": ("colour", "shape"),
    "pairs": ("size", "colour", "shape", "order"),
    "many": ("colour", "shape", "count"),
}


def name(thing: Thing, sized: bool = False) -> str:
    """'red circle', or 'small red circle'."""
    return f"{SIZES[thing.size]} " * sized + f"{COLOUR[thing.colour]} {SHAPES[thing.shape]}"


def with_article(words: str) -> str:
    """'a red circle', 'an orange circle'."""
    return f"a{'n' * words.startswith('orange')} {words}"


def groups(of: Scene) -> list[list[Thing]]:
    """The shapes of `many` of one colour and shape, in the order of both."""
    found: dict[tuple[int, int], list[Thing]] = {}
    for thing in sorted(of.things, key=lambda t: t.kind):
        found.setdefault(thing.kind, []).append(thing)
    return [*found.values()]


def shown(of: Scene) -> list[tuple[str, list[Thing]]]:
    """What the caption names, in its order, and the shapes meant: 'red circle', 'small red circle', 'two red circles'."""
    if of.kind == "many":
        return [(f"{NUMBERS[len(g)]} {name(g[0])}{'s' * (len(g) > 1)}", g) for g in groups(of)]
    order = of.things[::-1] if of.swapped else of.things
    return [(name(thing, sized=of.kind == "pairs"), [thing]) for thing in order]


def caption(of: Scene) -> str:
    """'a red circle', 'a small red circle left of a large blue heart', 'two red circles and one blue heart'."""
    names = [said for said, _ in shown(of)]
    if of.kind == "one":
        return with_article(names[0])
    if of.kind == "pairs":
        return f"a {names[0]} {RELATIONS[of.across][of.swapped]} a {names[1]}"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def captions(of: Scene) -> set[str]:
    """All captions that are true: of `pairs` both ways round."""
    return {caption(of), caption(dataclasses.replace(of, swapped=not of.swapped))}


def sentences(of: Scene) -> tuple[str, ...]:
    """A document: of `pairs` the left or upper shape, the other, and how they stand; of the others what is there."""
    if of.kind == "one":
        return (f"there is {caption(of)}",)
    if of.kind == "many":
        return tuple(f"there {'are' if len(things) > 1 else 'is'} {said}" for said, things in shown(of))
    first, second = (name(thing, sized=True) for thing in of.things)
    return f"a {first}", f"a {second}", f"the {first} is {RELATIONS[of.across][0]} the {second}"


def sentences_of(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """The document of each scene, see `sentences`."""
    return [sentences(scene(id)) for id in ids]


def masks(id: str) -> np.ndarray:
    """bool (name, 64, 64): the pixels of what each name in `shown` means."""
    return np.stack([np.any([mask(thing) for thing in things], axis=0) for _, things in shown(scene(id))])


def facts(text: str) -> dict[str, set[str]]:
    """What a text of these scenes says there is: {"objects", "colours", "shapes", "counts"}, the last with the number
    as in 'two red circle'; words that mean nothing here are skipped. For `scores.captions.hallucination`:

    >>> hallucination([facts(t)["colours"] for t in said], [facts(t)["colours"] for t in true])
    """
    found = re.findall(
        rf"(?:\b({'|'.join(NUMBERS)}|an?|the)\s+)?(?:(?:{'|'.join(SIZES)})\s+)?"
        rf"\b({'|'.join(COLOUR)})\s+({'|'.join(SHAPES)})s?\b",
        text.lower(),
    )
    seen = Counter()
    for number, colour, shape in found:
        seen[f"{colour} {shape}"] += NUMBERS.index(number) if number in NUMBERS else 1
    return {
        "objects": set(seen),
        "colours": {colour for _, colour, _ in found},
        "shapes": {shape for _, _, shape in found},
        "counts": {f"{NUMBERS[min(n, MOST)] if n <= MOST else n} {what}" for what, n in seen.items()},
    }


def with_noise(ids: Iterable[str], share: float) -> tuple[list[str], list[str]]:
    """Captions of which about `share` are wrong, and what is wrong with each: "" (true), "replaced" (the caption of
    another scene) or "flipped" (one colour, shape, size, count or side changed). A function of each id alone."""
    texts, flaws = [], []
    for id in ids:
        kind, side, seed, i = parse(id)
        rng, own = np.random.default_rng([seed, i, NOISE]), scene(id)
        drawn, flaw, text = rng.random(), "", caption(own)
        if drawn < share:
            flaw = "replaced" if drawn < share / 2 else "flipped"
            true = captions(own)
            while text in true:
                other = (
                    scene(f"{kind}/{side}/{seed}.{i + rng.integers(1, 1000)}")
                    if flaw == "replaced"
                    else flipped(own, rng)
                )
                text = caption(other)
        texts.append(text)
        flaws.append(flaw)
    return texts, flaws


def flipped(of: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one thing about it changed, as far as its caption goes."""
    what, k = str(rng.choice(FLIPS[of.kind])), int(rng.integers(len(of.things)))
    if what == "order":
        return dataclasses.replace(of, things=of.things[::-1])
    if what == "count":
        more = len(of.things) < MOST and (len(of.things) == 1 or rng.random() < 0.5)
        return dataclasses.replace(
            of, things=(*of.things, of.things[k]) if more else of.things[:k] + of.things[k + 1 :]
        )
    kinds = len({"size": SIZES, "colour": COLOUR, "shape": SHAPES}[what])
    value = (getattr(of.things[k], what) + 1 + rng.integers(kinds - 1)) % kinds
    things = list(of.things)
    things[k] = things[k]._replace(**{what: int(value)})
    same = of.kind == "pairs" and things[0][:3] == things[1][:3]  # no true caption names one thing twice
    return of if same else dataclasses.replace(of, things=tuple(things))
