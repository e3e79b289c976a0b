"""What several scores share: pictures beside their texts, and the wrong picture for a text."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ..learner import Learner
from ..tasks.images import Images

Pictures = Callable[[Images], Iterable]  # preprocessed batches (batch, 3, height, width), in order


def beside(pictures: Iterable, texts: Sequence[str]) -> Iterator[tuple]:
    """(batch of pictures, list of as many texts): picture i goes with text i."""
    at = 0
    for batch in pictures:
        yield batch, list(texts[at : at + len(batch)])
        at += len(batch)


def others(n: int) -> np.ndarray:
    """int64 (n,): another position for each of n, every one once, always the same; n must be 2 or more."""
    order = np.random.default_rng(0).permutation(n)
    other = np.empty(n, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return other


def joined(parts: Iterable) -> np.ndarray:
    """float64 array of tensors, one after the other."""
    return np.concatenate([part.double().cpu().numpy() for part in parts])


def finite(learner: Learner, test: Images, **found: np.ndarray) -> None:
    """FloatingPointError unless all answers are finite, naming what is not."""
    for name, values in found.items():
        if not np.isfinite(values).all():
            weight = learner.damaged_weight()
            why = (
                f"the weight {weight} of its model is not"
                if weight
                else "its training diverged or an image is not"
            )
            raise FloatingPointError(
                f"{type(learner).__name__} gives {name} that are not finite on {test}; {why}"
            )
