"""What learners, settings and rules there are, read from their files without running them: a wrong name is refused
before torch is loaded. What fits whom is left to `registry`, which runs the files."""

import ast
from collections.abc import Iterable
from pathlib import Path

from . import own_files
from .nearest import hint
from .paths import PACKAGE

ROOMS = ("methods", "distill", "decode", "mini", "systems")


def folders() -> list[Path]:
    """Where files of learners are: vlmlab's, then those beside the studies."""
    return [
        Path(f) for room in ROOMS for f in (PACKAGE / room, *own_files.files_of(room)) if Path(f).is_dir()
    ]


def files() -> dict[str, Path]:
    """Name -> file of all learners and of what they share; where two have a name, the learner."""
    found = {p.stem: p for folder in folders() for p in of(folder)}
    return found | learner_files()


def of(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*.py") if not p.stem.startswith("_")]


def learner_files() -> dict[str, Path]:
    """Name -> file of the learners there are: what a room names in its `SHARED` is none."""
    return {p.stem: p for folder in folders() for p in of(folder) if p.stem not in shared(folder)}


def shared(folder: Path) -> set[str]:
    """What the `__init__.py` of a room names in `SHARED`."""
    start = folder / "__init__.py"
    parts = ast.parse(start.read_text(encoding="utf-8")).body if start.is_file() else ()
    return {name for part in parts if "SHARED" in names_of(part) for name in ast.literal_eval(part.value)}


def learners() -> list[str]:
    """The names of all learners."""
    return sorted(learner_files())


def classes(path: Path) -> dict[str, ast.ClassDef]:
    """The classes in a file; none in one that cannot be read, which importing it will say."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def settings_and_rules(learner: str) -> tuple[list[str], list[str]]:
    """The fields of its Config and Options, with those of the learners that it extends where they extend theirs,
    and its rules of inference. Nothing where its file defines no class."""
    its = classes(files()[learner])
    known = {k: v for p in (PACKAGE / "learner.py", *files().values()) for k, v in classes(p).items()} | its
    settings, rules, todo, whole = [], [], [*its], set()
    while todo:
        if (node := known.pop(todo.pop(0), None)) is None:
            continue
        todo += [base.id for base in node.bases if isinstance(base, ast.Name)]
        for part in node.body:
            if isinstance(part, ast.ClassDef) and part.name in {"Config", "Options"} - whole:
                whole |= set() if part.bases else {part.name}
                settings += [line.target.id for line in part.body if isinstance(line, ast.AnnAssign)]
            elif "rules" in names_of(part) and not rules:
                rules = [x.value for x in ast.walk(part.value) if isinstance(x, ast.Constant)]
    return list(dict.fromkeys(settings)), rules


def names_of(part: ast.stmt) -> list[str]:
    """What a line of a class assigns to."""
    targets = getattr(part, "targets", None) or [getattr(part, "target", None)]
    return [x.id for x in targets if isinstance(x, ast.Name)] if getattr(part, "value", None) else []


def check(what: str, name: str, there: Iterable[str]) -> None:
    """ValueError with the nearest name and all names when one is not among them."""
    if name not in (there := sorted(there)):
        raise ValueError(f"unknown {what} {name!r}{hint(name, there)}; there are {', '.join(there)}")
