"""Where vlmlab's own files are: the one place that knows a checkout from an installed copy."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
SHIPPED = PACKAGE / "_shipped"  # in an installed copy only (setup.py)
HOME = SHIPPED if SHIPPED.is_dir() else PACKAGE.parent  # holds data/ and notebooks/


EMBEDDED = ("emoji", "drawings")  # folders of data/ that are read together, as one set of pictures
READ_WITH = {
    **dict.fromkeys(EMBEDDED, EMBEDDED),
    "faces": EMBEDDED,
}  # folder of data/ -> those that its tasks read too


def data_dir() -> Path:
    """The `data/` folder: $VLMLAB_DATA, else that of the installed copy or of the checkout."""
    return Path(os.environ.get("VLMLAB_DATA") or HOME / "data").expanduser()


def shipped_notebooks() -> Path:
    """The notebooks and studies that come with vlmlab."""
    return HOME / "notebooks"


def how_to_restore() -> str:
    """What to do about a file of `data/` that is missing or damaged."""
    if os.environ.get("VLMLAB_DATA"):
        return (
            "VLMLAB_DATA must name a folder like the data/ that comes with vlmlab; unset it to use that one"
        )
    if (HOME / ".git").exists():
        return "restore it with `git checkout -- data`"
    return "install vlmlab again, or set VLMLAB_DATA to a folder that has it"
