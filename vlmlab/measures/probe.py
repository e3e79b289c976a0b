"""How much of the classes a linear read-out finds in every layer (Alain & Bengio 2017)."""

import warnings

import numpy as np
import xarray as xr
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .arrays import labels_of, layer_numbers, layers_by_samples


def probe_predictions(
    train: xr.DataArray,
    test: xr.DataArray,
    role: str | None = None,
    c: float = 1.0,
    train_labels: np.ndarray | None = None,
) -> xr.DataArray:
    """Class that a linear probe per layer gives to the test samples, dims (layer, sample).

    p(y | x) = softmax(W (x - m) / s + b), one per layer: features standardised with mean m and deviation s of
    the train samples, scikit-learn's logistic regression with L2 strength 1 / c, at most 1,000 steps.
    train, test: residual stream (layer, sample, feature), or with tokens, of which the mean over one role
    is taken: `role`, by default cls, or eos in text. Train labels: default the coordinate `label`.
    Attributes: role, c, n_train, unfinished (layers whose fit did not converge). Raises ValueError for layers
    or widths that differ, one class only, or NaN.
    """
    train, role = layers_by_samples(train, role)
    test, _ = layers_by_samples(test, role)
    labels = labels_of(train, train_labels)
    layers = layer_numbers(train)
    if not np.array_equal(layers, layer_numbers(test)) or train.shape[2:] != test.shape[2:]:
        raise ValueError(
            f"train has layers {layers.tolist()} and features {train.shape[2:]}, test "
            f"{layer_numbers(test).tolist()} and {test.shape[2:]}; a probe needs the same"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError("the train samples have one class only; a probe needs two")
    found, unfinished = [], []
    for number, x, z in zip(layers, train.values, test.values):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(x.reshape(len(x), -1).astype(np.float64), labels)
        if any(issubclass(w.category, ConvergenceWarning) for w in caught):
            unfinished.append(int(number))
        found.append(model.predict(z.reshape(len(z), -1).astype(np.float64)))
    coords = {k: v for k, v in test.coords.items() if set(v.dims) <= {"sample"}}
    return xr.DataArray(
        np.stack(found),
        {**coords, "layer": layers},
        ("layer", "sample"),
        "prediction",
        {"role": role or "", "c": c, "n_train": len(labels), "unfinished": unfinished},
    )


def probe_accuracy(
    train: xr.DataArray,
    test: xr.DataArray,
    role: str | None = None,
    c: float = 1.0,
    train_labels: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
) -> xr.DataArray:
    """Share of test samples that the linear probe of each layer gets right, dims (layer,), 0 to 1.

    Arguments and attributes as `probe_predictions`. Raises ValueError when test has classes that train lacks:
    no probe can know them.
    """
    wanted = labels_of(test, test_labels)
    unseen = np.setdiff1d(wanted, labels_of(train, train_labels))
    if len(unseen):
        raise ValueError(f"test has the classes {unseen.tolist()} that train lacks; choose the same classes")
    found = probe_predictions(train, test, role, c, train_labels)
    right = found == xr.DataArray(wanted, dims="sample")
    return right.mean("sample").rename("probe_accuracy").assign_attrs(found.attrs)
