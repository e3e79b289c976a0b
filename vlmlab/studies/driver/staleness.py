"""What shapes an artefact besides the code that its notebook loads: named digests, by content."""

import ast
import re
from pathlib import Path

from ... import __version__
from ...paths import READ_WITH
from ..jobs.receipts import Done
from ..manifest import Artefact, Job
from ..places import data_digests, digest
from . import notebook

PLACES = ("runs", "out")  # parameters that are only places


def parts(
    artefact: Artefact,
    study: str,
    values: dict,
    models: dict[str, dict],
    runs: list[tuple[Job, Done]],
    data: Path,
) -> dict[str, str]:
    """Everything that shapes an artefact: name -> digest.

    values: the notebook's parameters; models: the profile's; runs: its training jobs with their finished runs.
    Of the embedded data and models, those count that the notebook, a parameter or the profile names:
    'emoji/food' is of data/emoji and data/drawings.
    """
    cells = notebook.read(artefact.notebook)["cells"]
    source = [[c["cell_type"], "".join(c["source"])] for c in cells if c["cell_type"] != "raw"]
    code = python_of([text for kind, text in source if kind == "code"])
    texts = [*texts_in(code), *texts_of(values), *texts_of(models)]
    folders = [f"published/{study}", *named(data, texts)]
    return {
        "notebook": digest(source),
        "parameters": digest({k: v for k, v in values.items() if k not in PLACES}),
        "model": digest(models),
        "version of vlmlab": __version__,
        **{f"data/{name}": value for name, value in data_digests(data, folders).items()},
        **of_runs(runs),
    }


def of_runs(runs: list[tuple[Job, Done]]) -> dict[str, str]:
    """The same of runs alone."""
    return {f"run {job.label} ({job.id[:6]})": f"{done.key} {done.digest}" for job, done in runs}


def named(data: Path, texts: list[str]) -> list[str]:
    """The folders of `data` that texts name: 'emoji/food' -> emoji and drawings, 'tiny' -> models/tiny."""
    heads = {text.partition("/")[0] for text in texts}
    heads |= {folder for head in heads for folder in READ_WITH.get(head, ())}
    sets = {p.name for p in data.glob("*/") if p.name not in ("models", "published")}
    models = {p.name for p in data.glob("models/*/")}
    return sorted(heads & sets) + sorted(f"models/{name}" for name in heads & models)


def texts_in(code: str) -> list[str]:
    """The strings that stand in Python code."""
    constants = (n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant))
    return [value for value in constants if isinstance(value, str)]


def texts_of(value: object) -> list[str]:
    """The strings in a value, at any depth."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [value] if isinstance(value, str) else [text for item in inner for text in texts_of(item)]


def python_of(cells: list[str]) -> str:
    """The code cells of a notebook as one Python text, without IPython's own lines (%magic, !command).

    Cells that are no Python are left out: they fail when they run, which is where that is reported.
    """
    kept = []
    for cell in cells:
        lines = [re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in cell.splitlines()]
        try:
            ast.parse(text := "\n".join(lines))
        except (SyntaxError, ValueError, RecursionError):
            continue
        kept.append(text)
    return "\n".join(kept)
