"""Few-shot sampling and the base/new division exactly as in CoOp's data code.

Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (few-shot) and "Conditional Prompt
Learning for Vision-Language Models" (base/new). Everything here works on lists of integer labels.
"""

import math
import random
from collections.abc import Sequence

MOST_REPEATED = 16  # beyond this many shots nothing is repeated
VAL_SHOTS = 4  # CoOp's validation set has at most this many images per class


def by_class(labels: Sequence[int]) -> dict[int, list[int]]:
    """label -> positions, with the labels in their order of first appearance."""
    groups: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        groups.setdefault(int(label), []).append(position)
    return groups


def few_shot(
    labels: Sequence[int],
    val_labels: Sequence[int],
    shots: int,
    seed: int,
    *,
    repeat: bool = False,
    classnames: Sequence[str] | None = None,
) -> tuple[list[int], list[int]]:
    """Positions of `shots` images per class in the train list and of min(shots, 4) in the val list.

    One stream `random.Random(seed)` walks the classes in order of first appearance, first train, then
    val. A class with fewer images than asked gives all of them and draws nothing. With `repeat` such
    a class is filled up by going through its images again, which is for sets whose images differ at
    every reading; a quarter of the shots must be distinct, and at most 16 shots are filled up.

    Raises ValueError, naming the class by `classnames` where given, when repetition may not fill it.
    """
    if shots < 1:
        raise ValueError(f"shots must be 1 or more, got {shots}")
    stream = random.Random(seed)
    train = [
        i
        for label, items in by_class(labels).items()
        for i in draw(stream, items, shots, repeat, classnames[label] if classnames else str(label))
    ]
    val = [i for items in by_class(val_labels).values() for i in draw(stream, items, min(shots, VAL_SHOTS))]
    return train, val


def draw(
    stream: random.Random, items: list[int], shots: int, repeat: bool = False, name: str = ""
) -> list[int]:
    """`shots` of `items`, or all of them, or, with `repeat`, all of them over and over."""
    n = len(items)
    if n >= shots:
        return stream.sample(items, shots)
    if not repeat:
        return items
    most = max(n, min(4 * n, MOST_REPEATED))
    if shots > most:
        raise ValueError(
            f"class {name!r} has {n} distinct training images, {shots} shots were asked; use at "
            f"most {most} (repeated images included), or shots=None for all images"
        )
    return [items[i % n] for i in range(shots)]


def base_new(labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The sorted labels of the train list, cut in two: the first ceil(n / 2) are base, the rest new."""
    ordered = sorted({int(x) for x in labels})
    middle = math.ceil(len(ordered) / 2)
    return ordered[:middle], ordered[middle:]
