"""The learning-rate schedule of the CoOp family, in closed form."""

import math


def learning_rates(epochs: int, lr: float, warmup_epochs: int = 1, warmup_lr: float = 1e-5) -> list[float]:
    """One rate per epoch: constant warm-up, then a cosine that starts afresh at `lr`.

    lr(e) = warmup_lr for e < w, lr (1 + cos(pi (e - w) / epochs)) / 2 after it; the cosine spans all
    `epochs`, so it never reaches zero (Dassl with WARMUP_RECOUNT).
    """

    def cosine(e: int) -> float:
        return lr * (1 + math.cos(math.pi * (e - warmup_epochs) / epochs)) / 2

    return [warmup_lr if e < warmup_epochs else cosine(e) for e in range(epochs)]
