"""Pointing game: is the learner's map highest on the object that it was asked for?

A test must have captions and masks (`Captions` with `mask_of`). A learner must offer `relevance(images, texts) ->
(batch, rows, columns)`, a map of any grid; it is asked for every object shown, "a photo of a {}.".

pointing         share of objects whose map has its maximum on the object (Zhang et al. 2016, "Top-down Neural
                 Attention by Excitation Backprop"); of several maxima the share that is. Its row holds as `chance`
                 the object's share of the image
pointing_within  the same with a tolerance of a sixteenth of the image's width around the object
"""

import numpy as np

from ..tasks.captions import Captions
from ..tasks.images import Images
from .asking import Pictures, beside, finite, joined

OFFERS = (("relevance",),)
TEMPLATE = "a photo of a {}."
TOLERANCE = 1 / 16  # of the width; the published one is 15 pixels of about 240


def fits(test: Images) -> bool:
    return isinstance(test, Captions) and test.mask_of is not None


def objects(test: Captions) -> tuple[np.ndarray, list[str]]:
    """Of every object shown: the position of its image, and its name."""
    return np.repeat(np.arange(len(test)), [len(s) for s in test.shows]), [n for s in test.shows for n in s]


def ask(learner, test: Captions, pictures: Pictures, rules: dict[str, str | None]) -> dict[str, np.ndarray]:
    """rule -> float64 maps (object, rows, columns)."""
    images, names = objects(test)
    asked = beside(pictures(test.bare(images)), [TEMPLATE.format(name) for name in names])
    maps = joined(learner.relevance(*batch) for batch in asked)
    finite(learner, test, maps=maps)
    return dict.fromkeys(rules, maps)


def rows(name: str, test: Captions, maps: np.ndarray) -> list[dict]:
    """One row without and one with the tolerance."""
    masks = [mask for i in range(len(test)) for mask in test.masks(i)]
    found = []
    for metric, share in (("pointing", 0.0), ("pointing_within", TOLERANCE)):
        near = [grown(mask, share * mask.shape[1]) for mask in masks]
        value, chance = (100 * float(np.mean(x)) for x in (hits(maps, near), [m.mean() for m in near]))
        found.append({"split": name, "metric": metric, "value": value, "n": len(masks), "chance": chance})
    return found


def grown(mask: np.ndarray, tolerance: float) -> np.ndarray:
    """bool (height, width): all pixels at most `tolerance` pixels away from a mask that is not empty."""
    from scipy.ndimage import distance_transform_edt

    return mask if tolerance == 0 else distance_transform_edt(~mask) <= tolerance


def hits(maps: np.ndarray, masks: np.ndarray | list[np.ndarray]) -> np.ndarray:
    """(n,) share of each map's maxima that lie in its mask.

    maps: (n, rows, columns); masks: bool (height, width) each. A cell of the map stands for the pixel at its centre.
    """
    found = []
    for heat, mask in zip(maps, masks, strict=True):
        cells = np.argwhere(heat == heat.max()) + 0.5
        y, x = (cells / heat.shape * mask.shape).astype(int).T
        found.append(mask[y, x].mean())
    return np.array(found)
