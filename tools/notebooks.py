"""Bring notebooks into the form in which they are committed: `python tools/notebooks.py [--check] [PATH]`.

Kept: sources, cell types and tags. Everything a run leaves behind goes: outputs, counts, cells with
injected parameters, metadata. Cell ids are cell-00, cell-01, ...; the kernel is `python3`.
"""

import argparse
import json
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
INJECTED = "injected-parameters"


def normalised(text: str) -> str:
    """The text of a notebook -> the text to commit. ValueError when it is not a version 4 notebook."""
    try:
        notebook = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4:
        raise ValueError("not a notebook of format 4; open it in Jupyter and save it again")
    kept = [c for c in notebook["cells"] if INJECTED not in c.get("metadata", {}).get("tags", [])]
    clean = {
        "cells": [cell(c, f"cell-{i:02d}") for i, c in enumerate(kept)],
        "metadata": {"kernelspec": KERNEL},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(clean, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def cell(raw: dict, name: str) -> dict:
    tags = raw.get("metadata", {}).get("tags", [])
    source = "".join(raw["source"]).rstrip("\n")
    out = {
        "cell_type": raw["cell_type"],
        "id": name,
        "metadata": {"tags": tags} if tags else {},
        "source": source.splitlines(keepends=True),
    }
    if raw["cell_type"] == "code":
        out |= {"execution_count": None, "outputs": []}
    if raw.get("attachments"):
        out["attachments"] = raw["attachments"]
    return out


def find(paths: list[Path]) -> list[Path]:
    """The notebooks among files and below folders, without Jupyter's own checkpoints."""
    found = {f for p in paths for f in ([p] if p.suffix == ".ipynb" else p.rglob("*.ipynb"))}
    return sorted(f for f in found if ".ipynb_checkpoints" not in f.parts)


def main(argv: list[str] | None = None) -> int:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("paths", nargs="*", type=Path, default=[NOTEBOOKS], metavar="PATH")
    ap.add_argument("--check", action="store_true", help="change nothing; name what differs and exit 1")
    args = ap.parse_args(argv)
    for path in args.paths:
        if path != NOTEBOOKS and not path.exists():
            ap.error(f"there is no {path}")
    failed = False
    for path in find(args.paths):
        try:
            old = path.read_bytes()
            new = normalised(old.decode("utf-8")).encode("utf-8")
        except (OSError, ValueError, KeyError) as error:
            print(f"{path}: cannot be normalised: {error}", file=sys.stderr)
            failed = True
            continue
        if new == old:
            continue
        print(path)
        failed |= args.check
        if not args.check:
            path.write_bytes(new)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
