"""A heat map shows the array with the numbers of its blocks, its means beside it, its values on demand."""

import numpy as np
import pytest
import xarray as xr

from vlmlab import plots


@pytest.fixture
def cka():
    values = np.array([[1, 0.8, 0.2], [0.8, 1, 0.5], [0.2, 0.5, 1]])
    return xr.DataArray(
        values, dims=("layer", "layer_other"), coords={"layer": [4, 8, 12], "layer_other": [4, 8, 12]}
    )


def test_matrix_shows_the_array():
    data = xr.DataArray(np.eye(4), dims=("query", "key"))
    ax = plots.matrix(data, unit="probability")
    assert np.array_equal(ax.images[0].get_array(), data) and ax.get_ylabel() == "query"
    assert not ax.lines
    bar = ax.child_axes[0]
    assert bar.get_ylabel() == "probability"
    assert not plots.matrix(data, colorbar=False).child_axes


def test_ticks_carry_the_numbers_of_the_blocks(cka):
    ax = plots.matrix(cka)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["4", "8", "12"]
    assert ax.get_xlabel() == ax.get_ylabel() == "block"


def test_names_on_an_axis_all_get_a_tick():
    levels = {"image": ["P2", "P3"], "text": ["L1", "L2"]}
    ax = plots.matrix(xr.DataArray(np.eye(2), dims=("image", "text"), coords=levels))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["P2", "P3"]


def test_marginals_are_the_means_of_rows_and_columns(cka):
    cka = cka.copy()
    cka[0, 2] = np.nan
    ax = plots.matrix(cka, marginals=True, colorbar=False)
    top, right = ax.child_axes
    assert top.lines[0].get_ydata().tolist() == cka.mean("layer").values.tolist()
    assert right.lines[0].get_xdata().tolist() == cka.mean("layer_other").values.tolist()
    assert ax.get_xlim() == (-0.5, 2.5) and ax.get_ylim() == (2.5, -0.5)


def test_annotate_writes_every_number_readably(cka):
    cka = cka.copy()
    cka[0, 1] = np.nan
    ax = plots.matrix(cka, annotate=".1f", vmin=0, vmax=1)
    texts = {tuple(map(int, t.get_position())): t for t in ax.texts}
    assert len(texts) == 8 and (1, 0) not in texts
    assert texts[2, 0].get_text() == "0.2" and texts[2, 0].get_color() == "white"
    assert texts[0, 0].get_text() == "1.0" and texts[0, 0].get_color() == "black"


def test_matrix_draws_on_given_axes(cka):
    ax = plots.figure()[1]
    assert plots.matrix(cka, ax=ax, title="CKA") is ax and ax.get_title() == "CKA"


def test_matrix_refuses_what_it_cannot_show(cka):
    with pytest.raises(ValueError, match="2-d"):
        plots.matrix(cka[0])
    with pytest.raises(ValueError, match="'layer_other' is empty"):
        plots.matrix(cka[:, :0])
    with pytest.raises(ValueError, match="only NaN along the axes 'layer', 'layer_other'"):
        plots.matrix(cka * np.nan)


def test_axes_are_called_what_the_caller_says(cka):
    ax = plots.matrix(cka, xlabel="key token", ylabel="")
    assert ax.get_xlabel() == "key token" and ax.get_ylabel() == ""


def test_roles_name_the_axes_and_lines_part_them():
    roles = ["cls", "prompt", "prompt", "patch", "patch", "patch"]
    coords = {"role": ("token", roles), "query_role": ("query", roles[2:])}
    data = xr.DataArray(np.zeros((4, 6)), coords, ("query", "token"))
    ax = plots.matrix(data, vmax=1, roles=("query_role", "role"))
    assert [t.get_text() for t in ax.get_xticklabels()] == ["class token", "prompt tokens", "patches"]
    assert ax.get_xticks().tolist() == [0, 1.5, 4] and ax.get_yticks().tolist() == [0, 2]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[1]] == [
        0.5,
        2.5,
    ]
    assert [line.get_ydata()[0] for line in ax.lines if line.get_ydata()[0] == line.get_ydata()[1]] == [0.5]
    with pytest.raises(ValueError, match="'role'"):
        plots.matrix(data.drop_vars("role"), roles=("query_role", "role"))
