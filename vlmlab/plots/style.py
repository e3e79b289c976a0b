"""One look for all figures: sizes in text columns, 7 pt or more, text that stays text in SVG and PDF."""

import functools
import warnings
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

COLUMN = 3.35  # inches; two columns and the gap are 6.9
SMALL = 7  # points; for numbers inside a picture
TALL, FINE = 8, 0.75  # a column of more entries is set in so much of the size, side by side

# names of classes hold $, _, ^ and braces: they are text
TEXT = {"text.parse_math": False, "text.usetex": False}
# widespread fonts for scripts that DejaVu Sans lacks
SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "MS Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Noto Emoji",
)

_RC = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "vlmlab",
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "figure.titlesize": 9,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 2,
    "ytick.minor.size": 2,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.2,
    "font.size": 8,
}


def use() -> None:
    """Set the style for the session: 8 pt sans serif, thin lines, text kept as text in SVG and PDF.

    Scripts that DejaVu Sans lacks are drawn in a font of `SCRIPTS` that is installed; letters that none has are
    named by one warning of the picture, instead of one by matplotlib for each of them.
    """
    sns.set_theme(context="paper", style="ticks", rc=_RC)
    mpl.rcParams["font.family"] = fonts()
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)


@functools.cache
def fonts() -> list[str]:
    """The fonts to look for a letter in, one after the other."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in SCRIPTS if name in there)]


WORDS = (FixedFormatter, FuncFormatter, StrCategoryFormatter)  # what names the ticks in a caller's words


def as_written(draw: Callable) -> Callable:
    """A picture whose text is never taken for mathematics, whatever Axes it is given and style is set."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        with mpl.rc_context(TEXT):
            made = draw(*args, **kwargs)
            plain_text((made or args[0]).figure)
        return made

    return drawn


def plain_text(figure: Figure) -> None:
    """Print all text that a figure holds by now as it is written: $, _, ^ and braces of a class name are no
    mathematics. The numbers of axes, which are where a scale is logarithmic, now or later, stay. Warns once of letters
    that no font has."""
    texts = figure.findobj(Text)
    for text in texts:
        text.set_parse_math(False)
        text.set_usetex(False)
    axes = [axis for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis)] if texts else []
    for axis in axes:
        if not isinstance(axis.get_major_formatter(), WORDS):
            for tick in (*axis.majorTicks, *axis.minorTicks):  # get_ticklabels leaves out those not shown yet
                tick.label1.set_parse_math(True)
                tick.label2.set_parse_math(True)
    if lacking := sorted({c for text in texts for c in text.get_text() if not c.isspace()} - letters()):
        warnings.warn(
            f"no font at hand has the letters {''.join(lacking[:20])}; boxes are drawn in pictures, while SVG keeps "
            "the text; install a font such as Noto Sans CJK",
            stacklevel=3,
        )


@functools.cache
def letters() -> frozenset[str]:
    """What the fonts at hand can draw."""
    files = (font_manager.findfont(name) for name in fonts())
    return frozenset(chr(code) for file in files for code in font_manager.get_font(file).get_charmap())


def figure(
    columns: int = 1, height: float = 2.2, rows: int = 1, cols: int = 1, **kwargs
) -> tuple[Figure, Axes]:
    """A figure one or two text columns wide and `height` inches high, with rows x cols Axes."""
    use()
    width = COLUMN if columns == 1 else 6.9
    return plt.subplots(rows, cols, figsize=(width, height), layout="constrained", **kwargs)


def strip(ax: Axes, side: str, gap: float, size: float, **kwargs) -> Axes:
    """Axes along the top or right side of others, `gap` inches away and `size` inches wide.

    They follow their parent, and the layout counts them: inches do not change with the room that is left.
    """
    inches = ax.figure.dpi_scale_trans
    if side == "top":
        outside = blended_transform_factory(ax.transAxes, inches + ScaledTranslation(0, 1, ax.transAxes))
        return ax.inset_axes((0, gap, 1, size), transform=outside, **kwargs)
    outside = blended_transform_factory(inches + ScaledTranslation(1, 0, ax.transAxes), ax.transAxes)
    return ax.inset_axes((gap, 0, size, 1), transform=outside, **kwargs)


@as_written
def legend(ax: Axes, where: str = "above", handles: list[Artist] | None = None, alone: bool = False) -> None:
    """A legend beside the Axes, where it covers nothing: "above", "below" (under the labels) or "right".

    Without handles it lists what the Axes has labels for; with none of those it draws nothing.
    alone: the Axes have a figure to themselves; the legend then is the figure's, and a title fits between.
    """
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    if not handles:
        return
    figure = ax.figure
    sample = 1.0 if all(h.get_linestyle() == "None" for h in handles) else 2.0  # a dot, or a line
    size, wide = mpl.rcParams["legend.fontsize"], room(ax) * (1 if alone else 0.8)
    look = {"ncols": 1 if where == "right" else _columns(handles, sample, wide, size), "fontsize": size}
    if where != "right" and look["ncols"] == 1 and len(handles) > TALL:
        size = FINE * points(size)
        look = {"ncols": _columns(handles, sample, room(ax), size), "fontsize": size}
    look |= {"handles": handles, "handlelength": sample, "handletextpad": 0.5, "columnspacing": 1.0}
    if alone:
        places = {"above": "upper left", "below": "lower center", "right": "right upper"}
        figure.legend(loc=f"outside {places[where]}", borderaxespad=0.4, **look)
        return
    labels = -28 / 72 if ax.get_xlabel() else -12 / 72 if len(ax.get_xticks()) else 0.0  # inches below
    place, anchor, down = {
        "above": ("lower right", (1, 1), 0.0),  # a title at the left stays free
        "below": ("upper center", (0.5, 0), labels),
        "right": ("upper left", (1, 1), 0.0),
    }[where]
    moved = ax.transAxes + ScaledTranslation(0, down, figure.dpi_scale_trans)
    ax.legend(loc=place, bbox_to_anchor=anchor, bbox_transform=moved, borderaxespad=0.4, **look)


def room(ax: Axes) -> float:
    """Inches across that the layout gives to these Axes, with their labels."""
    place = ax.get_subplotspec()
    share = len(place.colspan) / place.get_gridspec().ncols if place else ax.get_position().width
    return ax.figure.bbox.width / ax.figure.dpi * share


def points(size: str | float) -> float:
    """A font size, also one by name, in points."""
    return font_manager.FontProperties(size=size).get_size_in_points()


def _columns(handles: list[Artist], sample: float, wide: float, size: str | float) -> int:
    """As many columns as fit into `wide` inches; a letter is about 0.6 of the font size."""
    size = points(size) / 72
    letters = [len(h.get_label()) for h in handles]
    for n in range(len(letters), 1, -1):
        columns = np.array_split(letters, n)  # as matplotlib fills them
        if size * sum(0.6 * max(c) + sample + 1.5 for c in columns) < wide:
            return n
    return 1
