import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr

from vlmlab import measures


def vectors(*shape, seed=0):
    dims = ("draw", "sample", "joint")[-len(shape) :]
    return xr.DataArray(np.random.default_rng(seed).standard_normal(shape), dims=dims)


def test_field_by_hand():
    z_p, z_c = (xr.DataArray([v], dims=("sample", "joint")) for v in ([3.0, 4.0], [0.0, 7.0]))
    u = measures.prompt_field(z_p, z_c, prompt_weight=0.5)
    assert u.dims == ("sample", "joint") and np.allclose(u, [[0.3, -0.1]])
    assert np.allclose(measures.prompt_field(10 * z_p, z_c, 0.5), u)  # lengths are normalised away


def test_small_noise_stays_below_its_bound_and_is_d_minus_1_of_it():
    z = vectors(20, 16)
    e = 1e-4 * vectors(500, 20, 16, seed=1)
    shift = measures.token_norms(measures.prompt_field(z + e, z, 0.3) - measures.prompt_field(z, z, 0.3)) ** 2
    bound = measures.field_bound(z, e, 0.3)
    assert (shift <= bound * (1 + 1e-3)).all()
    assert float(shift.mean() / bound.mean()) == pytest.approx(15 / 16, abs=0.02)  # the part along z is lost
    scaled = measures.field_bound(2 * z, e, 0.3)
    assert np.allclose(scaled, bound / 4) and np.allclose(measures.field_bound(z, e, 0.6), 4 * bound)


def test_noise_that_turns_a_feature_round_exceeds_the_bound():
    z = xr.DataArray([[1.0, 0.0]], dims=("sample", "joint"))
    e = xr.DataArray([[-1.1, 0.0]], dims=("sample", "joint"))
    shift = measures.token_norms(measures.prompt_field(z + e, z, 1.0) - measures.prompt_field(z, z, 1.0)) ** 2
    assert shift.item() == pytest.approx(4)
    assert measures.field_bound(z, e, 1.0).item() == pytest.approx(1.21)


def test_gradient_is_what_autograd_finds():
    z = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    f = F.normalize(z, dim=-1)
    loss = F.cross_entropy(9 * f[:, :3], torch.tensor([0, 1, 2, 0, 1, 2]), reduction="sum")
    g, through = torch.autograd.grad(loss, (f, z))
    z, g = (xr.DataArray(x.detach().numpy(), dims=("sample", "joint")) for x in (z, g))
    found = measures.gradient_through_norm(g, z)
    assert np.allclose(found, through)
    assert np.allclose((found * z).sum("joint"), 0)


def test_noise_is_within_its_bound_where_the_feature_is_fixed():
    z, g = vectors(20, 16), vectors(50, 20, 16, seed=1)
    noise = measures.gradient_noise(measures.gradient_through_norm(g, z))
    bound = measures.gradient_noise_bound(g, z)
    assert noise.dims == bound.dims == ("sample",)
    assert (noise < bound).all() and float((noise / bound).mean()) == pytest.approx(15 / 16, abs=0.02)
    assert np.allclose(measures.gradient_noise(measures.gradient_through_norm(g, 3 * z)), noise / 9)


def test_noise_by_hand():
    g = xr.DataArray([[[1.0, 0.0]], [[-1.0, 2.0]]], dims=("draw", "sample", "joint"))
    assert measures.gradient_noise(g).values.tolist() == [2]  # both are (1, -1) from their mean (0, 1)
    z = xr.DataArray([[[1.0, 0.0]], [[0.0, 2.0]]], dims=("draw", "sample", "joint"))
    assert measures.gradient_noise_bound(g, z).values == pytest.approx(1.25)  # 2/1 and 2/4


def test_key_gradients_are_within_lemma_2():
    rng = torch.Generator().manual_seed(0)
    shape = {"size": (2, 3, 7, 4), "generator": rng, "dtype": torch.float64}
    q, k, v, of_z = (torch.randn(**shape).requires_grad_() for _ in range(4))
    probs = (q @ k.transpose(-2, -1) / 2).softmax(dim=-1)  # sqrt(4) = 2
    z = probs @ v
    (of_k,) = torch.autograd.grad((z * of_z).sum(), k)
    probs, q, v, z, of_z = (x.detach().numpy() for x in (probs, q, v, z, of_z))
    bound = measures.key_gradient_bound(probs, q, v, z, of_z)
    assert bound.shape == (2, 3, 7) and (np.linalg.norm(of_k, axis=-1) <= bound).all()
    hidden = np.concatenate([np.zeros_like(probs[..., :1]), probs[..., 1:]], axis=-1)  # nobody looks at key 0
    assert (measures.key_gradient_bound(hidden, q, v, z, of_z)[..., 0] == 0).all()


def test_lemma_2_is_reached_by_one_query_that_sees_opposites():
    """k_0 = k_1, v_0 = -v_1: a_0 = 1/2, z = 0, dL/dk_0 = a_0 (g v_0) q / sqrt(d) with g along v_0."""
    q, v = np.array([[2.0]]), np.array([[3.0], [-3.0]])
    bound = measures.key_gradient_bound(np.array([[0.5, 0.5]]), q, v, np.array([[0.0]]), np.array([[5.0]]))
    assert bound.tolist() == [15, 15]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: measures.gradient_noise(x),
        lambda x: measures.gradient_noise(x.expand_dims("draw")),
        lambda x: measures.prompt_field(x.rename(joint="token"), x),
        lambda x: measures.field_bound(x.rename(joint="token"), x),
    ],
)
def test_what_does_not_fit_is_named(call):
    with pytest.raises(ValueError, match=r"fewer than two|no feature axis"):
        call(vectors(4, 3))


def test_agreement_by_hand():
    u = xr.DataArray([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]], dims=("sample", "joint"))
    u = u.assign_coords(label=("sample", [0, 1, 1]))
    assert measures.field_agreement(u).values.tolist() == [0, 0, 0]  # a class cannot agree with itself
    new = xr.DataArray([[2.0, 8.0], [-1.0, -4.0]], dims=("sample", "joint"))
    assert measures.field_agreement(new, u).values == pytest.approx([1, -1])  # labels are of other classes
    with pytest.raises(ValueError, match="label"):
        measures.field_agreement(new)


def test_one_field_for_all_classes_agrees():
    u = vectors(1, 8).isel(sample=0) + 0.01 * vectors(30, 8, seed=1)
    u = u.assign_coords(label=("sample", np.arange(30) % 3))
    assert (measures.field_agreement(u) > 0.99).all()
    per_class = vectors(3, 8)[np.arange(30) % 3].assign_coords(label=("sample", np.arange(30) % 3))
    assert (measures.field_agreement(per_class) < 0.9).all()


def test_attention_is_within_lemma_1():
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((3, 5, 8)) * s for s in (4.0, 1.0))
    gate = measures.attention_gate(q, k)
    probs = torch.softmax(torch.from_numpy(q @ k.transpose(0, 2, 1) / np.sqrt(8)), dim=-1).numpy()
    assert (probs <= gate).all() and (probs >= gate / 5).all()
    assert gate.max(axis=-1) == pytest.approx(1) and gate.min() < 0.01
    even = measures.attention_gate(np.zeros((1, 2, 4)), np.ones((1, 2, 4)))
    assert (even == 1).all()  # every logit is the largest: attention is the lower bound


def test_cosines_of_random_directions():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((200, 64)), rng.standard_normal((300, 64))
    cosines = measures.pair_cosines(q, k)
    assert cosines.shape == (200, 300) and np.sqrt((cosines**2).mean()) == pytest.approx(1 / 8, rel=0.02)
    assert measures.pair_cosines(q, 3 * q).diagonal() == pytest.approx(1)
