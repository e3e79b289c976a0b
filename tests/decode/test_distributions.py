"""Contrast and head of two distributions: the identities, the published rules, and numbers computed otherwise."""

import math

import numpy as np
import pytest
import torch

from vlmlab.decode import choose_layer, contrast, jensen_shannon, plausible, published_criterion


def drawn(*shape, seed=0, spread=3.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread


def soft(x):
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("alpha", [0, 0.05, 0.1, 0.5, 1])
def test_contrast_is_the_softmax_of_log_ratios_over_the_head(alpha):
    final, early = drawn(5, 40), drawn(5, 40, seed=1)
    q, j = soft(final), soft(early)
    head = q >= alpha * q.max(-1, keepdims=True)
    expected = np.where(head, q / j, 0)
    expected /= expected.sum(-1, keepdims=True)
    log_p = contrast(final, early, alpha)
    assert np.allclose(log_p.exp(), expected, atol=1e-5)
    assert ((log_p > -math.inf).numpy() == head).all() and (plausible(final, alpha).numpy() == head).all()
    assert head.any(-1).all() and bool(plausible(final, alpha).gather(1, final.argmax(1, keepdim=True)).all())


def test_a_uniform_early_layer_gives_the_final_distribution_back():
    final, flat = drawn(6, 50), torch.full((6, 50), 2.5)
    assert torch.allclose(contrast(final, flat, 0).exp(), final.softmax(-1), atol=1e-6)
    for alpha in (0.01, 0.1, 0.5, 1):
        assert torch.equal(contrast(final, flat, alpha).argmax(-1), final.argmax(-1))


@pytest.mark.parametrize("alpha", [0, 0.1, 0.4])
def test_the_final_layer_against_itself_is_uniform_and_not_the_original(alpha):
    """The plan's own fallback (alpha -> 0, q_J := q_N) does not give the model back."""
    final = drawn(6, 50)
    log_p = contrast(final, final, alpha)
    near = final >= final.amax(-1, keepdim=True) - (math.log(1 / alpha) if alpha else math.inf)
    assert torch.equal(log_p > -math.inf, near)
    expected = -near.sum(-1, keepdim=True).float().log().expand_as(final)
    assert torch.allclose(log_p[near], expected[near], atol=1e-5)
    assert not torch.allclose(log_p.exp(), final.softmax(-1), atol=0.05)


def published_static(final, early, relative_top=0.1):
    """The rule of the released code (relative_top_filter and the difference), written down again in NumPy; its mask is
    of every row, where the generation of the release uses that of row 0 for the base."""
    with np.errstate(divide="ignore"):
        logged = np.log(soft(final)), np.log(soft(early))
    least = logged[0].max(-1, keepdims=True) + np.log(relative_top)
    return np.where(logged[0] < least, -np.inf, logged[0] - logged[1])


def test_scores_are_the_published_ones_up_to_the_normaliser_of_each_row():
    final, early = drawn(7, 60), drawn(7, 60, seed=1)
    final[2, :30] = -math.inf  # words that another processor ruled out
    expected = published_static(final.clamp_min(-1e30), early)
    log_p = contrast(final, early, 0.1).numpy()
    assert ((log_p > -np.inf) == (expected > -np.inf)).all()
    for row in range(7):
        kept = log_p[row] > -np.inf
        assert np.ptp(log_p[row, kept] - expected[row, kept]) < 1e-4
        assert abs(np.exp(log_p[row, kept]).sum() - 1) < 1e-5
    assert len({tuple(row) for row in log_p > -np.inf}) > 1  # rows have masks of their own


def test_shifts_and_half_precision_change_nothing():
    final, early = drawn(4, 30), drawn(4, 30, seed=1)
    for shift in (5.0, -40.0):
        assert torch.allclose(contrast(final + shift, early - shift), contrast(final, early), atol=1e-4)
    for half in (torch.float16, torch.bfloat16):
        a, b = final.to(half), early.to(half)
        assert contrast(a, b).dtype == torch.float32
        assert torch.equal(contrast(a, b), contrast(a.float(), b.float()))


def test_there_is_no_nan_anywhere():
    rows = torch.stack([drawn(20), drawn(20) * 100, torch.zeros(20), drawn(20)])
    rows[3, 1:] = -math.inf
    for alpha in (0, 1e-6, 0.1, 1):
        for a in rows:
            for b in rows:
                log_p = contrast(a, b, alpha)
                assert not log_p.isnan().any() and math.isclose(float(log_p.exp().sum()), 1, abs_tol=1e-4)
                assert not jensen_shannon(a, b).isnan() and published_criterion(a, b).isfinite()


def divergences(final, early):
    """KL written out with NumPy: (Jensen-Shannon, the criterion of the release)."""
    p, q = soft(final), soft(early)
    m = (p + q) / 2
    kl = lambda a, b: (a * (np.log(a) - np.log(b))).sum(-1)
    return (kl(p, m) + kl(q, m)) / 2, (kl(m, p) + kl(m, q)) / 2


def test_the_criteria_and_that_they_disagree():
    final = torch.cat([torch.full((1, 5), 2.0), torch.zeros(1, 5)], dim=1)
    other, hole = (
        final.flip(1),
        final.clone(),
    )  # all of it otherwise; the same but for one word that is impossible
    hole[0, 0] = -60.0
    early = torch.stack([other, hole])
    true, released = divergences(final, early)
    assert np.allclose(jensen_shannon(final, early), true, atol=1e-5) and true.max() <= math.log(2)
    assert np.allclose(published_criterion(final, early), released, atol=1e-4) and released.max() > math.log(
        2
    )
    assert choose_layer(final, early, "published").tolist() == [1] == [released[:, 0].argmax()]
    assert choose_layer(final, early, "jensen_shannon").tolist() == [0] == [true[:, 0].argmax()]


def test_the_released_choice_is_one_for_the_batch_and_the_true_one_of_each_row():
    final = drawn(6, 30)
    early = torch.stack([drawn(6, 30, seed=s) for s in range(1, 5)])
    true, released = divergences(final, early)
    assert len(set(choose_layer(final, early, "jensen_shannon").tolist())) > 1
    assert choose_layer(final, early, "jensen_shannon").tolist() == true.argmax(0).tolist()
    assert choose_layer(final, early, "published").tolist() == [released.mean(1).argmax()] * 6
    few = early.clone()
    few[3], few[3, 0, final[0].argmax()] = (
        final,
        -60.0,
    )  # one row is most unlike there, and no other row at all
    _, released = divergences(final, few)
    assert released.max(1).argmax() == 3 != released.mean(1).argmax()
    assert choose_layer(final, few, "published").tolist() == [released.mean(1).argmax()] * 6
    with pytest.raises(ValueError, match=r"unknown rule 'jsd'.*published, jensen_shannon"):
        choose_layer(final, early, "jsd")
