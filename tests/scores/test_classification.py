"""Accuracies by hand."""

import numpy as np
import pytest

from vlmlab.scores.classification import accuracies, class_accuracies


def test_accuracies_by_hand():
    logits, labels = np.eye(3)[[0, 0, 0, 1, 2, 2]], np.array([0, 0, 0, 0, 1, 2])
    found = accuracies(logits, labels)
    assert found["accuracy"] == pytest.approx(100 * 4 / 6)
    assert found["balanced_accuracy"] == pytest.approx(100 * (3 / 4 + 0 + 1) / 3)
    assert class_accuracies(logits, labels) == pytest.approx({0: 75, 1: 0, 2: 100})


def test_a_class_without_images_does_not_count():
    assert class_accuracies(np.eye(3)[[0, 2]], np.array([0, 0])) == {0: 50.0}
    assert accuracies(np.eye(3)[[0, 2]], np.array([0, 0]))["balanced_accuracy"] == 50
