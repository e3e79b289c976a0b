import numpy as np
import pytest
import torch
import xarray as xr

from vlmlab import measures

RANDOM = np.random.default_rng(0)
WEIGHT, BIAS, PROJECTION = RANDOM.normal(size=6), RANDOM.normal(size=6), RANDOM.normal(size=(6, 4))
CLASSES = RANDOM.normal(size=(3, 4))


def stream(n=60, seed=0, signal=(0, 8)):
    """Layers of width 6 whose first three features name the class, by `signal` deviations."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    x = np.stack([random.normal(size=(n, 6)) + s * np.eye(3, 6)[labels] for s in signal])
    return xr.DataArray(x, {"layer": [1, 2], "label": ("sample", labels)}, ("layer", "sample", "feature"))


def test_lens_equals_torch():
    x = stream()
    norm = torch.nn.LayerNorm(6).double()
    norm.load_state_dict({"weight": torch.tensor(WEIGHT), "bias": torch.tensor(BIAS)})
    with torch.no_grad():
        z = norm(torch.tensor(x.values)) @ torch.tensor(PROJECTION)
    normalize = torch.nn.functional.normalize
    expected = 100 * normalize(z, dim=-1) @ normalize(torch.tensor(CLASSES), dim=-1).T
    read = measures.readout(WEIGHT, BIAS, PROJECTION)
    found = measures.lens_logits(x, read, CLASSES, logit_scale=100)
    assert found.dims == ("layer", "sample", "class") and np.abs(found - expected.numpy()).max() < 1e-9
    assert "not trained" in found.attrs["caveat"]
    tokens = xr.concat([x, -x], "token").assign_coords(role=("token", ["cls", "patch"]))
    assert np.allclose(measures.lens_logits(tokens, read, CLASSES, logit_scale=100), found)
    assert not np.allclose(measures.lens_logits(tokens, read, CLASSES, "patch", 100), found)


def test_lens_accuracy_and_agreement_by_hand():
    logits = xr.DataArray(
        [[[1, 0], [1, 0]], [[1, 0], [0, 1]]],
        {"layer": [1, 2], "label": ("sample", [0, 1])},
        ("layer", "sample", "class"),
    )
    assert measures.lens_accuracy(logits).values.tolist() == [0.5, 1]
    assert measures.lens_accuracy(logits, [1, 0]).values.tolist() == [0.5, 0]
    named = measures.predictions(logits, [7, 9])
    assert named.values.tolist() == [[7, 7], [7, 9]]
    assert measures.agreement(named, named.isel(layer=[1, 1])).values.tolist() == [0.5, 1]


def test_any_function_can_read():
    x = stream()
    logits = measures.lens_logits(x, lambda v: v[:, :3], np.eye(3))
    assert float(measures.lens_accuracy(logits)[0]) < 0.6 < 0.95 < float(measures.lens_accuracy(logits)[1])


def test_probe_finds_the_classes_where_they_are():
    train, test = stream(), stream(n=90, seed=1)
    found = measures.probe_accuracy(train, test)
    assert found.dims == ("layer",) and found["layer"].values.tolist() == [1, 2]
    assert float(found[0]) < 0.6 and float(found[1]) > 0.95
    assert found.attrs["n_train"] == 60 and found.attrs["unfinished"] == []
    said = measures.probe_predictions(train, test)
    assert float((said[1] == test["label"]).mean()) == float(found[1])


def test_probe_does_not_train_on_the_test_set():
    train, test = stream(), stream(n=90, seed=1)
    wrong = (test["label"].values + 1) % 3
    assert float(measures.probe_accuracy(train, test, test_labels=wrong)[1]) < 0.05


def test_lens_of_a_language_model_equals_torch():
    x = stream()
    norm, head = torch.nn.RMSNorm(6, eps=1e-5).double(), torch.nn.Linear(6, 4, bias=False).double()
    norm.load_state_dict({"weight": torch.tensor(WEIGHT)})
    with torch.no_grad():
        expected = head(norm(torch.tensor(x.values))).numpy()
    read = measures.readout(WEIGHT, None, head.weight.detach().numpy().T)
    found = measures.lens_logits(x, read)
    assert found.dims == ("layer", "sample", "class") and np.abs(found.values - expected).max() < 1e-12


READ = measures.readout(WEIGHT, BIAS, PROJECTION)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.readout(WEIGHT, BIAS[:5]), "do not fit"),
        (lambda: READ(np.ones((2, 5))), "width 5, the norm 6"),
        (lambda: measures.lens_logits(stream(), READ, np.ones((3, 5))), r"read gave shape \(60, 4\)"),
        (lambda: measures.lens_logits(stream().isel(layer=0), READ, CLASSES), "needs layer, sample"),
        (
            lambda: measures.lens_accuracy(measures.lens_logits(stream(), READ, CLASSES[:2])),
            "logits have 2 classes",
        ),
        (lambda: measures.agreement(stream()[:, :, 0], stream(n=9)[:, :, 0]), "must match"),
        (lambda: measures.probe_accuracy(stream(n=2), stream()), r"classes \[2\] that train lacks"),
        (lambda: measures.probe_predictions(stream(), stream().isel(layer=[0])), "needs the same"),
        (lambda: measures.probe_predictions(stream(n=1), stream()), "one class only"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
