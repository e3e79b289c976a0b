"""vlmlab: look inside vision-language models. `import vlmlab` is cheap; the rooms load on first use."""

import importlib

from . import completion

__version__ = "0.1.0"

_ROOMS = {
    "load": "vlmlab.models.load",
    "task": "vlmlab.tasks.task",
    "fit": "vlmlab.train.fit",
    "evaluate": "vlmlab.train.evaluate",
    "results": "vlmlab.train.run",
    "Run": "vlmlab.train.run",
    "open_run": "vlmlab.train.run",
    "capture": "vlmlab.capturing.capture",
    "roles": "vlmlab.capturing.capture",
    "explore": "vlmlab.widgets.explorer",
    "explore_generation": "vlmlab.widgets.generation",
    "explore_patching": "vlmlab.widgets.patching",
    "explore_text": "vlmlab.widgets.captions",
    "explore_weights": "vlmlab.widgets.stages",
}
_SUBMODULES = (
    "capturing",
    "decode",
    "measures",
    "methods",
    "plots",
    "models",
    "tasks",
    "scores",
    "studies",
    "widgets",
)
__all__ = [*_ROOMS, *_SUBMODULES]


def __getattr__(name: str):
    if name in _ROOMS:
        return getattr(importlib.import_module(_ROOMS[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"vlmlab.{name}")
    raise AttributeError(f"vlmlab has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


completion.register()
