"""Retrieval: which text belongs to the image, which image to the text?

A test must have captions (`Captions`), one or several per image. A learner must offer `encode_image(images)` and
`encode_text(texts)` -> (batch, joint), whose cosine is the similarity (where `encode_image` returns several vectors
by name, "cls" is the image's), or what classification asks for: then each text is a class.

i2t R@k, t2i R@k   k = 1, 5, 10: share of queries with a right item among the k most similar ones; the row of k = 1
                   keeps where each query's right items stand, see `unpacked`
i2t median rank    median over queries of the rank, from 1, of their first right item; also t2i, and the mean rank
mean R             mean of the six R@k (a sixth of what is called RSUM); n counts images

Equal similarities are in no order: R@k is the expectation over random orders of tied items, and the rank the
expected rank. So a learner that sees no difference scores chance, and texts that two images share harm neither.
"""

import base64
import zlib

import numpy as np

from ..tasks.captions import Captions
from ..tasks.images import Images
from ..tasks.split import Classes
from . import classification
from .asking import Pictures, finite

OFFERS = (("encode_image", "encode_text"), *classification.OFFERS)
KS = (1, 5, 10)
TEXTS = 256  # encoded at a time
QUERIES = 1024  # compared at a time
DRAWN = 100  # at a time


def fits(test: Images) -> bool:
    return isinstance(test, Captions)


def ask(learner, test: Captions, pictures: Pictures, rules: dict[str, str | None]) -> dict[str, np.ndarray]:
    """rule -> float32 similarity (image, text). Equal texts are encoded once, so that they tie."""
    texts = list(dict.fromkeys(test.texts))
    column = {text: i for i, text in enumerate(texts)}
    order = [column[text] for text in test.texts]
    if not callable(getattr(learner, "encode_text", None)):
        found = classification.logits(learner, test, Classes(tuple(texts), "{}"), pictures, rules)
        return {rule: values[:, order] for rule, values in found.items()}
    images = unit(image_vectors(learner.encode_image(batch)) for batch in pictures(test))
    words = unit(learner.encode_text(texts[at : at + TEXTS]) for at in range(0, len(texts), TEXTS))
    similarity = (images @ words.T)[:, order]
    finite(learner, test, similarities=similarity)
    return dict.fromkeys(rules, similarity)


def image_vectors(z):
    """(batch, joint) of what `encode_image` returns."""
    return z["cls"] if isinstance(z, dict) else z


def unit(parts) -> np.ndarray:
    """float32 (n, joint) rows of length 1 of tensors (batch, joint), one after the other."""
    vectors = np.concatenate([part.float().cpu().numpy() for part in parts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(name: str, test: Captions, similarity: np.ndarray) -> list[dict]:
    """Rows of both directions; n counts the queries."""
    images = np.arange(len(test))
    found = []
    for direction, matrix, query, item in (
        ("i2t", similarity, images, test.image_of),
        ("t2i", similarity.T, test.image_of, images),
    ):
        counted, n = places(matrix, query, item), len(query)
        values = {f"R@{k}": 100 * float(recall_at(counted, k).mean()) for k in KS}
        values["median rank"] = float(np.median(first_rank(counted)))
        values["mean rank"] = float(first_rank(counted).mean())
        found += [
            {"split": name, "metric": f"{direction} {metric}", "value": value, "n": n}
            for metric, value in values.items()
        ]
        found[-len(values)]["places"] = packed(counted)
    six = [row["value"] for row in found if "R@" in row["metric"]]
    return [*found, {"split": name, "metric": "mean R", "value": float(np.mean(six)), "n": len(test)}]


def packed(places: np.ndarray) -> str:
    """int64 (query, 3) as text, as `unpacked` reads it."""
    return base64.b64encode(zlib.compress(places.astype("<u4").tobytes())).decode()


def unpacked(text: str, n: int) -> np.ndarray:
    """The `places` of n queries, int64 (query, 3). ValueError for a text that is none, or of other queries.

    >>> recall_at(unpacked(row["places"], row["n"]), 5)  # of each query
    """
    try:
        values = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<u4")
    except zlib.error as e:
        raise ValueError(f"the places of {n} queries cannot be read: {e}") from None
    if values.size != 3 * n:
        raise ValueError(f"the places of {values.size / 3:g} queries are kept, expected those of {n}")
    return values.reshape(n, 3).astype(np.int64)


def bootstrap(values: np.ndarray, image_of: np.ndarray, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """(..., draw) means of values (..., query) over images drawn with replacement, each with all its queries; float64.

    image_of: int (query,), the image of each query, itself in i2t. What is searched among stays whole. The same images are
    drawn for the same seed, so that the difference of two learners is that of their draws:

    >>> at_1 = [recall_at(places, 1) for places in (of_one, of_other)]  # both (query, 3), of one test
    >>> low, high = np.percentile(np.diff(bootstrap(np.stack(at_1), image_of), axis=0), [2.5, 97.5])
    """
    values, image_of = np.asarray(values, dtype=np.float64), np.asarray(image_of)
    if image_of.shape != values.shape[-1:]:
        raise ValueError(f"image_of has an image per query, got {image_of.shape} for values {values.shape}")
    _, image_of = np.unique(image_of, return_inverse=True)
    n = int(image_of.max(initial=-1)) + 1
    flat, counts = values.reshape(-1, len(image_of)), np.bincount(image_of, minlength=n)
    sums = np.stack([np.bincount(image_of, row, minlength=n) for row in flat]).reshape(*values.shape[:-1], n)
    rng, found = np.random.default_rng(seed), []
    for at in range(0, draws, DRAWN):
        times = rng.multinomial(n, np.full(n, 1 / n), size=min(DRAWN, draws - at)).T.astype(np.float64)
        found.append((sums @ times) / (counts @ times))
    return np.concatenate(found, axis=-1)


def places(similarity: np.ndarray, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Where each query's best right item stands: int64 (query, 3).

    similarity: (query, item); query, item: what each belongs to, an item is right where both are equal. Columns:
    wrong items above the best right one, wrong items tied with it, right items tied for best (itself included).
    """
    found = []
    for at in range(0, len(query), QUERIES):
        s = similarity[at : at + QUERIES]
        right = query[at : at + QUERIES, None] == item[None]
        best = np.where(right, s, -np.inf).max(1, keepdims=True)
        found.append(
            np.stack(
                [(~right & (s > best)).sum(1), (~right & (s == best)).sum(1), (right & (s == best)).sum(1)], 1
            )
        )
    return np.concatenate(found)


def recall_at(places: np.ndarray, k: int) -> np.ndarray:
    """(query,): the probability that a right item is among the first k, over random orders of tied items.

    With t wrong and r right items tied, and m places left for them: 1 - C(t, m) / C(t + r, m).
    """
    above, wrong, right = places.T
    missed = np.ones(len(places))
    for drawn in range(k):
        left = drawn < k - above
        missed = np.where(
            left, missed * np.maximum(wrong - drawn, 0) / np.maximum(wrong + right - drawn, 1), missed
        )
    return 1 - missed


def first_rank(places: np.ndarray) -> np.ndarray:
    """(query,): the expected rank, from 1, of the first right item over random orders of tied items."""
    above, wrong, right = places.T
    return above + (wrong + right + 1) / (right + 1)
