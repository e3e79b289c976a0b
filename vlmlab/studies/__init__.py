"""Studies: a paper's artefacts regenerated from its runs. Importing this loads neither torch nor plots."""
from .manifest import load, names
from .places import folder
from .provenance import read_provenance, save_figure
from .runner import model_of, reproduce, runs_of, states
from .tables import save_table

__all__ = ["folder", "load", "model_of", "names", "read_provenance", "reproduce", "runs_of", "save_figure",
           "save_table", "states"]
