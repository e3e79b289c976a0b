"""Classification: which class is in the image?

A test must have labels (`Split`). A learner must offer `set_classes(names, template)`, `image_features(images)` and
`classify(features, rule, part) -> (batch, class)` logits.

accuracy           share of images whose highest logit is that of their class; its row keeps which they are
balanced_accuracy  mean of that share over the classes that are present
"""

import base64

import numpy as np

from ..tasks.images import Images
from ..tasks.split import Classes, Split
from .asking import Pictures, finite

OFFERS = (("set_classes", "image_features", "classify"),)


def fits(test: Images) -> bool:
    return isinstance(test, Split)


def ask(learner, test: Split, pictures: Pictures, rules: dict[str, str | None]) -> dict[str, np.ndarray]:
    """rule -> float32 logits (image, class), all from one pass over the images."""
    return logits(learner, test, test.classes, pictures, rules)


def logits(
    learner, test: Images, classes: Classes, pictures: Pictures, rules: dict[str, str | None]
) -> dict[str, np.ndarray]:
    """As `ask`, for any classes. FloatingPointError when they are not finite."""
    learner.set_classes(classes.names, classes.template)
    parts = {rule: [] for rule in rules}
    for images in pictures(test):
        z = learner.image_features(images)
        for rule, part in rules.items():
            parts[rule].append(learner.classify(z, rule, part).float().cpu().numpy())
    found = {rule: np.concatenate(part) for rule, part in parts.items()}
    for values in found.values():
        finite(learner, test, logits=values)
    return found


def rows(name: str, test: Split, logits: np.ndarray) -> list[dict]:
    """Rows of accuracy and balanced_accuracy; `right` of the first says which images, see `unpacked`."""
    found = {
        m: {"split": name, "metric": m, "value": v, "n": len(test)}
        for m, v in accuracies(logits, test.labels).items()
    }
    found["accuracy"]["right"] = packed(logits.argmax(1) == test.labels)
    return list(found.values())


def packed(right: np.ndarray) -> str:
    """bool (image,) as text, a bit an image."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, n: int) -> np.ndarray:
    """bool (image,) of n images, as `packed` wrote it. ValueError for a text that is none, or of other images."""
    bits = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(bits) != (n + 7) // 8:
        raise ValueError(f"{8 * len(bits)} answers are kept, expected one for each of {n} images")
    return np.unpackbits(bits, count=n).astype(bool)


def class_accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Class -> percent of its images that are right, for every class that is present; logits (image, class)."""
    right = logits.argmax(1) == labels
    return {int(c): 100 * float(right[labels == c].mean()) for c in np.unique(labels)}


def accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy and balanced_accuracy in percent; logits (image, class), labels (image,)."""
    return {
        "accuracy": 100 * float((logits.argmax(1) == labels).mean()),
        "balanced_accuracy": float(np.mean(list(class_accuracies(logits, labels).values()))),
    }
