"""Save a figure so that the file itself says where it came from, and read that (tables: tables.py).

The record is a short sorted JSON: study, artefact, profile, run keys, seeds, git commit and whether the
sources differ from it, versions. It stands in the SVG's description, the PNG's comment, the PDF's keywords,
the first line of the TeX file and a <meta> of the HTML file, and holds no time, host or path: the same figure
from the same sources has the same bytes on one machine. The commit is part of it, so a figure remade after a
commit differs in that one entry; what decides whether a figure is remade (staleness.py) does not look at it.
"""

import functools
import html
import importlib.metadata
import json
import platform
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from ...files import write
from ...git import git_state
from ...schema import Record, convert

LIBRARIES = ("torch", "open_clip_torch", "numpy", "pandas", "xarray", "matplotlib")
DPI = 200
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


class Provenance(Record):
    """What stands in a file that `save_figure` or `save_table` wrote."""

    study: str
    artefact: str
    profile: str
    run_keys: list[str]
    seeds: list[int]
    git: dict[str, object]
    versions: dict[str, str]


def save_figure(
    fig,
    out: str | Path,
    artefact: str,
    *,
    study: str,
    profile: str,
    trained=None,
    run_keys: Iterable[str] = (),
    seeds: Iterable[int] = (),
    data=None,
) -> list[Path]:
    """Write `<out>/<artefact>.svg`, `.png` (200 dpi), `.pdf` and, with `data`, `.csv`; returns their paths.

    fig: matplotlib figure. data: DataFrame of the numbers that the figure shows, in long form. trained: the
    rows of `Opened.runs` that it was made from, or run_keys and seeds by themselves.
    An empty `out` writes nothing: a notebook that somebody opens by hand only shows its figure.
    """
    if not out:
        return []
    import matplotlib

    note = record(
        study=study, artefact=artefact, profile=profile, trained=trained, run_keys=run_keys, seeds=seeds
    )
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "vlmlab"}):
        for kind, metadata in (
            ("svg", {"Date": None, "Description": note}),
            ("png", {"Comment": note}),
            ("pdf", {"CreationDate": None, "Keywords": note}),
        ):
            path = Path(out) / f"{artefact}.{kind}"
            write(path, lambda t: fig.savefig(t, format=kind, dpi=DPI, metadata=metadata))  # noqa: B023
            written.append(path)
    if data is not None:
        written.append(save_csv(data, Path(out) / f"{artefact}.csv"))
    return written


def read_provenance(path: str | Path) -> dict:
    """The record in a saved .svg, .png, .pdf, .tex or .html file, also when the file was moved elsewhere.

    A .csv holds numbers alone: its record is that of a file of the same name beside it. Raises
    FileNotFoundError, and ValueError for other kinds of file and for files without a record.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".csv":
        return beside(path)
    if path.suffix not in READERS:
        raise ValueError(f"{path}: only {', '.join(READERS)} say where they came from")
    try:
        found = json.loads(READERS[path.suffix](path) or "")
        convert(found, Provenance)
    except NO_RECORD as error:
        raise ValueError(
            f"{path} does not say where it came from; vlmlab did not write it, "
            "or a program that saved it again dropped the record"
        ) from error
    return found


def beside(path: Path) -> dict:
    """The record of a .csv, from the files with its name."""
    for suffix in READERS:
        if (other := path.with_suffix(suffix)).is_file():
            return read_provenance(other)
    raise ValueError(
        f"{path} holds numbers alone; there is no {', '.join(READERS)} of that name beside it "
        "that says where they came from"
    )


def read_png(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("Comment")
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def read_svg(path: Path) -> str | None:
    return ElementTree.parse(path).getroot().findtext(f".//{DESCRIPTION}")


def read_pdf(path: Path) -> str | None:
    """The keywords, as matplotlib writes them: a literal string, ( ) and \\ escaped."""
    found = re.search(rb"/Keywords \(((?:[^()\\]|\\.)*)\)", path.read_bytes(), re.DOTALL)
    return found and re.sub(rb"\\([()\\])", rb"\1", found[1]).decode()


def read_tex(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return lines.readline().removeprefix("%")


def read_html(path: Path) -> str | None:
    found = re.search(r'<meta name="vlmlab" content="([^"]*)">', path.read_text(encoding="utf-8"))
    return found and html.unescape(found[1])


NO_RECORD = (ValueError, OSError, RecursionError, SyntaxError)  # ElementTree.ParseError is a SyntaxError
READERS = {".svg": read_svg, ".png": read_png, ".pdf": read_pdf, ".tex": read_tex, ".html": read_html}


def record(
    *, study: str, artefact: str, profile: str, run_keys: Iterable[str], seeds: Iterable[int], trained=None
) -> str:
    """The JSON text that goes into a file: ASCII, sorted, without anything that differs between calls.

    trained: rows with the columns key and seed, instead of run_keys and seeds.
    """
    if trained is not None:
        run_keys, seeds = trained["key"], trained["seed"]
    return json.dumps(
        {
            "study": study,
            "artefact": artefact,
            "profile": profile,
            "run_keys": sorted({str(k) for k in run_keys}),
            "seeds": sorted({int(s) for s in seeds}),
            "git": git_state(),
            "versions": versions(),
        },
        sort_keys=True,
    )


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape numbers and pictures, without importing them."""
    from ... import __version__

    found = {"python": platform.python_version(), "vlmlab": __version__}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def plain_index(frame) -> bool:
    """Whether the index only counts the rows, so that nobody wants to read it."""
    import pandas as pd

    return isinstance(frame.index, pd.RangeIndex) and frame.index.name is None


def save_csv(frame, path: Path) -> Path:
    write(path, lambda t: frame.to_csv(t, index=not plain_index(frame), lineterminator="\n"))
    return path
