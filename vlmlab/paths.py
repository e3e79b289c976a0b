"""Where vlmlab's own files are."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent


def data_dir() -> Path:
    """The `data/` folder: $VLMLAB_DATA, else the one beside this package."""
    return Path(os.environ.get("VLMLAB_DATA", PACKAGE.parent / "data"))
