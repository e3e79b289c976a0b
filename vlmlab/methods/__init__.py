"""Methods trained on top of a frozen model. One file each; the file name is the method's name."""

from ..registry import build, config, configure, describe, find, names
from .method import Method
from .preset_table import presets, target_presets

SHARED = ("method", "preset_table", "prompts", "schedule")  # what methods share

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
