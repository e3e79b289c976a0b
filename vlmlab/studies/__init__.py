"""Studies: a paper's artefacts regenerated from its runs. Importing this loads neither torch nor plots."""

import importlib

_HOMES = {
    "artefact": ".pages.artefact",
    "folder": ".places",
    "load": ".manifest",
    "names": ".manifest",
    "plan": ".driver.forecast",
    "read_provenance": ".pages.provenance",
    "reproduce": ".driver.runner",
    "runs_of": ".pages.artefact",
    "save_figure": ".pages.provenance",
    "save_table": ".pages.tables",
    "states": ".driver.runner",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"vlmlab.studies has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
