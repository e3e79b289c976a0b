import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlmlab import capture, measures
from vlmlab.capturing import attention_tap as tap

PROBS, GRADS = "image.attn.probs", "image.attn.grads"
KERNEL = F.scaled_dot_product_attention


@pytest.fixture
def target(vlm):
    words = F.normalize(vlm.encode_text(["a cat"]), dim=-1)[0]
    return lambda z: F.normalize(z["cls"] if isinstance(z, dict) else z, dim=-1) @ words


def maps_of(record, **options):
    p, g = record[PROBS], record[GRADS]
    return {
        "rollout": measures.rollout(p, **options),
        "chefer": measures.chefer(p, g, **options),
        "legrad": measures.legrad(g),
        "product": measures.grad_times_attention(p, g, **options),
    }


# --- attention_grads ----------------------------------------------------------------------------


def test_probabilities_are_those_of_capture_and_nothing_stays(vlm, images, target, hooks_left):
    record = capture.attention_grads(vlm, images, target)
    plain = capture(vlm, images, PROBS, progress=False)[PROBS]
    assert record[PROBS].dims == record[GRADS].dims == plain.dims
    assert np.abs(record[PROBS] - plain).max() < 1e-6
    assert not hooks_left(vlm) and KERNEL is F.scaled_dot_product_attention
    assert not vlm.image.observers and not images.requires_grad


def test_gradients_equal_finite_differences(vlm, images, target, monkeypatch):
    record = capture.attention_grads(vlm, images[:2], target)
    explicit, calls, step = tap.explicit, [], 1e-2

    def moved(sign):
        def with_step(call, dropout_p):
            calls.append(call)
            if len(calls) == 3:  # block 3: sample 1, head 0, query 4, token 6
                call.probs[1, 0, 4, 6] += sign * step
            return explicit(call, dropout_p)

        calls.clear()
        monkeypatch.setattr(tap, "explicit", with_step)
        with torch.no_grad(), tap.attention_tap(lambda call: None, gradient=True):
            return target(vlm.encode_image(images[:2])).double()

    difference = (moved(1) - moved(-1)) / (2 * step)
    expected = float(record[GRADS].sel(layer=3).values[1, 0, 4, 6])
    assert abs(float(difference[1]) - expected) < 0.02 * abs(expected) + 1e-5 and abs(expected) > 1e-4
    assert difference[0] == 0  # samples do not mix


def test_only_the_class_row_of_the_last_block_matters(vlm, images, target):
    grads = capture.attention_grads(vlm, images, target)[GRADS]
    last = grads.sel(layer=4).values
    assert np.abs(last[:, :, 0]).max() > 0 and not last[:, :, 1:].any()
    assert all(np.abs(grads.sel(layer=l).values[:, :, 1:]).max() > 0 for l in (1, 2, 3))


def test_scores_behind_each_layer(vlm, images, target):
    """LeGrad reads the mean of all tokens (arXiv 2404.03214, Eq. 5 and its code), here written out in torch."""
    each = capture.attention_grads(vlm, images, target, each_layer=True)[GRADS]
    visual, grads = vlm.clip.visual, []
    x = vlm.image.embed(images).x
    for block in visual.transformer.resblocks:
        attn = block.attn
        q, k, v = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (y.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
        probs = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).detach().requires_grad_()
        x = x + attn.out_proj((probs @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
        score = target(visual.ln_post(x.mean(1)) @ visual.proj).sum()
        grads.append(torch.autograd.grad(score, probs, retain_graph=True)[0])
        x = x.detach()
    assert np.allclose(each.transpose("layer", ...).values, torch.stack(grads), atol=1e-6)
    assert np.abs(each.sel(layer=2).values[:, :, 1:]).max() > 0  # every query counts


def test_a_method_with_frozen_blocks_and_tokens_that_appear(mmrlpp, images, target, hooks_left):
    record = capture.attention_grads(mmrlpp, images, target)
    assert record[GRADS].sel(layer=1).isel(token=1).isnull().all()
    assert np.abs(record[GRADS].sel(layer=1).isel(token=0)).max() > 0  # a block that runs without a graph
    for name, x in maps_of(record).items():
        assert x.dims == ("sample", "token") and x["role"].values.tolist()[:3] == ["cls", "prompt", "prompt"]
        assert x.notnull().all() and x["id"].size == 5, name
    assert np.abs(measures.rollout(record[PROBS]).sum("token") - 1).max() < 1e-5
    assert not hooks_left(mmrlpp)
    with pytest.raises(ValueError, match="each_layer reads features"):
        capture.attention_grads(mmrlpp, images, target, each_layer=True)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda z: z, r"returned shape \(5, 32\); expected one score per sample, \(5,\)"),
        (lambda z: z.detach().sum(-1), "computed from the features"),
        (lambda z: 3.0, "returned float"),
    ],
)
def test_targets_that_are_no_scores(vlm, images, target, message, hooks_left):
    with pytest.raises(ValueError, match=message):
        capture.attention_grads(vlm, images, target)
    assert not hooks_left(vlm) and KERNEL is F.scaled_dot_product_attention


def test_attention_without_a_graph_is_reported(vlm, images, target, monkeypatch):
    monkeypatch.setattr(vlm, "encode_image", torch.no_grad()(vlm.encode_image))
    with pytest.raises(ValueError, match=r"blocks \[1, 2, 3, 4\] is not part of the graph"):
        capture.attention_grads(vlm, images, target)


def test_arrays_tensors_and_labels_give_the_same(vlm, images, target):
    record = capture.attention_grads(vlm, images, target)
    p, g = (torch.tensor(record[name].values) for name in (PROBS, GRADS))
    labelled = maps_of(record)
    plain = {
        "rollout": measures.rollout(p),
        "chefer": measures.chefer(p, g),
        "legrad": measures.legrad(g),
        "product": measures.grad_times_attention(p, g),
    }
    for name, x in labelled.items():
        assert isinstance(plain[name], torch.Tensor) and np.array_equal(plain[name].numpy(), x.values)
    swapped = measures.legrad(record[GRADS].transpose("token", "sample", "head", "query", "layer"))
    assert np.array_equal(swapped, labelled["legrad"])
