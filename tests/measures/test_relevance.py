import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr

import vlmlab
from vlmlab import capture, measures

PROBS, GRADS = "image.attn.probs", "image.attn.grads"


def maps_of(record, **options):
    p, g = record[PROBS], record[GRADS]
    return {
        "rollout": measures.rollout(p, **options),
        "chefer": measures.chefer(p, g, **options),
        "legrad": measures.legrad(g),
        "product": measures.grad_times_attention(p, g, **options),
    }


# --- the maps, by hand --------------------------------------------------------------------------

A = np.array([[[0.5, 0.5], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6]]])[:, None, None]  # 2 layers, 2 tokens
G = np.array([[[1.0, -2.0], [3.0, 0.5]], [[2.0, 1.0], [-1.0, 1.0]]])[:, None, None]


def test_rollout_by_hand():
    first, second = (a[0, 0] / 2 + np.eye(2) / 2 for a in A)
    for query in (0, 1):
        assert np.allclose(measures.rollout(A, query), (second @ first)[query])


@pytest.mark.parametrize("depth", [3, 4])
def test_rollout_multiplies_the_blocks_in_their_order(depth):
    a = np.random.default_rng(0).random((depth, 2, 1, 5, 5))
    a /= a.sum(axis=-1, keepdims=True)
    for sample in range(2):
        flow = np.eye(5)
        for step in a[:, sample, 0]:
            flow = (step / 2 + np.eye(5) / 2) @ flow
        assert np.allclose(measures.rollout(a, 2)[sample], flow[2])


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


def test_wrong_shapes():
    with pytest.raises(ValueError, match="of shape"):
        measures.rollout(A[0])
    with pytest.raises(ValueError, match="same shape"):
        measures.chefer(A, G[:1])


def grid_map(values):
    """(sample, row, col) as a map over patches."""
    n, down, across = np.shape(values)
    at = {
        "row": ("token", np.repeat(np.arange(down), across)),
        "col": ("token", np.tile(np.arange(across), down)),
    }
    return xr.DataArray(np.reshape(values, (n, -1)), at, ("sample", "token"))


def test_region_shares_by_hand():
    masks = np.zeros((1, 2, 4, 4), bool)
    masks[0, 0, :2, :1] = True  # half of the patch at the upper left
    masks[0, 1] = ~masks[0, 0]
    found = measures.region_shares(grid_map([[[6.0, 1.0], [1.0, 0.0]]]), masks)
    assert found.dims == ("sample", "region") and found.values[0] == pytest.approx([3 / 8, 5 / 8])
    even = measures.region_shares(grid_map(np.ones((1, 2, 2))), masks)
    assert even.values[0] == pytest.approx([2 / 16, 14 / 16])  # the regions' shares of the image


@pytest.mark.parametrize(
    "map_, sides", [(np.zeros((1, 2, 2)), 4), (np.ones((1, 2, 2)), 5), (np.ones((2, 2, 2)), 4)]
)
def test_region_shares_of_what_has_none(map_, sides):
    with pytest.raises(
        ValueError, match=r"no relevance at all|expected .sample, region, height, width. with"
    ):
        measures.region_shares(grid_map(map_), np.ones((1, 2, sides, sides), bool))


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
    maps = {**maps_of(record), "legrad": measures.legrad(each[GRADS])}
    del maps["rollout"]  # attention alone: it does not know which score is asked for
    for name, x in maps.items():
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
