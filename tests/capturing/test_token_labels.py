import numpy as np
import pytest
import torch

from vlmlab.capturing.check_layout import check_layout, grid_of
from vlmlab.token_labels import (
    SampleRoles,
    coordinates,
    describe_layout,
    grid_by_shape,
    layouts_by_layer,
    parse_layout,
    tokens_of,
    union,
)

MMRL = {1: "cls patch*", 3: "cls prompt:2 patch*"}


@pytest.mark.parametrize(
    ("text", "total", "layout"),
    [
        ("cls patch*", 17, (("cls", 1), ("patch", 16))),
        ("cls prompt:5 patch*", 70, (("cls", 1), ("prompt", 5), ("patch", 64))),
        ("cls patch* prompt:4", 21, (("cls", 1), ("patch", 16), ("prompt", 4))),
        ("sos prompt:4 word*", 16, (("sos", 1), ("prompt", 4), ("word", 11))),
        ("cls patch:16", 17, (("cls", 1), ("patch", 16))),
    ],
)
def test_layout_strings(text, total, layout):
    assert parse_layout(text, total) == layout
    assert parse_layout(describe_layout(layout), total) == layout


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("cls prompt:5 patch*", 6),
        ("cls patch:16", 18),
        ("cls patch* word*", 17),
        ("", 3),
        ("cls:x", 1),
        ("CLS", 1),
    ],
)
def test_layouts_that_do_not_fit(text, total):
    with pytest.raises(ValueError, match="layout"):
        parse_layout(text, total)


def test_layouts_by_layer():
    found = layouts_by_layer(MMRL, {1: 17, 2: 17, 3: 19, 4: 19})
    assert [describe_layout(found[i]) for i in (2, 3)] == ["cls patch:16", "cls prompt:2 patch:16"]
    with pytest.raises(ValueError, match="block 3"):
        layouts_by_layer("cls patch:16", {1: 17, 3: 19})
    with pytest.raises(ValueError, match="no layout for block 1"):
        layouts_by_layer({2: "cls patch*"}, {1: 17})


def test_union_keeps_every_token_at_one_place():
    early, late = tokens_of((("cls", 1), ("patch", 2))), tokens_of((("cls", 1), ("prompt", 2), ("patch", 2)))
    assert union([early, late, early]) == late
    assert union([(("cls", 0), ("prompt", 0)), (("cls", 0), ("patch", 0), ("patch", 1))]) == (
        ("cls", 0),
        ("prompt", 0),
        ("patch", 0),
        ("patch", 1),
    )
    assert union([(("a", 0),), (("b", 0), ("a", 0))]) == (("b", 0), ("a", 0))
    first, later = (("a", 0), ("new", 0)), (("a", 0), ("new", 1))  # steps of a generation
    assert union([first, later, (("new", 2),)]) == (("a", 0), ("new", 0), ("new", 1), ("new", 2))


def test_a_role_in_two_runs_goes_on_counting():
    assert tokens_of((("prompt", 1), ("patch", 1), ("prompt", 2))) == (
        ("prompt", 0),
        ("patch", 0),
        ("prompt", 1),
        ("prompt", 2),
    )


def test_coordinates_of_patches():
    tokens = tokens_of((("cls", 1), ("prompt", 1), ("patch", 6)))
    found = coordinates(tokens, (2, 3))
    assert found["row"].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert found["col"].tolist() == [-1, -1, 0, 1, 2, 0, 1, 2]
    assert "row" not in coordinates(tokens) and "row" not in coordinates(tokens, (2, 2))
    assert "row" not in coordinates((("sos", 0), ("word", 0)), (2, 3))
    own = coordinates(tokens, (np.array([1, 3]), np.array([4, 2])))  # of two images
    assert own["row"].tolist() == [[-1, -1, 0, 0, 0, 0, -1, -1], [-1, -1, 0, 0, 1, 1, 2, 2]]


@pytest.mark.parametrize(("rows", "cols"), [(4, 9), (9, 4), (1, 5), (5, 1), (1, 1), (6, 6)])
@pytest.mark.parametrize("broad", [1, 2])
def test_a_grid_is_told_by_what_its_edges_change(rows, cols, broad):
    """broad: rows and columns of patches that one row or column of pixels changes, as in a stem that overlaps."""
    number, broad_row, broad_col = np.arange(rows * cols), min(broad, rows), min(broad, cols)
    first_row, first_col = number[number // cols < broad_row], number[number % cols < broad_col]
    found = grid_of(first_row, first_col, rows * cols)
    sure = broad_row < rows or broad_col < cols or rows * cols == 1
    assert found in ((rows, cols), None) and (found is not None or broad == 2 or not sure)
    assert grid_of(number, number, rows * cols) in (None, (1, 1))  # everything changes
    if min(rows, cols) > 1:  # down the columns
        turned = number.reshape(cols, rows)
        assert (
            grid_of(np.sort(turned[:, 0]), np.sort(turned[0]), rows * cols) in (None, (cols, rows)) or broad
        )


def test_patches_of_a_cross_attention_have_a_grid_where_their_shape_tells():
    assert grid_by_shape(32, 64, 128) == (4, 8) and grid_by_shape(16, 32, 32) == (4, 4)
    assert grid_by_shape(35, 64, 128) is None and grid_by_shape(0, 64, 128) is None


def test_text_roles_depend_on_the_sample():
    words = SampleRoles(
        tokens_of((("word", 4),)), ("word", "eos", "pad"), np.array([[0, 0, 1, 2], [0, 0, 0, 1]])
    )
    found = words.of(tokens_of((("sos", 1), ("prompt", 1), ("word", 4))))
    assert found.text().tolist() == [
        ["sos", "prompt", "word", "word", "eos", "pad"],
        ["sos", "prompt", "word", "word", "word", "eos"],
    ]


@pytest.fixture
def noise():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_two_images_confirm_the_layouts_of_clip_and_of_mid_network_tokens(vlm, mmrlpp, noise, hooks_left):
    assert describe_layout(check_layout(vlm.image, noise, vlm.image)[4]) == "cls patch:16"
    found = check_layout(vlm.image, noise, mmrlpp.encode_image)
    assert [describe_layout(found[i]) for i in (2, 3, 4)] == ["cls patch:16"] + ["cls prompt:2 patch:16"] * 2
    assert check_layout(vlm.image, noise, mmrlpp.encode_image, layouts=MMRL) == found
    assert not hooks_left(vlm)


@pytest.mark.parametrize(
    ("layouts", "message"),
    [
        (
            {1: "cls patch*", 3: "cls patch*"},
            r"block 3: token 1 is called patch\[0\].*equal for two different",
        ),
        ({1: "cls patch*", 3: "cls patch* prompt:2"}, r"block 3: token 1 is called patch\[0\]"),
        (
            {1: "cls patch*", 3: "prompt:2 cls patch*"},
            r"block 3: token 0 is called prompt\[0\] and enters here",
        ),
        ({1: "patch* cls", 3: "cls prompt:2 patch*"}, r"block 1: token 0 is called patch\[0\]"),
        ({1: "cls prompt:2 patch*"}, r"block 1: token 1 is called prompt\[0\]"),
    ],
)
def test_two_images_refute_a_wrong_layout(vlm, mmrlpp, noise, layouts, message, hooks_left):
    with pytest.raises(ValueError, match=message):
        check_layout(vlm.image, noise, mmrlpp.encode_image, layouts=layouts)
    assert not hooks_left(vlm)


def test_the_check_needs_the_whole_tower(vlm, noise, hooks_left):
    with pytest.raises(ValueError, match=r"only blocks \[1, 2\]"):
        check_layout(vlm.image, noise, lambda x: vlm.image.run(vlm.image.embed(x), stop=2))
    assert not hooks_left(vlm)


def test_equal_images_are_noticed(vlm):
    with pytest.raises(ValueError, match="equal for two different images"):
        check_layout(vlm.image, torch.zeros(2, 3, 32, 32), vlm.image)
