"""Pictures: labelled arrays in, Axes out. Nothing here computes a measure or knows a model."""

from ..names_and_colours import colour, label, looks
from .arrows import arrows
from .distribution import distribution
from .dots import dots
from .lines import lines
from .matrix import matrix
from .overlay import overlay, overlay_grid
from .radar import radar
from .reliability import reliability
from .ridge import ridge
from .scatter import scatter
from .style import figure, legend, use
from .sweep import sweep

__all__ = [
    "arrows",
    "colour",
    "distribution",
    "dots",
    "figure",
    "label",
    "legend",
    "lines",
    "looks",
    "matrix",
    "overlay",
    "overlay_grid",
    "radar",
    "reliability",
    "ridge",
    "scatter",
    "sweep",
    "use",
]
