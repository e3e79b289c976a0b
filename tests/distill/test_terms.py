"""Each term of cmapkd against its formula, and the faults of the plan that it does not have."""

import math

import pytest
import torch
import torch.nn.functional as F

from vlmlab.distill import alsn, contrast, terms
from vlmlab.distill.alsn import ALSN, entropy, masked_softmax


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_level_loss_is_one_minus_cosine_and_half_the_channels_times_the_mse_of_unit_vectors():
    s, t = drawn(3, 6, 4, 5), drawn(3, 6, 4, 5, seed=1)
    loss = terms.level_loss(s, t)
    by_hand = [
        sum(1 - F.cosine_similarity(s[b, :, i, j], t[b, :, i, j], dim=0) for i in range(4) for j in range(5))
        / 20
        for b in range(3)
    ]
    assert torch.allclose(loss, torch.stack(by_hand))
    mse = (F.normalize(s, dim=1) - F.normalize(t, dim=1)).square().mean(dim=(1, 2, 3))
    assert torch.allclose(loss, 6 / 2 * mse, rtol=1e-5)
    assert torch.allclose(terms.level_loss(s, s), torch.zeros(3), atol=1e-6)
    assert torch.allclose(terms.level_loss(s, -s), torch.full((3,), 2.0))
    assert terms.level_loss(drawn(3, 6), drawn(3, 6, seed=1)).shape == (3,)


def test_uniform_weights_give_the_plain_mean_and_no_second_average():
    losses = drawn(5, 4).abs()
    assert torch.allclose(terms.weighted(torch.full((5, 4), 0.25), losses), losses.mean())


@pytest.mark.parametrize("batch", [3, 14])
def test_weights_belong_to_samples_also_where_the_batch_is_as_large_as_a_map(batch):
    s, t, w = drawn(batch, 8, 14, 14), drawn(batch, 8, 14, 14, seed=1), drawn(batch, 1, seed=2).abs()
    together = terms.weighted(w, terms.level_loss(s, t)[:, None])
    alone = [w[b, 0] * terms.level_loss(s[b : b + 1], t[b : b + 1])[0] for b in range(batch)]
    assert torch.allclose(together, torch.stack(alone).mean())
    mse = F.mse_loss(s, t, reduction="none")  # the plan's product: an error, or silently of rows where B is H
    if batch == 3:
        with pytest.raises(RuntimeError):
            mse * w
    else:
        assert not torch.allclose((mse * w).mean(dim=(1, 2, 3)), mse.mean(dim=(1, 2, 3)) * w[:, 0], rtol=1e-3)


def test_permuted_samples_permute_their_losses():
    s, t, order = drawn(5, 8, 3, 3), drawn(5, 8, 3, 3, seed=1), torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(terms.level_loss(s, t)[order], terms.level_loss(s[order], t[order]))


def test_neither_lengths_of_positions_nor_rows_for_columns_matter():
    s, t = drawn(2, 8, 5, 3), drawn(2, 8, 5, 3, seed=1)
    stretched = s * (0.1 + drawn(2, 1, 5, 3, seed=2).abs())
    turned = s.transpose(2, 3), t.transpose(2, 3)
    assert torch.allclose(terms.level_loss(stretched, t), terms.level_loss(s, t), atol=1e-6)
    assert torch.allclose(terms.level_loss(*turned), terms.level_loss(s, t), atol=1e-6)
    plan = terms.literal_level_loss(s, t)
    assert not torch.allclose(terms.literal_level_loss(stretched, t), plan, rtol=1e-3)
    assert not torch.allclose(terms.literal_level_loss(*turned), plan, rtol=1e-2)


def test_the_plans_level_loss_of_unrelated_features_is_told_by_the_width():
    for width in (56, 28, 14, 7):
        loss = terms.literal_level_loss(drawn(4, 64, 4, width), drawn(4, 64, 4, width, seed=1)).mean()
        assert loss.item() == pytest.approx(2 / width, rel=0.1)


def test_alpha_is_the_plans_table_brought_to_sum_one():
    every = torch.ones(4, dtype=torch.bool)
    alpha = terms.compatibility(every, every)
    assert torch.allclose(alpha, torch.where(torch.eye(4, dtype=torch.bool), 0.10, 0.05))
    assert torch.allclose(terms.compatibility(every, every, uniform=True), torch.full((4, 4), 1 / 16))
    few = terms.compatibility(torch.tensor([False, False, True, True]), every)
    assert few[:2].eq(0).all() and few.sum().item() == pytest.approx(1)


def test_align_is_nothing_for_equal_sides_and_symmetric_in_the_modalities():
    s, t = (drawn(6, 4, 8), drawn(6, 4, 8, seed=1)), (drawn(6, 4, 8, seed=2), drawn(6, 4, 8, seed=3))
    alpha = drawn(4, 4, seed=4).softmax(1) / 4
    assert terms.align(s, s, alpha, 14.0, 1.0).abs() < 1e-6
    one = terms.align(s, t, alpha, 14.0, 2.0)
    assert torch.allclose(one, terms.align(s[::-1], t[::-1], alpha.T, 14.0, 2.0))
    i, j = 1, 2
    pt, ps = (14.0 * F.normalize(v[:, i], dim=1) @ F.normalize(x[:, j], dim=1).T / 2 for v, x in (t, s))
    rows = (pt.softmax(1) * (pt.log_softmax(1) - ps.log_softmax(1))).sum(1).mean()
    columns = (pt.softmax(0) * (pt.log_softmax(0) - ps.log_softmax(0))).sum(0).mean()
    only = torch.zeros(4, 4)
    only[i, j] = 1.0
    assert torch.allclose(terms.align(s, t, only, 14.0, 2.0), 4 * (rows + columns) / 2)


def test_the_plans_align_is_its_table_over_sixteen():
    s, t = (drawn(6, 4, 8), drawn(6, 4, 8, seed=1)), (drawn(6, 4, 8, seed=2), drawn(6, 4, 8, seed=3))
    total = 0
    for i in range(4):
        for j in range(4):
            p = F.softmax(t[0][:, i] @ t[1][:, j].T / 4.0, dim=-1)
            q = F.log_softmax(s[0][:, i] @ s[1][:, j].T / 4.0, dim=-1)
            total += (1.0 if i == j else 0.5) * F.kl_div(q, p, reduction="batchmean")
    assert torch.allclose(terms.literal_align(s, t, torch.ones(4, 4)), total / 16)


def test_relation_of_samples_counts_pairs_of_two():
    s, t = drawn(5, 8), drawn(5, 8, seed=1)
    gs, gt = (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T for x in (s, t))
    pairs = [(gs[i, j] - gt[i, j]) ** 2 for i in range(5) for j in range(5) if i != j]
    assert torch.allclose(terms.relation_of_samples(s, t), torch.stack(pairs).mean(), atol=1e-6)


def test_relation_of_levels_is_of_single_samples():
    s, t = drawn(8, 4, 16), drawn(8, 4, 16, seed=1)
    mixed = s.clone()
    mixed[:, 2] = s[torch.randperm(8, generator=torch.Generator().manual_seed(0)), 2]
    by_hand = torch.stack(
        [(torch.corrcoef(a) - torch.corrcoef(b)).square().sum() / 12 for a, b in zip(s, t)]
    ).mean()
    assert torch.allclose(terms.relation_of_levels(s, t), by_hand, rtol=1e-4)
    assert not torch.allclose(terms.relation_of_levels(mixed, t), terms.relation_of_levels(s, t), rtol=1e-3)
    plan = [terms.literal_relation_of_levels(x, t) for x in (s, mixed)]
    assert torch.allclose(*plan, rtol=1e-4)  # what is wrong with the plan's
    turn = torch.linalg.qr(drawn(16, 16, seed=2))[0]
    assert torch.allclose(terms.cka(s @ turn), terms.cka(s), atol=1e-5)
    assert terms.relation_of_levels_cka(s, s @ turn) < 1e-8


# ALSN


def test_weights_sum_to_one_and_inactive_levels_have_none():
    active = torch.tensor([[False, False, True, True], [True, False, True, False]])
    w = ALSN(6)(drawn(5, 6), active)
    assert (
        torch.allclose(w.sum(-1), torch.ones(5, 2)) and w[:, ~active].eq(0).all() and w[:, active].gt(0).all()
    )


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_the_plans_sigmoid_keeps_weights_inside_its_bounds(tau):
    z = 50 * drawn(200, 4)
    w = masked_softmax(torch.sigmoid(z), torch.ones(4, dtype=torch.bool), tau)
    most, least = math.exp(1 / tau) / (math.exp(1 / tau) + 3), 1 / (1 + 3 * math.exp(1 / tau))
    assert least - 1e-6 <= w.min() and w.max() <= most + 1e-6
    net = ALSN(6, tau=tau, sigmoid=True)(50 * drawn(200, 6), torch.ones(2, 4, dtype=torch.bool))
    assert least - 1e-6 <= net.min() and net.max() <= most + 1e-6
    if tau == 1.0:
        assert least > 0.1  # the manual weights of Table 4 cannot be reached


@pytest.mark.parametrize("eta", [0.1, 0.5])
def test_the_literal_objective_ends_at_the_cheapest_level(eta):
    costs, z = torch.tensor([0.9, 0.7, 1.1, 0.8]), torch.zeros(1, 2, 4, requires_grad=True)
    active, optimiser = torch.ones(2, 4, dtype=torch.bool), torch.optim.Adam([z], lr=0.05)
    for _ in range(600):
        optimiser.zero_grad()
        alsn.objective(masked_softmax(z, active), costs.expand(1, 2, 4), active, eta, 0.0).backward()
        optimiser.step()
    assert torch.allclose(masked_softmax(z, active)[0, 0], (-costs / eta).softmax(0), atol=1e-3)


def test_entropy_is_not_negative_and_uniform_weights_are_preferred_at_equal_costs():
    sharp, even = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.full((1, 4), 0.25)
    assert entropy(sharp).item() == 0 and entropy(even).item() == pytest.approx(math.log(4))
    active, costs = torch.ones(2, 4, dtype=torch.bool), torch.ones(1, 2, 4)
    total = [alsn.objective(w.expand(1, 2, 4), costs, active, 0.1, 0.0) for w in (sharp, even)]
    assert total[1] < total[0]


def test_the_spread_punishes_one_level_for_all_and_not_one_for_each():
    each, same = torch.eye(4)[:, None].expand(4, 2, 4), torch.eye(4)[:1, None].expand(4, 2, 4)
    active = torch.ones(2, 4, dtype=torch.bool)
    assert torch.allclose(alsn.spread(each, active), torch.zeros(2), atol=1e-6)
    assert torch.allclose(alsn.spread(same, active), torch.full((2,), math.log(4)))


def test_the_utility_is_the_agreement_of_gradients():
    task = drawn(3, 5, 2)
    target = alsn.utility(task, [task, -task, torch.zeros_like(task)], 0.5)
    assert torch.allclose(target, torch.tensor([2.0, -2.0, 0.0]).softmax(0).expand(3, 3), atol=1e-5)
    assert alsn.agreement(target[:, None], target[:, None]).abs() < 1e-6


# terms over the batch


def test_pairs_are_open_clips_loss():
    from open_clip.loss import ClipLoss, DistillClipLoss

    v, t, vt, tt = (F.normalize(drawn(8, 6, seed=i), dim=1).requires_grad_(i < 2) for i in range(4))
    logits, logits_t = contrast.cosines(v, t, 20.0), contrast.cosines(vt, tt, 50.0)
    assert torch.allclose(contrast.pairs(logits), ClipLoss()(v, t, 20.0))
    theirs = DistillClipLoss()(v, t, 20.0, vt, tt, 50.0)[1]
    ours = contrast.both_ways(logits_t, logits)
    known = sum(entropy(x.softmax(1)).mean() for x in (logits_t, logits_t.T)) / 2
    assert torch.allclose(ours, theirs - known, atol=1e-6)
    grads = [torch.autograd.grad(x, (v, t), retain_graph=True) for x in (ours, theirs)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_is_the_published_kd(temperature):
    s, t = drawn(5, 7), drawn(5, 7, seed=1)
    zoo = F.kl_div(F.log_softmax(s / temperature, 1), F.softmax(t / temperature, 1), reduction="batchmean")
    mdistiller = F.kl_div(
        F.log_softmax(s / temperature, 1), F.softmax(t / temperature, 1), reduction="none"
    ).sum(1)
    ours = contrast.divergence(t, s, temperature)
    assert torch.allclose(ours, zoo * temperature**2, atol=1e-6)
    assert torch.allclose(ours, mdistiller.mean() * temperature**2, atol=1e-6)
