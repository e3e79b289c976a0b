"""Drawings reduced to their lines: black, where colours meet, and never in the middle of an even area."""

import pytest
import torch

from vlmlab.tasks.emoji import augment


def square(colour: tuple[int, int, int]) -> torch.Tensor:
    """(1, 64, 64, 4): a square of 32 x 32 pixels in the middle of nothing."""
    picture = torch.zeros(1, 64, 64, 4, dtype=torch.uint8)
    picture[:, 16:48, 16:48] = torch.tensor([*colour, 255], dtype=torch.uint8)
    return picture


def drawn(picture: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment.line_art(torch.Generator().manual_seed(seed), picture)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("colour", [(250, 220, 60), (255, 255, 255), (230, 160, 240)])
def test_a_light_square_becomes_its_outline(colour, seed):
    found = drawn(square(colour), seed)
    ink = found[0, ..., 3]
    assert found.dtype == torch.uint8 and not found[..., :3].any()  # black
    assert (ink[16, 18:46] > 200).all() and (ink[18:46, 47] > 200).all()  # on its border
    assert not ink[20:44, 20:44].any() and not ink[:12].any() and not ink[:, :12].any()


def test_dark_parts_are_filled_in_some_and_left_out_in_others():
    filled = [bool(drawn(square((10, 10, 10)), seed)[0, 32, 32, 3] > 200) for seed in range(20)]
    assert 0 < sum(filled) < 20


def test_pictures_are_drawn_each_in_its_own_way_and_by_the_seed_alone():
    many = square((200, 120, 40)).expand(8, -1, -1, -1)
    a, b, c = drawn(many), drawn(many), drawn(many, seed=1)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert len({bytes(x.numpy().tobytes()) for x in a}) > 1
