"""Methods trained on top of a frozen model. One file each; the file name is the method's name."""

import sys

from .. import own_files, registry
from ..registry import build, config, configure, describe, find
from .method import Method
from .preset_table import presets, target_presets

own_files.join(sys.modules[__name__])
SHARED = ("fixed_classes", "method", "preset_table", "prompts", "schedule")  # what methods share


def names() -> list[str]:
    """The methods there are."""
    return registry.names("methods")


__all__ = [
    "Method",
    "build",
    "config",
    "configure",
    "describe",
    "find",
    "names",
    "presets",
    "target_presets",
]


def __dir__() -> list[str]:
    return sorted(__all__)
