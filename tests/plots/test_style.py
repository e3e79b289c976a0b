"""Figures have the width of a column, readable text, and text that stays text in vector files."""

import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from vlmlab import plots


@pytest.fixture
def curve():
    return xr.DataArray(
        np.arange(6.0).reshape(3, 2),
        dims=("layer", "role"),
        coords={"layer": [6, 7, 8], "role": ["cls", "prompt"]},
        name="norm",
    )


@pytest.mark.parametrize(("columns", "width"), [(1, 3.35), (2, 6.9)])
def test_a_figure_is_as_wide_as_its_columns(columns, width):
    fig, axes = plots.figure(columns=columns, rows=2, cols=3)
    assert fig.get_figwidth() == pytest.approx(width) and axes.shape == (2, 3)


def test_svg_keeps_text_and_pdf_its_fonts(curve):
    fig = plots.lines(curve).figure
    svg, pdf = io.StringIO(), io.BytesIO()
    fig.savefig(svg, format="svg")
    fig.savefig(pdf, format="pdf")
    assert "class token</text>" in svg.getvalue()
    assert b"/Type42" in pdf.getvalue() or b"/CIDFontType2" in pdf.getvalue()


def test_no_text_is_smaller_than_six_points():
    data = xr.DataArray(np.eye(4), dims=("query", "key"))
    fig = plots.matrix(data, marginals=True, annotate=".2f", unit="share", title="title").figure
    svg = io.StringIO()
    fig.savefig(svg, format="svg")
    sizes = [float(s) for s in re.findall(r"font(?:-size)?: ([\d.]+)px", svg.getvalue())]
    assert sizes and min(sizes) >= 6


def test_the_legend_lies_beside_the_axes(curve):
    for where in ("above", "below", "right"):
        fig, axes = plots.figure(cols=2)
        plots.lines(curve, ax=axes[0])
        plots.legend(axes[0], where)
        fig.canvas.draw()
        box = axes[0].get_legend().get_frame().get_window_extent()
        inside = axes[0].get_window_extent()
        assert not inside.padded(-1).overlaps(box), where
        plt.close(fig)


@pytest.mark.parametrize("columns", [1, 2])
def test_the_legend_of_many_methods_stays_on_the_page(columns):
    names = "zero_shot linear_probe coop maple promptsrc hicropl mmrl mmrlpp aligned_norm".split()
    data = xr.DataArray(
        np.ones((2, 9)) * np.arange(9), dims=("epoch", "method"), coords={"epoch": [1, 2], "method": names}
    )
    fig, ax = plots.figure(columns=columns)
    plots.lines(data, x="epoch", by="method", ax=ax)
    plots.legend(ax, alone=True)
    fig.canvas.draw()
    box = fig.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= fig.bbox.x1


def test_without_labels_there_is_no_legend():
    ax = plots.figure()[1]
    plots.legend(ax)
    assert ax.get_legend() is None
