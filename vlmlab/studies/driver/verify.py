"""`verify`: does the present code give, from the present runs, the numbers that stand in figures/?

The notebook of each artefact is executed again into a temporary folder, and its CSV is compared cell by cell
with the one that is there. Nothing is trained and nothing in figures/ changes. Pictures are compared only
where they were drawn by the same versions of Python and its libraries; they decide nothing, as matplotlib
draws the same numbers differently from version to version.
"""

import csv
import dataclasses
import functools
import math
import re
import tempfile
from itertools import zip_longest
from pathlib import Path

from .. import manifest
from ..jobs import pool
from ..jobs.receipts import TRAIN
from ..jobs.worker import Request
from ..manifest import Artefact
from ..pages.provenance import READERS, read_provenance
from ..places import Places
from .plan import COPY, Plan

TOLERANCE = 1e-6
RECORDS = {
    ".svg": rb"<dc:description>.*?</dc:description>",
    ".pdf": rb"/Keywords \((?:[^()\\]|\\.)*\)",
    ".tex": rb"\A%.*?\n",
    ".html": rb"<meta name.*?>",
}  # where a file keeps its record
SAME, CLOSE, DIFFERENT, UNKNOWN = "identical", "within tolerance", "different", "not compared"


@dataclasses.dataclass(frozen=True)
class Check:
    """What came of one artefact: a state (the four above), why, and what its pictures say."""

    artefact: str
    state: str
    detail: str = ""
    pictures: str = ""

    @property
    def ok(self) -> bool:
        return self.state in (SAME, CLOSE)


def verify(
    study: str,
    profile: str = "demo",
    only: list[str] | None = None,
    runs: str | Path = "runs",
    figures: str | Path | None = None,
    notebooks: str | Path = "notebooks",
    *,
    tolerance: float = TOLERANCE,
    jobs: int = 1,
    train: str = TRAIN,
    **others,
) -> list[Check]:
    """Compare the numbers of every artefact, or of those in `only`, with those that its notebook gives now.

    tolerance: how far two numbers may lie apart, relative to the larger. jobs: cores to use. An artefact that
    was not made, or whose runs are missing, is `not compared`. Raises as `reproduce` does before it starts.
    """
    found = manifest.load(study, notebooks)
    plan = Plan(found, profile, Places.of(profile, runs, figures, found.notebooks, **others), train, only)
    checks = {a.id: Check(a.id, UNKNOWN, why) for a in plan.artefacts if (why := not_possible(plan, a))}
    todo = [a for a in plan.artefacts if a.id not in checks]
    with tempfile.TemporaryDirectory(prefix="vlmlab-") as folder:
        requests = [request(plan, a, Path(folder), len(todo) > 1) for a in todo]
        runner = functools.partial(pool.answers, slots=jobs)
        for number, answer in pool.follow(runner, requests, "notebooks", "notebook"):
            name = todo[number].id
            if "error" in answer:
                checks[name] = Check(name, UNKNOWN, answer["error"])
            else:
                checks[name] = check(name, plan.state.folder, Path(folder) / name, tolerance)
    return [checks[a.id] for a in plan.artefacts]


def not_possible(plan: Plan, artefact: Artefact) -> str:
    """Why an artefact cannot be compared, or ""."""
    again = f"vlmlab reproduce {plan.study.id} --profile {plan.profile.name} --only {artefact.id}"
    if not (plan.state.folder / f"{artefact.id}.csv").is_file():
        return f"no {plan.state.folder / artefact.id}.csv; `{again}` makes it"
    if missing := plan.runs(artefact)[1]:
        return (
            f"{len(missing)} of {len(plan.jobs(artefact))} runs are missing, or of other code or data; "
            f"`{again}` trains them"
        )
    return ""


def request(plan: Plan, artefact: Artefact, folder: Path, several: bool) -> Request:
    """The execution of its notebook, with everything it writes in a folder of its own."""
    usual, out = plan.request(artefact, None, several), folder / artefact.id
    arguments = usual.arguments | {
        "copy": str(out / COPY),
        "values": usual.arguments["values"] | {"out": out.as_posix()},
    }
    return dataclasses.replace(usual, arguments=arguments, log=str(folder / f"{artefact.id}.log"))


def check(name: str, there: Path, now: Path, tolerance: float) -> Check:
    """Compare an artefact in two folders."""
    if not (now / f"{name}.csv").is_file():
        return Check(name, DIFFERENT, f"the notebook no longer writes {name}.csv")
    state, detail = compare(there / f"{name}.csv", now / f"{name}.csv", tolerance)
    return Check(name, state, detail, pictures(name, there, now))


def compare(there: Path, now: Path, tolerance: float = TOLERANCE) -> tuple[str, str]:
    """(state, detail) of two CSV files; the detail names the first cells that differ, or the largest step."""
    if there.read_bytes() == now.read_bytes():
        return SAME, ""
    (names, *old), (names_now, *new) = read(there), read(now)
    if names != names_now:
        return DIFFERENT, f"columns were {', '.join(names)}, now {', '.join(names_now)}"
    if len(old) != len(new):
        return DIFFERENT, f"{len(old)} rows, now {len(new)}"
    largest, differ = 0.0, []
    for number, (a, b) in enumerate(zip(old, new), start=2):  # as a text editor counts lines
        for name, x, y in zip_longest(names, a, b, fillvalue=""):
            if (step := apart(x, y)) > tolerance:
                differ.append(
                    f"line {number} ({', '.join(filter(is_word, a))}), {name}: {x or 'empty'}, now "
                    f"{y or 'empty'}"
                )
            largest = max(largest, step)
    if differ:
        more = f"; and {len(differ) - 3} more cells" if len(differ) > 3 else ""
        return DIFFERENT, "; ".join(differ[:3]) + more
    if largest:
        return CLOSE, f"largest relative difference {largest:.1e}"
    return SAME, "other bytes, same cells"


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file)) or [[]]


def apart(x: str, y: str) -> float:
    """Relative difference of two cells: 0 for equal texts, infinite where only one is a number."""
    if x == y:
        return 0.0
    try:
        a, b = float(x), float(y)
    except ValueError:
        return math.inf
    if a == b or not (math.isfinite(a) and math.isfinite(b)):
        return 0.0 if a == b else math.inf
    return abs(a - b) / max(abs(a), abs(b))


def is_word(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return bool(cell)
    return False


def pictures(name: str, there: Path, now: Path) -> str:
    """Whether figures and printed tables agree, apart from the record of provenance in them."""
    suffixes = [s for s in READERS if all((folder / f"{name}{s}").is_file() for folder in (there, now))]
    same, other = [], []
    for suffix in suffixes:
        old, new = ((folder / f"{name}{suffix}") for folder in (there, now))
        try:
            before, after = (read_provenance(path)["versions"] for path in (old, new))
        except ValueError as error:
            return str(error)
        if moved := [f"{k} {before.get(k, '-')}, now {v}" for k, v in after.items() if before.get(k) != v]:
            return f"not compared: {'; '.join(moved)}"
        (same if drawing(old) == drawing(new) else other).append(suffix[1:])
    words = [(same, "same"), (other, "different")]
    return "; ".join(f"{', '.join(kinds)} {word}" for kinds, word in words if kinds)


def drawing(path: Path) -> bytes:
    """A file's content without its record."""
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            return repr((image.size, image.mode)).encode() + image.tobytes()
    text = path.read_bytes()
    if path.suffix == ".pdf":  # the table of offsets at the end moves with the length of the record
        text = text.partition(b"\nxref\n")[0]
    return re.sub(RECORDS[path.suffix], b"", text, count=1, flags=re.DOTALL)


def table(checks: list[Check]) -> str:
    """Checks as aligned text."""
    cells = [("artefact", "numbers", "pictures", "detail")]
    cells += [(c.artefact, c.state, c.pictures or "-", c.detail) for c in checks]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    lines = ("  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths)), row[-1]]) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
