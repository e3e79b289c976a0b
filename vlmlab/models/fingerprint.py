"""Which weights these are."""

import hashlib
from collections.abc import Mapping

from torch import Tensor


def fingerprint(state: Mapping[str, Tensor], besides: str = "") -> str:
    """sha256 of the weights and buffers of a state dict, with their names and shapes, and of what else tells models
    of equal weights apart."""
    digest = hashlib.sha256(besides.encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
