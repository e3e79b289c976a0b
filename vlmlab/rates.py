"""The learning rate over the steps of a stage."""

import math
from collections.abc import Callable


def half_cosine(steps: int, warmup: int) -> Callable[[int, float], float]:
    """(step, lr) -> rate: it rises over `warmup` steps, and falls along half a cosine to 0 after `steps`."""

    def rate(step: int, lr: float) -> float:
        return lr * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))

    return rate
