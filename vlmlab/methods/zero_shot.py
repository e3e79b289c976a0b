"""Zero-shot CLIP: cosine to the text features of one template per class (Radford et al. 2021)."""

from .method import Method


class ZeroShot(Method):
    """The frozen model itself; nothing trains."""
