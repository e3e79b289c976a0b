"""Calibration: is a model right as often as it is sure?"""

import numpy as np
import xarray as xr


def calibration(probs: np.ndarray | xr.DataArray, labels: np.ndarray, bins: int = 10) -> xr.Dataset:
    """Reliability bins, dims (bin,): confidence and accuracy (means, 0 to 1; NaN when empty), count.

    probs: (sample, class), rows sum to 1; labels: (sample,) class numbers. Bins are equally wide in the
    confidence, the largest probability; the upper edge belongs to a bin. What `plots.reliability` draws.
    Attributes: error, the expected calibration error sum_b n_b / n |accuracy_b - confidence_b|, 0 to 1 (Guo
    et al. 2017, Eq. 3), and over, the mean confidence minus the accuracy.
    Raises ValueError for other shapes, rows that are no probabilities, or no sample.
    """
    probs, labels = np.asarray(probs, dtype=float), np.asarray(labels)
    if probs.ndim != 2 or labels.shape != probs.shape[:1] or not len(labels):
        raise ValueError(
            f"calibration needs (sample, class) and as many labels, got {probs.shape} and {labels.shape}"
        )
    if not (np.allclose(probs.sum(axis=1), 1, atol=1e-3) and (probs >= 0).all()):
        raise ValueError("the rows of probs must be probabilities; apply a softmax to logits first")
    if bins < 1 or not np.isin(labels, np.arange(probs.shape[1])).all():
        raise ValueError(
            f"bins={bins} must be at least 1, and labels whole numbers from 0 to {probs.shape[1] - 1}"
        )
    sure, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    at = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(at, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = {
            name: np.bincount(at, weights=x, minlength=bins) / count
            for name, x in (("confidence", sure), ("accuracy", right))
        }
    gap = np.abs(means["confidence"] - means["accuracy"])[count > 0]
    found = xr.Dataset(
        {name: ("bin", x) for name, x in (means | {"count": count}).items()}, {"bin": np.arange(1, bins + 1)}
    )
    return found.assign_attrs(
        error=float((gap * count[count > 0]).sum() / count.sum()), over=float(sure.mean() - right.mean())
    )
