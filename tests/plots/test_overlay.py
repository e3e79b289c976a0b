"""Attention lies on the picture where the patches are, for one token or all heads and queries."""

import numpy as np
import pytest
import xarray as xr

from vlmlab import plots
from vlmlab.token_labels import coordinates, tokens_of

PICTURE = np.zeros((64, 64, 3), dtype=np.uint8)


@pytest.fixture
def probs():
    """(head, query, token) of a class token, two prompts and 4 x 4 patches, as capture labels them."""
    here = coordinates(tokens_of((("cls", 1), ("prompt", 2), ("patch", 16))), (4, 4))
    values = np.random.default_rng(0).random((3, 19, 19))
    return xr.DataArray(
        values,
        dims=("head", "query", "token"),
        coords={
            "head": [1, 2, 3],
            **{k: ("token", v) for k, v in here.items()},
            **{f"query_{k}": ("query", v) for k, v in here.items()},
        },
    )


def test_overlay_needs_a_square():
    ax = plots.overlay(PICTURE, xr.DataArray(np.arange(64.0), dims="token"))
    assert ax.images[1].get_array().shape == (8, 8)
    with pytest.raises(ValueError, match="square"):
        plots.overlay(PICTURE, xr.DataArray(np.arange(65.0), dims="token"))


def test_patches_stand_where_their_coordinates_say(probs):
    row = probs.isel(head=0, query=0)
    shown = plots.overlay(PICTURE, row[::-1]).images[1].get_array()
    assert np.allclose(shown, row.values[3:].reshape(4, 4))


def test_the_patch_that_looks_is_outlined(probs):
    box = plots.overlay(PICTURE, probs.isel(head=0, query=3 + 6)).patches[0]
    assert box.get_xy() == (32, 16) and box.get_width() == 16
    assert not plots.overlay(PICTURE, probs.isel(head=0, query=0)).patches
    plain = xr.DataArray(np.arange(16.0), dims="token")
    assert plots.overlay(PICTURE, plain, query=(3, 0)).patches[0].get_xy() == (0, 48)


def test_all_heads_share_one_scale(probs):
    ax = plots.overlay_grid(PICTURE, probs.isel(query=9), title="block 12")
    assert [cell.get_title() for cell in ax.child_axes] == ["head 1", "head 2", "head 3"]
    assert len({cell.images[1].get_clim() for cell in ax.child_axes}) == 1
    assert all(len(cell.patches) == 1 for cell in ax.child_axes) and ax.get_title() == "block 12"


def test_two_dims_are_rows_and_columns(probs):
    few = probs.isel(query=[0, 1, 2]).transpose("query", "head", "token")
    cells = plots.overlay_grid(PICTURE, few).child_axes
    assert len(cells) == 9
    assert [cells[i].get_ylabel() for i in (0, 3, 6)] == ["class token", "prompt 1", "prompt 2"]
    assert [c.get_title() for c in cells[:4]] == ["head 1", "head 2", "head 3", ""]
    assert np.allclose(cells[5].images[1].get_array(), few.values[1, 2, 3:].reshape(4, 4))


def test_overlay_draws_on_given_axes(probs):
    ax = plots.figure()[1]
    assert plots.overlay(PICTURE, probs[0, 0], ax=ax) is ax
    assert plots.overlay_grid(PICTURE, probs[:, 0], ax=ax) is ax


def test_overlay_names_the_axis_that_is_wrong(probs):
    with pytest.raises(ValueError, match="reduce 'head' first"):
        plots.overlay(PICTURE, probs[:, 0])
    with pytest.raises(ValueError, match="only NaN along the axes 'token'"):
        plots.overlay(PICTURE, probs[0, 0] * np.nan)
    with pytest.raises(ValueError, match="'token' is empty"):
        plots.overlay(PICTURE, probs[0, 0, :3])
    with pytest.raises(ValueError, match="one or two other dims"):
        plots.overlay_grid(PICTURE, probs[0, 0])
    with pytest.raises(ValueError, match="'token'"):
        plots.overlay_grid(PICTURE, probs.isel(query=0).rename(token="key"))


def test_grids_that_are_compared_share_a_given_scale(probs):
    cells = plots.overlay_grid(PICTURE, probs.isel(query=9), vmax=3.5).child_axes
    assert {cell.images[1].get_clim() for cell in cells} == {(0, 3.5)}
