"""Terms over a batch of pairs: its B images against its B texts, of all processes together.

Unit features (batch, joint), scaled cosines (batch, batch); all in float32, also under autocast, where the rounding
of a product times 100 would be no noise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import processes


def gathered(x: Tensor) -> Tensor:
    """Unit float32 rows of all processes, with gradients, from each one's (batch, joint)."""
    with torch.autocast(x.device.type, enabled=False):
        return processes.gather(F.normalize(x.float(), dim=-1))


def cosines(image: Tensor, text: Tensor, scale: float | Tensor) -> Tensor:
    """(image, text) = scale * image text^T."""
    with torch.autocast(image.device.type, enabled=False):
        return scale * image.float() @ text.float().T


def pairs(logits: Tensor) -> Tensor:
    """CLIP's loss: cross-entropy of the right partner, rows and columns averaged; logits (batch, batch).

    The same as open_clip's `ClipLoss`.
    """
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of the softmax over each row at temperature T, mean over rows; logits (row, class).

    Hinton et al. 2015; 'batchmean' in torch's words.
    """
    log_t, log_s = (F.log_softmax(x / temperature, dim=-1) for x in (teacher.detach(), student))
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def both_ways(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Half of `divergence` over rows and half over columns; logits (batch, batch)."""
    ways = divergence(teacher, student, temperature), divergence(teacher.T, student.T, temperature)
    return sum(ways) / 2
