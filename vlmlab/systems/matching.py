"""What ALBEF and BLIP learn of pairs: contrast with soft targets and a queue, hard negatives, re-ranking."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def contrast(
    fast: tuple[Tensor, Tensor],
    slow: tuple[Tensor, Tensor],
    queues: tuple[Tensor, Tensor],
    temperature: Tensor | float,
    alpha: Tensor | float,
) -> Tensor:
    """ITC: the mean over both directions of the cross-entropy to soft targets (Li et al. 2021, ALBEF, equation 6).

    fast, slow: unit features (batch, joint) of images and of texts, by the trained and by the momentum encoders; queues:
    earlier slow ones (size, joint). An image is compared with the slow texts of the batch and of the queue, a text with
    the images. Targets are (1 - alpha) the pair itself + alpha what the momentum encoders find similar.
    """
    total = 0.0
    for side, other in ((0, 1), (1, 0)):
        candidates = torch.cat([slow[other], queues[other]]).T
        with torch.no_grad():
            own = torch.eye(*(slow[side] @ candidates).shape, device=candidates.device)
            soft = (slow[side] @ candidates / temperature).softmax(1)
            target = alpha * soft + (1 - alpha) * own
        log_p = (fast[side] @ candidates / temperature).log_softmax(1)
        total = total - (target * log_p).sum(1).mean()
    return total / 2


def equal(texts: Sequence[str], device: torch.device | None = None) -> Tensor:
    """bool (text, text): which texts are the same, the diagonal always."""
    first = {text: i for i, text in reversed([*enumerate(texts)])}
    number = torch.tensor([first[text] for text in texts], device=device)
    return number[:, None] == number


def hard_negatives(logits: Tensor, same: Tensor, floor: float = 0.0) -> Tensor:
    """int64 (query,): for each query a wrong item, drawn in proportion to the softmax of its logits (query, item) over
    those that are not `same`, plus `floor`; -1 where all are the same."""
    none = same.all(1)
    weights = logits.masked_fill(same, -torch.inf).masked_fill(none[:, None], 0).softmax(1)
    weights = (weights + floor).masked_fill(same & ~none[:, None], 0)
    return torch.multinomial(weights, 1)[:, 0].masked_fill(none, -1)


def to_match(logits: Tensor, same: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of images and of texts to be told apart, and whether they belong together (1 or 0): all true pairs of
    the batch, each image with a hard wrong text, each text with a hard wrong image. logits (image, text)."""
    rows = torch.arange(len(logits), device=logits.device)
    text = hard_negatives(logits, same, floor)
    image = hard_negatives(logits.T, same.T, floor)
    images, texts = torch.cat([rows, rows, image]), torch.cat([rows, text, rows])
    labels = (torch.arange(len(images), device=logits.device) < len(rows)).long()
    there = (images >= 0) & (texts >= 0)
    return images[there], texts[there], labels[there]


def reranked(
    similarity: np.ndarray, match: Callable[[np.ndarray, np.ndarray], np.ndarray], k: int
) -> np.ndarray:
    """Similarities (query, item) in which the k best items of each query are ordered by `match` and stay above the rest.

    match: (queries, items), int arrays of the pairs asked about -> a score for each. For `scores.retrieval.rows`.
    """
    k = min(k, similarity.shape[1])
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    rows = np.repeat(np.arange(len(similarity)), k)
    asked = match(rows, best.ravel()).reshape(best.shape).astype(np.float64)
    found = similarity.astype(np.float64) - similarity.max() - 1  # below 0, where the k best will stand
    np.put_along_axis(found, best, asked - asked.min(), axis=1)
    return found
