"""Explorers: pictures that follow the hand, in JupyterLab, VS Code and as a Voilà page (ipywidgets and matplotlib).

The verbs are `vlmlab.explore` and its kin; the rest is what the cells of "copy as code" call. Nothing is imported
before it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "asking": ["asked", "asked_of", "at_hand"],
        "attending": ["as_grid", "of_query", "weights_of"],
        "captions": ["explore_text"],
        "explorer": ["explore"],
        "generation": ["explore_generation"],
        "given": ["own_images", "zero_shot"],
        "patching": ["explore_patching"],
        "reading": ["attention", "class_features", "seen", "some", "streams"],
        "stages": ["explore_weights"],
    },
)
