"""The state of the sources that made a run or a figure."""

import functools
import re
import subprocess
from pathlib import Path

from .paths import HOME

SOURCES = ("vlmlab", "notebooks", "data", "pyproject.toml")  # figures/ itself may differ while it is made


@functools.cache
def committed(commit: str, root: Path = HOME) -> str:
    """The day of a commit, 2026-11-28; "" where the repository does not know it."""
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return ""
    words = ["git", "-C", str(root), "show", "-s", "--format=%cs", commit, "--"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@functools.cache
def git_state(root: Path = HOME) -> dict:
    """Commit of the repository that the package lives in, and whether its sources differ from it.

    Both are None without git, without a commit, or when the package is installed elsewhere.
    """

    def git(*words: str) -> str:
        text = {"encoding": "utf-8", "errors": "replace"}
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, check=True, timeout=60, **text
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            raise FileNotFoundError("another repository around an installed package")
        return {
            "commit": git("rev-parse", "--verify", "--quiet", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", *SOURCES)),
        }
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
