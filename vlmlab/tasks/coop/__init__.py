"""The 15 data sets of CoOp, from folders that users already have."""

from .tasks import read_image

__all__ = ["read_image"]
