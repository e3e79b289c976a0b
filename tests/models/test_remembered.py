"""What is asked of a tensor is asked once, and again when it may have changed; a step asks nothing anew."""

import pytest
import torch

from vlmlab import methods
from vlmlab.models.remembered import Remembered


def test_asked_again_after_a_write_and_for_another_tensor():
    asked = []
    total = Remembered(lambda x: asked.append(1) or x.sum().item())
    a, b = torch.ones(2), torch.ones(2)
    assert total(a) == total(a) == 2 and len(asked) == 1
    a[0] = 5
    assert total(a) == 6 and total(b) == 2 and len(asked) == 3
    with torch.inference_mode():
        c = torch.ones(3)
        assert total(c) == 3
        c[0] = 7
        assert total(c) == 9


@pytest.mark.parametrize("name", ["coop", "maple", "promptsrc", "hicropl", "mmrl", "mmrlpp", "aligned_norm"])
def test_a_step_asks_the_device_for_no_value(tiny, monkeypatch, name):
    """Every such question would let a GPU's queue run empty."""
    sizes = {"rep_dim": 8} if name in ("mmrl", "mmrlpp", "aligned_norm") else {}
    method = methods.build(name, tiny, ["cat", "big dog", "bird"], **sizes).train()
    batch = {"image": torch.randn(2, 3, 64, 64), "label": torch.arange(2)}
    for _ in range(2):  # what is frozen is read once, with texts of its own
        sum(method.losses(batch).values()).backward()
    asked = []
    for question in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy", "nonzero"):
        monkeypatch.setattr(
            torch.Tensor, question, lambda self, *a, q=question: asked.append(q) or pytest.fail(q)
        )
    sum(method.losses(batch).values()).backward()
    assert not asked
