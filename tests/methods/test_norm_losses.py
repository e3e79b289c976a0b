"""The norm losses of AlignedNorm's Table 7."""

import pytest
import small_clip
import torch

from vlmlab import methods
from vlmlab.methods.aligned_norm import NORM_LOSSES

N_P, N_C = torch.tensor([1.0, 3.0, 2.5]), torch.tensor([2.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("l1", (1 + 2 + 0.5) / 3), ("smooth_l1", (0.5 + 1.5 + 0.125) / 3), ("hinge", (1 + 0 + 0) / 3)],
)
def test_by_hand(name, expected):
    assert NORM_LOSSES[name](N_P, N_C).item() == pytest.approx(expected)


def build(vlm, **config):
    torch.manual_seed(0)
    return methods.build("aligned_norm", vlm, ["cat", "dog"], rep_dim=8, w_proj=1.0, w_token=0.0, **config)


def test_ring_learns_its_radius_from_the_first_batch_on(small_vlm):
    method, labels = build(small_vlm, norm_loss="ring"), torch.tensor([0, 1, 0, 1])
    images = small_clip.images()[:4]
    labels = labels[: len(images)]
    terms = method.losses({"image": images, "label": labels})
    n_c = method.encode_image(images)["cls"].norm(dim=-1)
    n_p = method.encode_image(images)["prompt"].norm(dim=-1)
    assert method.radius.item() == pytest.approx(n_c.mean().item(), rel=1e-5)
    assert terms["proj"].item() == pytest.approx((0.5 * (n_p - n_c.mean()) ** 2).mean().item(), rel=1e-4)
    sum(terms.values()).backward()
    assert method.radius.grad.item() == pytest.approx((method.radius - n_p).mean().item(), rel=1e-4)
    before = method.radius.item()
    method.losses({"image": images * 2, "label": labels})
    assert method.radius.item() == before


def test_only_ring_adds_a_parameter(small_vlm):
    plain, ring = (build(small_vlm, norm_loss=name).trainable() for name in ("l1", "ring"))
    assert set(ring) - set(plain) == {"radius"}
    assert set(plain) == set(build(small_vlm, norm_loss="hinge").trainable())


def test_an_unknown_loss_lists_the_known_ones(small_vlm):
    with pytest.raises(ValueError, match="l1, smooth_l1, hinge, ring; got 'l2'"):
        build(small_vlm, norm_loss="l2")
