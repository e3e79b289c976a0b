"""Language loss: does the learner read the image when it predicts the text?

A test must have captions of two images or more (`Captions`). A learner must offer `log_likelihood(images, texts) ->
(sums, tokens)`: per text the sum of the natural logarithms of its tokens' probabilities and the number of these
tokens, both (batch,); images is None where the text is to be read without one.

nll_true_image      negative log-likelihood per token, in nats, with the image that the text belongs to
nll_shuffled_image  with an image of another text, always the same
nll_no_image        without

n counts tokens. A learner that uses the image has true < no image <= shuffled; one that ignores it has all equal.
"""

import numpy as np

from ..tasks.captions import Captions
from ..tasks.images import Images
from .asking import Pictures, beside, finite, joined, others

OFFERS = (("log_likelihood",),)
TEXTS = 64  # read at a time without an image


def fits(test: Images) -> bool:
    return isinstance(test, Captions) and len(test) > 1


def ask(
    learner, test: Captions, pictures: Pictures, rules: dict[str, str | None]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """rule -> image -> (sums, tokens), each (text,)."""
    texts = test.texts
    shown = {
        "true_image": beside(pictures(test.bare(test.image_of)), texts),
        "shuffled_image": beside(pictures(test.bare(others(len(test))[test.image_of])), texts),
        "no_image": ((None, list(texts[at : at + TEXTS])) for at in range(0, len(texts), TEXTS)),
    }
    found = {}
    for image, batches in shown.items():
        sums, tokens = zip(*(learner.log_likelihood(*batch) for batch in batches), strict=True)
        found[image] = joined(sums), joined(tokens)
        finite(learner, test, log_likelihoods=found[image][0])
    return dict.fromkeys(rules, found)


def rows(name: str, test: Captions, found: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[dict]:
    """A row per kind of image."""
    return [
        {"split": name, "metric": f"nll_{image}", "value": per_token(*both), "n": int(both[1].sum())}
        for image, both in found.items()
    ]


def per_token(sums: np.ndarray, tokens: np.ndarray) -> float:
    """Negative log-likelihood per token over all texts, in nats; sums, tokens: (text,)."""
    return float(-sums.sum() / tokens.sum())
