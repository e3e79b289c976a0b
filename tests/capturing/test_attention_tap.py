import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmlab.capturing.attention_tap import attention_tap

KERNEL = F.scaled_dot_product_attention


def seen(run, gradient=False):
    calls = []
    with attention_tap(calls.append, gradient=gradient):
        out = run()
    return calls, out


@pytest.fixture
def qkv():
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 6, 8, generator=random) for _ in range(3)]


def test_equals_need_weights_of_multihead_attention():
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(32, 4, batch_first=True).eval(), torch.randn(3, 7, 32)
    with torch.no_grad():
        _, weights = attention(x, x, x, average_attn_weights=False)
        native, _ = attention(x, x, x, need_weights=False)  # the fast path
        (call,), (out, _) = seen(lambda: attention(x, x, x, need_weights=False))
    assert (call.probs - weights).abs().max() < 1e-6
    assert (out - native).abs().max() < 2e-6
    assert (call.probs.sum(-1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.rand(6, 6) > 0.3},
        {"attn_mask": torch.randn(2, 1, 6, 6)},
        {"attn_mask": torch.full((6, 6), -torch.inf).triu(1)},
    ],
    ids=["plain", "causal", "scale", "bool mask", "float mask", "causal mask"],
)
def test_probabilities_explain_the_kernel(qkv, options):
    q, k, v = qkv
    if "attn_mask" in options and options["attn_mask"].dtype == torch.bool:
        options["attn_mask"][:, 0] = True  # the kernel has no answer for a query that may see nothing
    (call,), out = seen(lambda: F.scaled_dot_product_attention(q, k, v, **options))
    assert torch.equal(out, KERNEL(q, k, v, **options))
    assert (call.probs @ v - out).abs().max() < 1e-6


def test_causal_upper_triangle_is_exactly_zero(qkv):
    (call,), _ = seen(lambda: F.scaled_dot_product_attention(*qkv, is_causal=True))
    assert call.probs.triu(1).abs().max() == 0


def test_a_query_that_sees_nothing_gets_zeros(qkv):
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[2] = False
    (call,), _ = seen(lambda: F.scaled_dot_product_attention(*qkv, attn_mask=mask))
    assert call.probs[:, :, 2].abs().max() == 0
    assert (call.probs[:, :, 1].sum(-1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("gradient", [False, True])
def test_grouped_queries_share_keys(qkv, gradient):
    q, k, v = qkv[0], qkv[1][:, :2], qkv[2][:, :2]
    (call,), out = seen(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), gradient)
    assert call.probs.shape == (2, 4, 6, 6)
    assert (call.probs @ v.repeat_interleave(2, dim=1) - KERNEL(q, k, v, enable_gqa=True)).abs().max() < 1e-6
    assert (out - KERNEL(q, k, v, enable_gqa=True)).abs().max() < 1e-6


def test_gradient_mode_puts_probabilities_into_the_graph(qkv):
    q, k, v = qkv
    q.requires_grad_()
    (call,), out = seen(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), gradient=True)
    assert (out - KERNEL(q, k, v, is_causal=True)).abs().max() < 1e-6
    (grad,) = torch.autograd.grad(out[..., 0].sum(), call.probs)
    assert torch.allclose(grad, v[:, :, None, :, 0].expand_as(grad))


def test_half_precision_is_computed_in_float32(qkv):
    (call,), out = seen(lambda: F.scaled_dot_product_attention(*(x.bfloat16() for x in qkv)))
    assert call.probs.dtype == torch.float32 and out.dtype == torch.bfloat16
    assert (call.probs.sum(-1) - 1).abs().max() < 1e-6


def test_everything_is_restored_after_an_exception():
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError), attention_tap(lambda call: None):
        assert F.scaled_dot_product_attention is not KERNEL
        assert not torch.backends.mha.get_fastpath_enabled()
        raise ZeroDivisionError
    assert F.scaled_dot_product_attention is KERNEL
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_a_second_tap_raises_and_leaves_the_first_open(qkv):
    calls = []
    with attention_tap(calls.append):
        with pytest.raises(RuntimeError, match="already open"), attention_tap(calls.append):
            pass
        F.scaled_dot_product_attention(*qkv)
    assert len(calls) == 1 and F.scaled_dot_product_attention is KERNEL


def test_other_threads_are_refused_a_tap_and_not_listened_to(qkv):
    calls, errors, outs = [], [], []

    def other():
        outs.append(F.scaled_dot_product_attention(*qkv))
        try:
            with attention_tap(calls.append):
                pass
        except RuntimeError as e:
            errors.append(str(e))

    with attention_tap(calls.append):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert not calls and "already open" in errors[0]
    assert torch.equal(outs[0], KERNEL(*qkv))


def test_the_tap_sees_all_queries_of_a_method(mmrlpp):
    """Also of the last block, of which a method by itself computes no more than the tokens that are read."""
    images = torch.zeros(1, 3, mmrlpp.vlm.image_size, mmrlpp.vlm.image_size)
    calls, features = seen(lambda: mmrlpp.encode_image(images), gradient=True)
    last = mmrlpp.vlm.image.layouts[mmrlpp.vlm.image.depth]
    tokens = sum(count for _, count in last)
    assert tuple(calls[-1].probs.shape[-2:]) == (tokens, tokens) and dict(last)["patch"] > 1
    torch.testing.assert_close(features["cls"], mmrlpp.encode_image(images)["cls"], rtol=1e-4, atol=1e-4)


def test_without_a_gradient_the_output_is_the_kernels_own(qkv):
    """To the bit; an explicit softmax would round otherwise in half precision."""
    q, k, v = (x.bfloat16() for x in qkv)
    with attention_tap(lambda call: None):
        assert torch.equal(F.scaled_dot_product_attention(q, k, v), KERNEL(q, k, v))
        with pytest.raises(RuntimeError, match="must match"):  # grouped queries only where they are asked for
            F.scaled_dot_product_attention(q, k[:, :2], v[:, :2])
    _, explicit = seen(lambda: F.scaled_dot_product_attention(q, k, v), gradient=True)
    assert not torch.equal(explicit, KERNEL(q, k, v))


@pytest.mark.parametrize("gradient", [False, True])
def test_dropout_stays(qkv, gradient):
    for share, left in ((1.0, 0.0), (0.0, 1.0)):
        _, out = seen(lambda share=share: F.scaled_dot_product_attention(*qkv, dropout_p=share), gradient)
        assert torch.allclose(out, left * KERNEL(*qkv), atol=1e-6)
