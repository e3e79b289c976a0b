"""Pictures: labelled arrays in, Axes out. Nothing here computes a measure or knows a model.

Nothing is imported, matplotlib least of all, before a picture is asked for.
"""

import lazy_loader

from ..names_and_colours import colour as colour
from ..names_and_colours import label as label
from ..names_and_colours import looks as looks

_PICTURES = (
    "arrows",
    "boxes",
    "distribution",
    "dots",
    "lines",
    "matrix",
    "radar",
    "reliability",
    "ridge",
    "scatter",
    "sweep",
)
_lazy, _dir, _all = lazy_loader.attach(
    __name__,
    submod_attrs={
        **{name: [name] for name in _PICTURES},
        "overlay": ["overlay", "overlay_grid"],
        "style": ["figure", "legend", "use"],
    },
)
__getattr__ = _lazy
__all__ = sorted([*_all, "colour", "label", "looks"])


def __dir__() -> list[str]:
    return __all__
