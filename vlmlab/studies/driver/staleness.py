"""Whether an artefact is fresh: everything that shapes it, by content, as named digests.

`figures/<study>/.state.json` holds the digests with which each artefact was made, and those of its files.
A comparison tells not only that an artefact is stale but why. Times, paths and the git commit play no part.
"""

import ast
from pathlib import Path

from ... import __version__
from ...files import write_json
from ..jobs.receipts import Done
from ..manifest import Artefact, Job
from ..places import data_digests, digest, file_digest, known
from . import notebook
from .modules import Modules, python_of

FILES = {"figure": ("svg", "png"), "table": ("csv", "tex")}  # what each kind must write
SUFFIXES = ("svg", "png", "csv", "tex", "pdf", "html")  # what may lie beside that
PLACES = ("runs", "out")  # parameters that are only places


def parts(
    artefact: Artefact,
    study: str,
    values: dict,
    model: dict,
    runs: list[tuple[Job, Done]],
    data: Path,
    modules: Modules,
) -> dict[str, str]:
    """Everything that shapes an artefact: name -> digest.

    values: the notebook's parameters; model: the profile's; runs: its training jobs with their finished runs.
    Of the embedded data and models, those count that the notebook, a parameter or the profile names:
    'emoji/food' is of data/emoji. Of the methods, those of its runs and those that it names.
    """
    cells = notebook.read(artefact.notebook)["cells"]
    source = [[c["cell_type"], "".join(c["source"])] for c in cells if c["cell_type"] != "raw"]
    code = python_of([text for kind, text in source if kind == "code"])
    texts = [*texts_in(code), *texts_of(values), *texts_of(model)]
    folders = [f"published/{study}", *named(data, texts)]
    if methods := {job.method for job, _ in runs}:
        methods |= {t for t in texts if t.isidentifier() and modules.file(f"vlmlab.methods.{t}")}
        modules = modules.narrowed({"vlmlab.methods": sorted(methods)})
    return {
        "notebook": digest(source),
        "parameters": digest({k: v for k, v in values.items() if k not in PLACES}),
        "model": digest(model),
        "version of vlmlab": __version__,
        **modules.digests(code),
        **{f"data/{name}": value for name, value in data_digests(data, folders).items()},
        **{f"run {job.label} ({job.id[:6]})": f"{done.key} {done.digest}" for job, done in runs},
    }


def named(data: Path, texts: list[str]) -> list[str]:
    """The folders of `data` that texts name: 'emoji/food' -> emoji, 'tiny' -> models/tiny."""
    heads = {text.partition("/")[0] for text in texts}
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


class State:
    """What is known about the artefacts in `figures/<study>/`."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / ".state.json"
        self.made = known(self.path)

    def why_stale(self, artefact: Artefact, now: dict[str, str]) -> str:
        """ "" for a fresh artefact, else the reason in a few words."""
        entry = self.made.get(artefact.id)
        if not isinstance(entry, dict) or not {"parts", "files"} <= entry.keys():
            return "not made yet"
        before = entry["parts"]
        changed = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            return f"changed: {', '.join(changed[:3])}{more}"
        for name, value in entry["files"].items():
            if not (path := self.folder / name).is_file():
                return f"{name} is missing"
            if file_digest(path) != value:
                return f"{name} was changed by hand"
        return ""

    def record(self, artefact: Artefact, now: dict[str, str]) -> None:
        """Remember an artefact that was just made."""
        files = {p.relative_to(self.folder).as_posix(): file_digest(p) for p in self.files(artefact)}
        self.made = {**known(self.path), artefact.id: {"parts": now, "files": files}}
        write_json(self.path, self.made)

    def files(self, artefact: Artefact) -> list[Path]:
        """The files that an artefact has now."""
        paths = [self.folder / f"{artefact.id}.{suffix}" for suffix in SUFFIXES]
        return [path for path in (*paths, self.executed(artefact)) if path.is_file()]

    def executed(self, artefact: Artefact) -> Path:
        """Its executed notebook."""
        return self.folder / "notebooks" / f"{artefact.id}.ipynb"

    def failed(self, artefact: Artefact) -> Path:
        """The partly executed notebook of its last failure, if any."""
        return self.executed(artefact).with_suffix(".failed.ipynb")
