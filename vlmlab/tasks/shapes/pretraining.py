"""What the embedded models see of generated scenes: the training side, batch after batch."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .composition import Scene, scene
from .pixels import picture
from .texts import caption, captions


def stream(counts: Mapping[str, int], seed: int, step: int) -> list[Scene]:
    """Scenes of a batch, so many of each kind; a function of (seed, step), and another step shows others."""
    return [scene(f"{kind}/train/{seed}.{step * n + k}") for kind, n in counts.items() for k in range(n)]


def images(scenes: list[Scene]) -> Tensor:
    """(scene, 3, 64, 64) in [0, 1]."""
    return torch.from_numpy(np.stack([picture(of) for of in scenes])).permute(0, 3, 1, 2).float() / 255


def match(scenes: list[Scene]) -> Tensor:
    """bool (text, scene), whether the caption of one scene is a caption of the other."""
    texts, true = [caption(of) for of in scenes], [captions(of) for of in scenes]
    return torch.tensor([[text in said for said in true] for text in texts])
