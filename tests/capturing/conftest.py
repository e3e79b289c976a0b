"""A small CLIP with random weights and a method with tokens that appear in the middle of it."""

import pytest
import torch
from capture_model import small_vlm

from vlmlab import methods


@pytest.fixture(scope="session")
def vlm():
    return small_vlm()


@pytest.fixture(scope="session")
def mmrlpp(vlm):
    torch.manual_seed(1)
    method = methods.build(
        "mmrlpp",
        vlm,
        ["cat", "big dog", "bird house"],
        first_block=3,
        tokens=2,
        rep_dim=8,
        rank=2,
        proj_rank=4,
        token_mix=0.7,
    )
    with torch.no_grad():
        for parameter in method.trainable().values():  # at initialisation all layers have the same tokens
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method.eval()


@pytest.fixture
def images():
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def hooks_left():
    """module -> hooks of any kind on it and on all below it."""

    def find(module):
        tables = [
            t for m in module.modules() for t in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
        ]
        return [hook for table in tables for hook in table]

    return find
