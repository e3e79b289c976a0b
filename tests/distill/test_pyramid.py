"""Levels: shapes for any grid, what they see and what they do not, and the plan's own code."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vlmlab
from vlmlab.distill import taps
from vlmlab.distill.builder import Builder, axes, tapped
from vlmlab.distill.language import LanguageHierarchy, LiteralHierarchy, in_phrases
from vlmlab.distill.pyramid import VisualPyramid, pooled, sizes_for, to_map

SIDES = (56, 28, 14, 7)


@pytest.mark.parametrize("grid", [(14, 14), (16, 16), (7, 7), (24, 24), (8, 12)])
def test_sizes_are_those_of_the_configuration_whatever_the_grid(grid):
    sizes = sizes_for(SIDES, grid)
    assert sizes == ([(s, s) for s in SIDES] if grid[0] == grid[1] else [(s, s * 12 // 8) for s in SIDES])
    pyramid = VisualPyramid([12] * 4, 6, sizes)
    maps = [torch.randn(2, 12, *grid, requires_grad=True) for _ in range(4)]
    levels = pyramid(maps)
    assert [tuple(x.shape) for x in levels] == [(2, 6, *size) for size in sizes]
    assert pooled(levels).shape == (2, 4, 6)
    sum(x.square().mean() for x in levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pyramid.parameters())


def test_a_convolutional_network_has_a_grid_and_a_width_per_level():
    timm = pytest.importorskip("timm")
    body = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    maps = body(torch.randn(1, 3, 64, 64))
    pyramid = VisualPyramid(body.feature_info.channels(), 6, sizes_for((16, 8, 4, 2), maps[-1].shape[2:]))
    assert [x.shape[2] for x in maps] == [16, 8, 4, 2]  # native
    assert [x.shape[2] for x in pyramid(maps)] == [16, 8, 4, 2]


def test_the_plans_own_pyramid_fails_at_its_first_addition():
    lateral = nn.Conv2d(8, 4, 1)
    p5 = F.interpolate(lateral(torch.randn(1, 8, 14, 14)), scale_factor=2, mode="nearest")
    with pytest.raises(RuntimeError, match="must match"):
        lateral(torch.randn(1, 8, 14, 14)) + p5


def test_a_step_moves_every_parameter_of_a_builder(models):
    torch.manual_seed(0)
    for model in models.values():
        builder = Builder(model, (8, 8), sizes_for((8, 4, 2, 1), (4, 4)))
        images = torch.randn(3, 3, model.image_size, model.image_size)
        levels = builder(*tapped(builder, model, images, ["a disc", "a red cross on a ground", "pale"]))
        assert levels.vision.shape == levels.language.shape == (3, 4, 8)
        assert [x.shape[2] for x in levels.maps] == [8, 4, 2, 1]
        before = {n: p.clone() for n, p in builder.named_parameters()}
        optimiser = torch.optim.SGD(builder.parameters(), lr=0.1)
        (sum(x.square().mean() for x in levels.maps) + levels.language.square().mean()).backward()
        optimiser.step()
        assert all(not torch.equal(p, before[n]) for n, p in builder.named_parameters())


def test_taps_are_what_capture_sees(models):
    model, images = models["teacher"], torch.randn(2, 3, 40, 40)
    blocks = taps.block_numbers(model.image)
    assert blocks == [2, 4, 6, 8] and taps.block_numbers(model.text) == [2, 3, 4, 6]
    with torch.no_grad():
        found, words = taps.of_images(model, images, blocks), taps.of_texts(model, ["a red disc"], [3, 6])
        assert torch.allclose(found.embed, model.encode_image(images), atol=1e-5)
        assert torch.allclose(words.embed, model.encode_text(["a red disc"]), atol=1e-5)
    record = vlmlab.capture(model, images, ["image.resid.post"])["image.resid.post"]
    for level, block in zip(found.levels, blocks):
        patches = record.sel(layer=block, role="patch").values if "role" in record.indexes else None
        there = record.sel(layer=block).values[:, 1:] if patches is None else patches
        assert torch.allclose(level, torch.from_numpy(there), atol=1e-4)
    assert found.grid == (5, 5) and words.mask.all() and words.ends.item() == len(words.mask[0]) - 1


def test_twelve_and_twenty_four_blocks_are_tapped_as_published():
    class Deep:
        kind, depth = "image", 12

    assert taps.block_numbers(Deep) == [3, 6, 9, 12]
    Deep.depth = 24
    assert taps.block_numbers(Deep) == [6, 12, 18, 24]
    Deep.depth = 3
    with pytest.raises(ValueError, match="4 levels need as many blocks"):
        taps.block_numbers(Deep)


# language


def levels_of(model, hierarchy, ids, cut=None):
    tower = model.text
    tower.shortcuts = False  # the padding runs as well
    try:
        tokens = tower.embed(ids)
        found, _ = taps.through(tower, tokens, taps.block_numbers(tower))
        mask = taps.words(tower, ids, tokens.eos)
        return torch.stack(hierarchy([t.x for t in found], mask, tokens.eos), dim=1)
    finally:
        tower.shortcuts = True


@pytest.fixture(scope="module")
def hierarchies(models):
    torch.manual_seed(1)
    width = models["student"].text.width
    return LanguageHierarchy(width, 8).eval(), LiteralHierarchy(width, 8).eval()


@torch.no_grad()
def test_padding_changes_no_level(models, hierarchies):
    model, (own, plan) = models["student"], hierarchies
    ids = model.tokenize(["a red disc", "cross"])
    other = torch.where(torch.arange(24)[None] > ids.argmax(1, keepdim=True), 7, ids)
    assert torch.allclose(levels_of(model, own, ids), levels_of(model, own, other), atol=1e-6)
    assert not torch.allclose(levels_of(model, plan, ids), levels_of(model, plan, other), atol=1e-3)


@torch.no_grad()
def test_a_sample_does_not_see_the_others(models, hierarchies):
    model, (own, plan) = models["student"], hierarchies
    one, two = (model.tokenize(["a red disc", text]) for text in ("cross", "a blue square, dark and pale"))
    assert torch.allclose(levels_of(model, own, one)[0], levels_of(model, own, two)[0], atol=1e-6)
    assert not torch.allclose(levels_of(model, plan, one)[0], levels_of(model, plan, two)[0], atol=1e-4)


@torch.no_grad()
def test_the_last_level_tells_texts_apart_where_the_plans_cannot(models, hierarchies):
    model, (own, plan) = models["student"], hierarchies
    ids = model.tokenize(["a red disc", "cross", "pale and dark"])
    assert levels_of(model, own, ids)[:, 3].std(0).max() > 1e-3
    plans = levels_of(model, plan, ids)[:, 3]
    assert torch.equal(plans, plans[:1].expand(3, -1))  # position 0 of a causal tower


def test_phrases_are_three_words_and_a_short_text_is_one():
    x = torch.arange(10.0).view(2, 5, 1)
    mask = torch.tensor([[True] * 4 + [False], [True] * 2 + [False] * 3])
    means, whole = in_phrases(x, mask)
    assert whole.tolist() == [[True, True, False, False, False], [True, False, False, False, False]]
    assert means[0, :2, 0].tolist() == [1.0, 2.0] and means[1, 0, 0].item() == 5.5


def test_words_of_texts_that_are_read_elsewhere():
    class Tower:
        read_at, text = "last", type("T", (), {"pad_id": 1})

    ids = torch.tensor([[5, 6, 1, 1], [7, 8, 9, 2]])
    found = taps.words(Tower, ids, torch.tensor([3, 3]))
    assert found.tolist() == [[True, True, False, True], [True] * 4]


def test_patches_become_rows_and_columns():
    x = torch.arange(6.0).view(1, 6, 1)
    assert to_map(x, (2, 3))[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_axes_are_the_principal_ones():
    x = torch.randn(200, 5, dtype=torch.double) * torch.tensor([3.0, 0.1, 2.0, 0.2, 1.0]) + 7
    ones = torch.cat([x, torch.ones(200, 1)], dim=1)
    found = axes(ones.T @ ones, 2)
    v = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2]
    assert (
        torch.allclose(found.abs(), v[:2].T.abs(), atol=1e-6)
        and (found.abs().max(0).values == found.max(0).values).all()
    )
