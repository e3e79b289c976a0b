"""Class logits from every layer, through a model's own final norm and projection (nostalgebraist 2020).

Caveat: CLIP never trained its intermediate layers to be read this way. A low lens accuracy does not say that
a layer knows nothing; show it beside a linear probe of the same layer (`probe.py`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from .arrays import labels_of, layers_by_samples

CAVEAT = (
    "intermediate layers were not trained to be read through the final norm and projection; "
    "read the lens beside the linear probe"
)


def readout(
    weight: np.ndarray,
    bias: np.ndarray | None,
    projection: np.ndarray | None = None,
    eps: float = 1e-5,
) -> Callable[[np.ndarray], np.ndarray]:
    """The end of a tower as a function (sample, width) -> (sample, joint).

    f(x) = ((x - mean x) / sqrt(var x + eps) * weight + bias) projection: LayerNorm and the linear projection.
    Without bias f(x) = (x / sqrt(mean x^2 + eps) * weight) projection: RMSNorm, as in language models.
    weight, bias: (width,); projection: (width, joint), None for none.
    """
    centred, weight = bias is not None, np.asarray(weight, np.float64)
    bias = np.asarray(bias, np.float64) if centred else np.zeros_like(weight)
    matrix = None if projection is None else np.asarray(projection, np.float64)
    fits = weight.ndim == 1 and weight.shape == bias.shape
    if not fits or (matrix is not None and (matrix.ndim != 2 or len(matrix) != len(weight))):
        raise ValueError(
            f"weight {weight.shape}, bias {bias.shape} and projection "
            f"{None if matrix is None else matrix.shape} do not fit; expected (width,), "
            "(width,), (width, joint)"
        )

    def read(x: np.ndarray) -> np.ndarray:
        if x.shape[-1] != len(weight):
            raise ValueError(f"the tokens have width {x.shape[-1]}, the norm {len(weight)}: another tower's")
        x = np.asarray(x, np.float64)
        x = x - x.mean(axis=-1, keepdims=True) if centred else x
        x = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * weight + bias
        return x if matrix is None else x @ matrix

    return read


def lens_logits(
    x: xr.DataArray,
    read: Callable[[np.ndarray], np.ndarray],
    class_features: np.ndarray | None = None,
    role: str | None = None,
    logit_scale: float = 1.0,
) -> xr.DataArray:
    """l_c = logit_scale * cos(read(x), w_c) for every layer, dims (layer, sample, class); no unit.

    Without class_features, of a language model, l_c = logit_scale * read(x)_c, where the classes are its words.

    x: residual stream after the blocks, (layer, sample, token, feature) or without tokens; the mean over the
    tokens of `role` is read, by default cls, or eos in text. read: from `readout`, from
    `vlmlab.capture.reader`, or any function (sample, width) -> (sample, joint). class_features: (class, joint). The last layer gives the model's own
    logits. For a text tower the samples are the prompts and class_features those of the images.
    Attributes: role, caveat. Raises ValueError for NaN, missing axes or widths that do not fit.
    """
    x, role = layers_by_samples(x, role)
    classes = None if class_features is None else unit_rows(np.asarray(class_features, np.float64))
    values = []
    for layer in x.values:
        z = np.asarray(read(layer))
        if classes is None:
            values.append(logit_scale * z)
            continue
        if classes.ndim != 2 or z.shape != (len(layer), classes.shape[1]):
            raise ValueError(
                f"read gave shape {z.shape} for {len(layer)} samples, class_features has "
                f"{classes.shape}; expected (sample, joint) and (class, joint)"
            )
        values.append(logit_scale * unit_rows(z.astype(np.float64)) @ classes.T)
    coords = {k: v for k, v in x.coords.items() if set(v.dims) <= {"layer", "sample"}}
    return xr.DataArray(
        np.stack(values), coords, ("layer", "sample", "class"), "lens", {"role": role or "", "caveat": CAVEAT}
    )


def predictions(logits: xr.DataArray, classes: Sequence[int] | None = None) -> xr.DataArray:
    """argmax_c l_c, dims of the logits without class; class numbers 0, 1, ... or those in `classes`."""
    best = logits.argmax("class")
    if classes is not None:
        best = best.copy(data=np.asarray(classes)[best.values])
    return best.rename("prediction")


def lens_accuracy(logits: xr.DataArray, labels: np.ndarray | None = None) -> xr.DataArray:
    """Share of samples whose largest logit is their class, dims (layer,), 0 to 1.

    labels: (sample,) class numbers in the order of class_features; default the coordinate `label`.
    """
    labels = labels_of(logits, labels)
    if labels.min() < 0 or labels.max() >= logits.sizes["class"]:
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}, the logits "
            f"have {logits.sizes['class']} classes"
        )
    right = predictions(logits) == xr.DataArray(labels, dims="sample")
    return right.mean("sample").rename("lens_accuracy").assign_attrs(logits.attrs)


def agreement(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """Share of samples for which two predictions (layer, sample) are equal, dims (layer,), 0 to 1.

    For the lens beside the probe: agreement(predictions(logits), probe_predictions(train, test)).
    """
    if a.sizes != b.sizes:
        raise ValueError(f"the predictions must match, got {dict(a.sizes)} and {dict(b.sizes)}")
    return (a == b.transpose(*a.dims).values).mean("sample").rename("agreement")


def unit_rows(z: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(z, axis=-1, keepdims=True)
    return z / np.where(length > 0, length, 1)
