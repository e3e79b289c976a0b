"""Pictures: labelled arrays in, Axes out. Nothing here computes a measure or knows a model."""

import importlib

from ..names_and_colours import colour, label, looks

_MODULES = {
    "arrows": ("arrows",),
    "distribution": ("distribution",),
    "dots": ("dots",),
    "lines": ("lines",),
    "matrix": ("matrix",),
    "overlay": ("overlay", "overlay_grid"),
    "radar": ("radar",),
    "reliability": ("reliability",),
    "ridge": ("ridge",),
    "scatter": ("scatter",),
    "style": ("figure", "legend", "use"),
    "sweep": ("sweep",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["colour", "label", "looks", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"vlmlab.plots has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # importing a module of that name has set it on the package
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
