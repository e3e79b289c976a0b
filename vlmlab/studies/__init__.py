"""Studies: a paper's artefacts regenerated from its runs. Importing this loads neither torch nor plots."""

from .driver.runner import model_of, reproduce, runs_of, states
from .manifest import load, names
from .opened import images_of, narrow, open_runs
from .pages.provenance import read_provenance, save_figure
from .pages.tables import save_table
from .places import folder

__all__ = [
    "folder",
    "images_of",
    "load",
    "model_of",
    "names",
    "narrow",
    "open_runs",
    "read_provenance",
    "reproduce",
    "runs_of",
    "save_figure",
    "save_table",
    "states",
]
