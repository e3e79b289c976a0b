"""Reading golden files and comparing a method with them."""

from pathlib import Path

import numpy as np
import small_clip
import torch

from vlmlab import methods


def load(name: str) -> dict[str, torch.Tensor]:
    """All numbers of a file, as tensors."""
    with np.load(Path(__file__).with_name(f"{name}.npz")) as data:
        return {k: torch.from_numpy(np.atleast_1d(data[k])) for k in data}


def close(a, b, tolerance):
    """Largest difference as a share of the largest entry."""
    assert a.shape == b.shape
    worst = (a.detach() - b).abs().max() / b.abs().max().clamp(min=1e-12)
    assert worst < tolerance, f"largest difference {worst:.2e} of the largest entry"


def gather(data: dict, kind: str, names: dict[str, str | list[str]]) -> dict[str, torch.Tensor]:
    """Tensors of the reference under our names; a list of reference names is stacked."""

    def one(name):
        return data[f"{kind}/{name}"] if isinstance(name, str) else torch.stack([one(n) for n in name])

    return {ours: one(theirs) for ours, theirs in names.items()}


def build(name, vlm, tensors: dict[str, torch.Tensor], **config):
    """A method on the small CLIP that starts from these trainables."""
    m = methods.build(name, vlm, small_clip.CLASSES, small_clip.TEMPLATE, **config)
    own = m.trainable()
    assert own.keys() == tensors.keys()
    with torch.no_grad():
        for key, p in own.items():
            assert p.shape == tensors[key].shape, key
            p.copy_(tensors[key])
    return m.train()


def five_steps(
    method, optimiser, gradients: dict[str, torch.Tensor], tolerance: float = 1e-4, steps: int = 5
) -> list[float]:
    """Losses of the first of five steps; the gradients of the first one are compared."""
    losses = []
    for step in range(steps):
        loss = sum(method.losses({"image": small_clip.images(), "label": small_clip.LABELS}).values())
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            for key, p in method.trainable().items():
                close(p.grad, gradients[key], tolerance)
        optimiser.step()
        losses.append(loss.item())
    return losses
