"""The linear probe on synthetic Gaussians, where the right answer is known."""

import dataclasses
import types
import warnings

import numpy as np
import pytest
import small_clip
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import vlmlab
from vlmlab import methods
from vlmlab.methods import linear_probe


def gaussians(classes, per_class, seed, spread=0.6):
    """Features (image, 64) around one centre per class."""
    centres = np.random.default_rng(0).standard_normal((classes, 64)) / 4
    y = np.repeat(np.arange(classes), per_class)
    x = centres[y] + spread * np.random.default_rng(seed).standard_normal((len(y), 64))
    return torch.from_numpy(x).float(), torch.from_numpy(y)


@pytest.fixture
def probe(small_vlm):
    return lambda classes=6: methods.build("linear_probe", small_vlm, small_clip.CLASSES[:classes])


@pytest.mark.parametrize("classes", [6, 2])
def test_logits_are_those_of_the_chosen_regression(probe, classes, monkeypatch):
    m, (x, y) = probe(classes), gaussians(classes, 16, 1)
    info = m.solve((x, y), gaussians(classes, 4, 2))
    right = LogisticRegression(C=info["C"], max_iter=1000).fit(x.numpy(), y.numpy())
    test, labels = gaussians(classes, 50, 3)
    monkeypatch.setattr(m, "encode_image", lambda images: {"cls": images})
    with torch.no_grad():
        p = m.logits(test).softmax(-1)
    assert np.abs(p.numpy() - right.predict_proba(test.numpy())).max() < 1e-4
    assert (p.argmax(-1) == labels).float().mean() > 0.5 + 0.3 / classes


def test_search_follows_the_grid_and_the_eight_rounds(monkeypatch):
    """An accuracy that peaks at C = 30: grid peak 100, then the interval closes in from both sides.

    Fits that end at the limit of their steps are counted, and not warned of one by one.
    """
    seen = []

    class Fake:
        def __init__(self, C, max_iter):
            self.C, self.max_iter = C, max_iter
            self.n_iter_ = np.array([3, 1000 if C > 90 else 999])

        def fit(self, x, y):
            seen.append(self.C)
            warnings.warn("not there yet", ConvergenceWarning, stacklevel=2)
            return self

        def predict(self, x):
            right = round(100 - 10 * abs(np.log10(self.C) - np.log10(30)))
            return np.where(np.arange(100) < right, 1, 0)

    monkeypatch.setattr(linear_probe, "LogisticRegression", Fake)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best, _, failed = linear_probe.search(None, None, None, np.ones(100, int))
    assert seen[:7] == [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6] and len(seen) == 7 + 16
    assert failed == sum(c > 90 for c in seen) and best.max_iter == 1000
    low, high = 10.0, 1000.0
    for left, right in zip(seen[7::2], seen[8::2]):
        assert (left, right) == pytest.approx((low, high))
        middle, score = (low * high) ** 0.5, lambda c: round(100 - 10 * abs(np.log10(c) - np.log10(30)))
        low, high = (middle, high) if score(left) < score(right) else (low, middle)
    assert best.C in seen[-2:]


def test_the_first_best_strength_wins(monkeypatch):
    monkeypatch.setattr(LogisticRegression, "predict", lambda self, x: np.zeros(len(x)))
    x, y = (t.numpy() for t in gaussians(2, 4, 1))
    best, accuracy, _ = linear_probe.search(x, y, x, np.zeros(8))
    assert accuracy == 1.0 and best.C == pytest.approx(1e5)  # of equal ends the lower, eight times


def test_a_subset_of_the_classes_keeps_its_rows(probe):
    m = probe()
    m.solve(gaussians(6, 8, 1), gaussians(6, 4, 2))
    with torch.no_grad():
        all_logits = m.logits(small_clip.images())
        m.set_classes(small_clip.CLASSES[4:1:-1], small_clip.TEMPLATE)
        torch.testing.assert_close(m.logits(small_clip.images()), all_logits[:, [4, 3, 2]])
        assert torch.allclose(m.class_features().norm(dim=-1), torch.ones(3))
    with pytest.raises(ValueError, match="no weights for 1 classes, for example 'zebra'"):
        m.set_classes(["sphynx", "zebra"], small_clip.TEMPLATE)


def test_what_it_cannot_do_without(probe):
    x, y = gaussians(6, 2, 1)
    with pytest.raises(ValueError, match=r"without training images \[5\]"):
        probe().solve((x[:-2], y[:-2]), (x, y))
    with pytest.raises(ValueError, match="0 validation images"):
        probe().solve((x, y), (x[:0], y[:0]))
    for val in (None, ()):
        with pytest.raises(ValueError, match="chooses its strength on validation images, and pets has none"):
            probe().prepare(types.SimpleNamespace(id="pets", train=(1, 2), val=val))


def test_it_is_solved_on_the_images_of_the_task(small_vlm):
    """On features as they are, without augmentation, in the order of the task."""
    task = vlmlab.task("emoji/food", protocol="few_shot", shots=2, backgrounds=1)
    few = dataclasses.replace(task, val=task.val or task.train)
    m = methods.build("linear_probe", small_vlm, task.classes.names, task.template)
    info = m.prepare(few)
    sets = []
    for images in (few.train, few.val):
        pixels = torch.stack([small_vlm.preprocess(images.image(i)) for i in range(len(images))])
        with torch.no_grad():
            sets.append((small_vlm.encode_image(pixels), torch.as_tensor(images.labels)))
    right = LogisticRegression(C=info["C"], max_iter=1000).fit(sets[0][0].numpy(), sets[0][1].numpy())
    assert info.keys() == {"C", "val_accuracy", "not_converged"}
    assert info["val_accuracy"] == right.score(sets[1][0].numpy(), sets[1][1].numpy())
    assert np.abs(m.weight.detach().numpy() - right.coef_).max() < 1e-3 * np.abs(right.coef_).max()
