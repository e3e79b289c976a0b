"""Options of all commands on studies: profile and folders; and what they say when Ctrl-C stops them."""

import argparse
import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

NOTEBOOKS = Path(os.environ.get("VLMLAB_NOTEBOOKS") or "notebooks")


@functools.cache
def profiles_here() -> str:
    """The profiles of the studies in the current folder, for the help; read without a check."""
    found = {}
    for path in filter(Path.is_file, sorted(NOTEBOOKS.glob("*/study.toml"))):  # no pipe, no device
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            found |= dict.fromkeys(re.findall(r"(?m)^\[profile\.([A-Za-z0-9_-]+)\]", text))
    return ", ".join(found) or "demo"


def study(p: argparse.ArgumentParser, text: str, **options) -> None:
    p.add_argument("study", metavar="STUDY", help=f"{text}; or the path of its folder anywhere", **options)


def only(p: argparse.ArgumentParser) -> None:
    names = lambda text: [i for i in text.split(",") if i]
    p.add_argument("--only", type=names, metavar="A,B", help="these artefacts")


def runs(p: argparse.ArgumentParser) -> None:
    p.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="trained runs (runs)")


def notebooks(p: argparse.ArgumentParser) -> None:
    text = f"the folder with the studies ({NOTEBOOKS})"
    p.add_argument("--notebooks", type=Path, default=NOTEBOOKS, metavar="DIR", help=text)


def places(p: argparse.ArgumentParser) -> None:
    """Profile and folders, the same for all that works on a study."""
    p.add_argument("--profile", default="demo", help=f"as in study.toml; here: {profiles_here()} (demo)")
    runs(p)
    text = "where figures go (figures; for other profiles than demo RUNS/figures/PROFILE)"
    p.add_argument("--figures", type=Path, metavar="DIR", help=text)
    notebooks(p)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """What a study says when Ctrl-C stops it."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; what is done stays. Go on with the same command.", file=sys.stderr, flush=True)
        raise
