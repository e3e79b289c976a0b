"""Which weights these are."""
import hashlib

from torch import nn


def fingerprint(module: nn.Module) -> str:
    """sha256 of all weights and buffers with their names and shapes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
