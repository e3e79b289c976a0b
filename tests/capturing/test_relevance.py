import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlmlab
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
    final, each = (capture.attention_grads(vlm, images, target, each_layer=e)[GRADS] for e in (False, True))
    assert np.allclose(final.sel(layer=4), each.sel(layer=4), atol=1e-7)
    for layer in (1, 2, 3):  # read from the class token: other rows of that block do not count
        x = each.sel(layer=layer).values
        assert np.abs(x[:, :, 0]).max() > 0 and not x[:, :, 1:].any()


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


# --- the maps, by hand --------------------------------------------------------------------------

A = np.array([[[0.5, 0.5], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6]]])[:, None, None]  # 2 layers, 2 tokens
G = np.array([[[1.0, -2.0], [3.0, 0.5]], [[2.0, 1.0], [-1.0, 1.0]]])[:, None, None]


def test_rollout_by_hand():
    first, second = (a[0, 0] / 2 + np.eye(2) / 2 for a in A)
    for query in (0, 1):
        assert np.allclose(measures.rollout(A, query), (second @ first)[query])


def test_chefer_by_hand():
    relevance = np.eye(2)
    for a, g in zip(A[:, 0, 0], G[:, 0, 0]):
        relevance = relevance + np.maximum(a * g, 0) @ relevance
    for query in (0, 1):
        assert np.allclose(measures.chefer(A, G, query), relevance[query])


def test_legrad_and_product_by_hand():
    # positive gradients: columns of layer 1 sum to (4, 0.5), of layer 2 to (2, 2); two queries, two layers
    assert np.allclose(measures.legrad(G), [[(4 + 2) / 4, (0.5 + 2) / 4]])
    assert np.allclose(measures.grad_times_attention(A, G), [[(0.5 * 1 + 0.9 * 2) / 2, (0 + 0.1) / 2]])
    two_heads = np.concatenate([G, np.zeros_like(G)], axis=2)
    assert np.allclose(measures.legrad(two_heads), measures.legrad(G) / 2)


def test_a_token_that_a_block_lacks_stays_itself():
    small, p, g = A[:1], np.full((2, 1, 1, 3, 3), np.nan), np.full((2, 1, 1, 3, 3), np.nan)
    p[0, ..., :2, :2], g[0, ..., :2, :2] = small[0], G[0]
    p[1], g[1] = 1 / 3, 1.0
    last, first = np.full((3, 3), 1 / 6) + np.eye(3) / 2, np.eye(3)
    first[:2, :2] = small[0, 0, 0] / 2 + np.eye(2) / 2
    assert np.allclose(measures.rollout(p), (last @ first)[0])
    assert np.allclose(measures.legrad(g), [[(4 / 2 + 1) / 2, (0.5 / 2 + 1) / 2, 1 / 2]])


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


def test_wrong_shapes():
    with pytest.raises(ValueError, match="of shape"):
        measures.rollout(A[0])
    with pytest.raises(ValueError, match="same shape"):
        measures.chefer(A, G[:1])


# --- on the embedded model ----------------------------------------------------------------------


def test_covering_what_a_map_shows_hurts_more_than_covering_the_rest():
    vlm, task = vlmlab.load("tiny"), vlmlab.task("emoji/animals", protocol="base_to_new", shots=4, seed=1)
    split = task.base.select(range(0, len(task.base), max(1, len(task.base) // 12)))
    own = F.normalize(vlm.encode_text(split.prompts), dim=-1)[torch.tensor(np.array(split.labels))]

    def target(z):
        return (F.normalize(z, dim=-1) * own).sum(dim=-1)

    record = capture.attention_grads(vlm, split, target)
    each = capture.attention_grads(vlm, split, target, each_layer=True)
    pixels = torch.stack([vlm.preprocess(split.image(i)) for i in range(len(split))])
    for name, x in {**maps_of(record), "legrad": measures.legrad(each[GRADS])}.items():
        patches = torch.tensor(x.values[:, x["role"].values == "patch"])
        order, side = patches.argsort(dim=1), int(x["row"].max()) + 1
        scores = []
        for part in (
            order[:, -(side * side) // 4 :],
            order[:, : side * side // 4],
        ):  # most and least relevant
            mask = torch.zeros_like(patches).scatter(1, part, 1.0).view(-1, 1, side, side)
            mask = F.interpolate(mask, size=pixels.shape[-2:])
            with torch.no_grad():
                scores.append(target(vlm.encode_image(pixels * (1 - mask) + pixels.max() * mask)).mean())
        assert scores[0] < scores[1] - 0.005, name
