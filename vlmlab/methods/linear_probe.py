"""Linear probe: logistic regression on frozen image features, its strength chosen on validation images."""

import math
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from .. import feeds
from ..learner import Stage
from .fixed_classes import FixedClasses

GRID = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
ROUNDS = 8


class LinearProbe(FixedClasses):
    """Logistic regression on image features that are not normalised; knows only the classes it saw.

    Nothing is stepped: `solve` finds weight and bias at once. The paper draws its own 16 images per
    class with NumPy; here the task's are used, as for every other method.
    """

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        joint = vlm.clip.visual.proj.shape[1]
        self.weight = nn.Parameter(torch.zeros(len(classnames), joint))
        self.bias = nn.Parameter(torch.zeros(len(classnames)))
        self.to(vlm.device)

    def class_features(self) -> Tensor:
        """(class, joint) unit weight vectors."""
        return F.normalize(self.weight[self.rows], dim=-1)

    def classify(self, z: dict[str, Tensor], rule: str = "unified", split: str | None = None) -> Tensor:
        """(batch, class) logits of the regression."""
        return z["cls"] @ self.weight[self.rows].T + self.bias[self.rows]

    def stages(self, task, options, seed) -> list[Stage]:
        return []

    def prepare(self, task) -> dict:
        """Solved on the features of all training and validation images; ValueError where one is missing."""
        if task.val is None or not len(task.val):
            raise ValueError(
                f"a linear probe chooses its strength on validation images, and {task.id} has none"
            )
        return self.solve(self.features_of(task.train), self.features_of(task.val))

    @torch.no_grad()
    def features_of(self, images) -> tuple[Tensor, Tensor]:
        """(image, joint) features without augmentation, and the labels (image,)."""
        self.eval()
        batches = [
            (self.encode_image(batch["image"].to(self.device))["cls"], batch["label"])
            for batch in feeds.in_order(images, self.vlm)
        ]
        x, y = zip(*batches)
        return torch.cat(x), torch.cat(y)

    @torch.no_grad()
    def solve(self, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Fit to features (image, joint) and labels (image,) of the training images.

        The strength C is searched on the validation images as in CoOp: a grid, whose first best value
        wins, then eight rounds that compare the ends of an interval around it, keep the better (the
        lower when equal) and move the other to the middle.

        Returns {"C": ..., "val_accuracy": ..., "not_converged": number of fits}. ValueError when a
        class has no training image.
        """
        x, x_val = (features.float().cpu().numpy() for features, _ in (train, val))
        y, y_val = (labels.cpu().numpy() for _, labels in (train, val))
        absent = sorted(set(range(len(self.known))) - set(y.tolist()))
        if absent or not len(y_val):
            raise ValueError(
                f"{len(y_val)} validation images, classes without training images {absent[:5]}; "
                "a linear probe needs images of both kinds"
            )
        best, accuracy, failed = search(x, y, x_val, y_val)
        coef, bias = best.coef_, best.intercept_
        if len(coef) == 1:  # two classes share one row
            coef, bias = np.concatenate([-coef, coef]) / 2, np.concatenate([-bias, bias]) / 2
        self.weight.copy_(torch.from_numpy(coef))
        self.bias.copy_(torch.from_numpy(bias))
        return {"C": best.C, "val_accuracy": accuracy, "not_converged": failed}


def search(
    x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray
) -> tuple[LogisticRegression, float, int]:
    """The regression of the last round, its validation accuracy, and how many fits did not converge."""
    failed = 0

    def fitted(c: float) -> tuple[float, LogisticRegression]:
        nonlocal failed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=c, max_iter=1000).fit(x, y)
        failed += int(model.n_iter_.max() >= model.max_iter)
        return float((model.predict(x_val) == y_val).mean()), model

    peak = max(GRID, key=lambda c: fitted(c)[0])
    low, high = 0.1 * peak, 10 * peak
    for _ in range(ROUNDS):
        (at_low, left), (at_high, right) = fitted(low), fitted(high)
        middle = math.sqrt(low * high)
        if at_low < at_high:
            accuracy, model, low = at_high, right, middle
        else:
            accuracy, model, high = at_low, left, middle
    return model, accuracy, failed
