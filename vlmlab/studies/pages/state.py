"""What is known about the artefacts in `figures/<study>/`: with what they were made, and their files.

`.state.json` there holds, for each artefact, the digests of everything that shaped it by name (staleness.py), of
the code that its notebook loaded (code.py), and of its files. A comparison tells not only that an artefact is
stale but why. Times, paths and the git commit play no part.
"""

from pathlib import Path

from ...files import write_json
from ...schema import Record, Wrong, convert
from ..code import Sources
from ..manifest import Artefact
from ..places import file_digest, known

FILES = {"figure": ("svg", "png"), "table": ("csv", "tex")}  # what each kind must write
SUFFIXES = ("svg", "png", "csv", "tex", "pdf", "html")  # what may lie beside that


class Made(Record):
    """One artefact in .state.json: name -> digest of what shaped it, of its code, of its files."""

    parts: dict[str, str]
    code: dict[str, str]
    files: dict[str, str]


class State:
    """What is known about the artefacts in `figures/<study>/`."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / ".state.json"
        self.made = known(self.path)

    def why_stale(self, artefact: Artefact, now: dict[str, str], sources: Sources) -> str:
        """ "" for a fresh artefact, else the reason in a few words. now: the parts that shape it."""
        try:
            entry = convert(self.made.get(artefact.id), Made)
        except Wrong:
            return "not made yet"
        before = entry.parts
        changed = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        changed += sources.changed(entry.code)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            return f"changed: {', '.join(changed[:3])}{more}"
        for name, value in entry.files.items():
            if not (path := self.folder / name).is_file():
                return f"{name} is missing"
            if file_digest(path) != value:
                return f"{name} was changed by hand"
        return ""

    def runs(self) -> dict[str, str]:
        """The runs behind what is there, as `staleness.of_runs` names them."""
        found = {}
        for entry in self.made.values():
            try:
                parts = convert(entry, Made).parts
            except Wrong:
                continue
            found |= {name: value for name, value in parts.items() if name.startswith("run ")}
        return found

    def record(self, artefact: Artefact, now: dict[str, str], code: dict[str, str]) -> None:
        """Remember an artefact that was just made, with the code that its notebook loaded."""
        files = {p.relative_to(self.folder).as_posix(): file_digest(p) for p in self.files(artefact)}
        made = {"parts": now, "code": code, "files": files}
        self.made = {**known(self.path), artefact.id: made}
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
