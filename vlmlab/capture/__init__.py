"""The one way to look inside a model: named sites in, labelled arrays out.

The package is the verb: `vlmlab.capture(model, data, sites, ...)`. Its reducers are its attributes:
`vlmlab.capture.norms`, `.cls_row`, `.roles("cls", "prompt")`, `.row("eos")`, `.mean("patch")`.
Other verbs: `.edit(model, {site: fn})` writes, with `.patch(values)` and `.ablate("prompt")`;
`.attention_grads(model, images, target)` differentiates; `.open_run(folder)` opens a record on disk.
Nothing here imports torch before it is used, so that records can be read without it.
"""

import importlib
import sys
import types

_ATTRIBUTES = {
    "roles": "reducers",
    "row": "reducers",
    "mean": "reducers",
    "norms": "reducers",
    "cls_row": "reducers",
    "Kept": "reducers",
    "Table": "reducers",
    "check_layout": "check_layout",
    "Record": "record",
    "SITES": "sites",
    "edit": "edit",
    "ablate": "edit",
    "patch": "edit",
    "attention_grads": "relevance",
    "rollout": "relevance",
    "chefer": "relevance",
    "legrad": "relevance",
    "grad_times_attention": "relevance",
    "open_run": "store",
}


def __getattr__(name: str):
    if name in _ATTRIBUTES:
        return getattr(importlib.import_module(f"{__name__}.{_ATTRIBUTES[name]}"), name)
    raise AttributeError(f"vlmlab.capture has no {name!r}; it has {', '.join(_ATTRIBUTES)}")


class _Verb(types.ModuleType):
    """A package that can be called, because `capture` names both the room and what one does in it."""

    def __call__(self, *args, **kwargs):
        return importlib.import_module(f"{__name__}.capture").capture(*args, **kwargs)

    def __setattr__(self, name, value):
        # importing a submodule sets it on its package, where it would hide the verb of the same name
        verb = isinstance(value, types.ModuleType) and _ATTRIBUTES.get(name) == name
        super().__setattr__(name, getattr(value, name) if verb else value)


sys.modules[__name__].__class__ = _Verb
