"""Label distributions: how much of each class is in the image?

A test must have labels and soft labels (`Split` with `distributions`). A learner must offer what classification
asks for; the softmax of its logits is its guess.

Rows of classification, and with the true shares d and the guessed ones g of an image, averaged over images (Geng
2016, "Label Distribution Learning", IEEE TKDE 28(7), Table 1):

chebyshev     max_j |d_j - g_j|                                   lower is better
clark         sqrt(sum_j (d_j - g_j)^2 / (d_j + g_j)^2)           lower
canberra      sum_j |d_j - g_j| / (d_j + g_j)                     lower
KL            sum_j d_j ln(d_j / g_j), in nats                    lower
cosine        sum_j d_j g_j / (|d| |g|)                           higher
intersection  sum_j min(d_j, g_j)                                 higher

A class with d_j = g_j = 0 adds nothing, as does one with d_j = 0 to KL.
"""

import base64

import numpy as np

from ..tasks.images import Images
from ..tasks.split import Split
from . import classification
from .classification import OFFERS, ask

__all__ = ["DISTANCES", "OFFERS", "ask", "distances", "fits", "packed", "rows", "softmax", "unpacked"]
DISTANCES = ("chebyshev", "clark", "canberra", "KL", "cosine", "intersection")


def fits(test: Images) -> bool:
    return isinstance(test, Split) and test.distributions is not None


def rows(name: str, test: Split, logits: np.ndarray) -> list[dict]:
    """Rows of classification, then one per distance; `values` says what each image has, see `unpacked`."""
    found = distances(test.distributions, softmax(logits))
    return classification.rows(name, test, logits) + [
        {"split": name, "metric": m, "value": float(v.mean()), "n": len(test), "values": packed(v)}
        for m, v in found.items()
    ]


def packed(values: np.ndarray) -> str:
    """float32 (image,) as text."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def unpacked(text: str, n: int) -> np.ndarray:
    """float64 (image,) of n images, as `packed` wrote it. ValueError for a text that is none, or of other images."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 4 * n:
        raise ValueError(f"{len(raw) / 4:g} values are kept, expected one for each of {n} images")
    return np.frombuffer(raw, "<f4").astype(np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 shares (image, class) of logits (image, class)."""
    from scipy.special import softmax

    return softmax(logits.astype(np.float64), axis=1)


def distances(true: np.ndarray, guess: np.ndarray) -> dict[str, np.ndarray]:
    """Metric -> (image,); true and guess: shares (image, class) of at least 0, rows sum to 1."""
    from scipy.special import rel_entr

    d, g = np.asarray(true, dtype=np.float64), np.asarray(guess, dtype=np.float64)
    apart, both = np.abs(d - g), d + g
    relative = np.divide(apart, both, out=np.zeros_like(apart), where=both > 0)
    return {
        "chebyshev": apart.max(1),
        "clark": np.sqrt((relative**2).sum(1)),
        "canberra": relative.sum(1),
        "KL": rel_entr(d, g).sum(1),
        "cosine": (d * g).sum(1) / (np.linalg.norm(d, axis=1) * np.linalg.norm(g, axis=1)),
        "intersection": np.minimum(d, g).sum(1),
    }
