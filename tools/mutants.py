"""Change single lines on purpose and see whether a test fails: `python tools/mutants.py --count 50`.

Draws places at random (seeded) in the rooms where a silent fault costs most and makes one small change each in a
copy of the repository. A mutant is tried on the tests that execute its line: of the test file of its name, of its
room, of other rooms; where none does, on all of its room. Which test executes which line is noted when a file is
first needed (build/mutants/, made again after a change). Each try is a fork of one process that has imported the
large libraries but not vlmlab: seconds a mutant. A test that hangs has failed. The same command goes on where it
was stopped. Prints a line a mutant and the shares that died; those that live are to be killed by a test or seen to
be equivalent.
"""

import argparse
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mutant_tests import Chosen, Noting, in_fork, run_tests
from mutations import Mutant, draw

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build/mutants"
ROOMS = ("methods", "train", "studies", "capturing", "models")
LIBRARIES = ("torch", "torchvision.transforms.v2", "open_clip", "transformers.models.auto.modeling_auto", "timm", "pandas", "pyarrow.parquet",
             "xarray", "matplotlib.pyplot", "seaborn", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.manifold", "PIL.Image",
             "safetensors.torch", "msgspec", "nbformat", "nbclient", "papermill", "IPython", "ipywidgets", "distributed", "_pytest.python")  # fmt: skip


def sha(*files: Path) -> str:
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()[:16]


@cache
def tree(folder: Path) -> str:
    return sha(*sorted(folder.rglob("*.py")))


class Notes:
    """Which test executes which lines, noted when first asked for, and again when the test or the module changed."""

    def __init__(self, folder: Path):
        self.folder, self.known = folder, {}
        tests = sorted(p.relative_to(folder) for p in (folder / "tests").rglob("test_*.py"))
        self.files = [str(p) for p in tests if "browser" not in p.parts]

    def kept(self, file: str) -> Path:
        return KEPT / "lines" / f"{file.replace('/', '.')}-{sha(self.folder / file)}.json"

    def of(self, file: str, path: str) -> dict[str, dict]:
        """What `Noting` wrote of a test file, as long as it holds for a module."""
        kept, now = self.kept(file), sha(self.folder / path)
        if file not in self.known and kept.exists():
            self.known[file] = json.loads(kept.read_text(encoding="utf-8"))
        if file not in self.known or self.known[file]["modules"].get(path, now) != now:
            print(f"       ({file} runs once to note its lines)", flush=True)
            part = self.folder / "lines.json"
            part.unlink(missing_ok=True)
            in_fork(lambda: run_tests(self.folder, [file], Noting(self.folder, part)), 1800)
            noted = (
                {"tests": json.loads(part.read_text(encoding="utf-8"))} if part.exists() else {"tests": {}}
            )
            seen = {module for test in noted["tests"].values() for module in test["lines"]}
            noted["modules"] = {module: sha(self.folder / module) for module in seen}
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(noted), encoding="utf-8")
            self.known[file] = noted
        return self.known[file]["tests"]

    def seconds(self, file: str, path: str, lines: set[int] | None) -> dict[str, float]:
        """Test -> seconds, of those of a file that pass unchanged and execute one of the lines of a module, or
        anything of it where the lines belong to an import or a shared fixture; all tests for None."""
        notes = self.of(file, path)
        seen = {test: set(n["lines"].get(path, ())) for test, n in notes.items()}
        shared = lines and lines & seen.get("", set())
        return {
            test: n["seconds"]
            for test, n in notes.items()
            if test and (lines is None or lines & seen[test] or (shared and seen[test]))
        }


def steps(mutant: Mutant, notes: Notes, room_only: bool, most: float) -> Iterator[dict[str, float]]:
    """Tests to try, one set after the other: test -> seconds. Those that execute the changed line, first of the file
    of its name, then of its folder, of its room, of other rooms; where none does, all of the room.
    """
    path, lines = str(mutant.path), set(range(mutant.first, mutant.last + 1))
    parts = mutant.path.parts[1:-1]  # none of a module directly in vlmlab/
    folder = "/".join(["tests", *parts, "" if parts else "test_"])
    room = "/".join(["tests", *parts[:1], "" if parts else "test_"])
    own = f"{Path('tests', *parts)}/test_{mutant.path.stem}"
    nearness = (own, folder, room, *(() if room_only else ("",)))
    left, covered = list(notes.files), False
    for start in nearness:
        near = [file for file in left if file.startswith(start)]
        left = [file for file in left if file not in near]
        noted = [file for file in near if notes.kept(file).exists()]
        for files in (noted, *([file] for file in near if file not in noted)):
            found = {t: s for file in files for t, s in notes.seconds(file, path, lines).items()}
            if chosen := quickest(found, most):
                covered = True
                yield chosen
    if not covered:  # what other processes execute
        near = [file for file in notes.files if file.startswith(room)]
        yield quickest({t: s for file in near for t, s in notes.seconds(file, path, None).items()}, most)


def quickest(tests: dict[str, float], most: float) -> dict[str, float]:
    """The quickest of tests, `most` seconds in all, at least one."""
    found, total = {}, 0.0
    for test in sorted(tests, key=tests.get):
        total += tests[test]
        if found and total > most:
            break
        found[test] = tests[test]
    return found


def outcome(folder: Path, mutant: Mutant, notes: Notes, room_only: bool, most: float) -> dict:
    """Whether and where the mutant dies."""
    begun, how, number = time.monotonic(), "lives", 0
    killer = folder / "killer.txt"
    killer.unlink(missing_ok=True)
    for chosen in steps(mutant, notes, room_only, most):  # may note lines: of what is unchanged
        number += 1
        status = status_of(folder, mutant, chosen, killer)
        if status not in (0, 5):  # 5: no such tests any more
            how = "hangs" if status is None else "dies"
            break
    by = killer.read_text(encoding="utf-8") if killer.exists() else ""
    return {"how": how, "step": number, "seconds": round(time.monotonic() - begun, 1), "by": by}


def status_of(folder: Path, mutant: Mutant, chosen: dict[str, float], killer: Path) -> int | None:
    """What tests say of the copy with the mutant in it."""
    target = folder / mutant.path
    source, stat = target.read_text(encoding="utf-8"), target.stat()
    files = sorted({test.split("::")[0] for test in chosen})
    target.write_text(mutant.apply(source), encoding="utf-8")
    try:
        limit = 120 + 10 * sum(chosen.values())
        return in_fork(lambda: run_tests(folder, files, Chosen(chosen, killer), "-x"), limit)
    finally:
        target.write_text(source, encoding="utf-8")
        os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def copied(scratch: str) -> Path:
    """The repository's files, without what git ignores."""
    folder = Path(scratch).resolve() / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def try_all(mutants: list[Mutant], room_only: bool, most: float) -> Iterator[dict]:
    """The outcome of each, from the file of outcomes where it is known."""
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / "outcomes.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    known = {row["key"]: row for row in map(json.loads, lines)}
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # an extra
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(scratch)
        notes = Notes(folder)
        for mutant in mutants:
            change = f"{mutant.path}:{mutant.line}  {mutant.shown((folder / mutant.path).read_text(encoding='utf-8'))}"
            dead = f"{change} {mutant.start} {sha(folder / mutant.path)}"
            alive = f"{dead} {tree(folder / 'vlmlab')} {tree(folder / 'tests')} {room_only} {most}"
            row = known.get(dead) or known.get(alive)
            if not row:
                row = outcome(folder, mutant, notes, room_only, most)
                row |= {
                    "key": alive if row["how"] == "lives" else dead,
                    "change": change,
                    "room": mutant.path.parts[1],
                }
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            print(f"{row['how']:6}{change}", flush=True)
            yield row


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--count", type=int, default=50, help="mutants (50)")
    ap.add_argument("--seed", type=int, default=0, help="another seed draws other places (0)")
    ap.add_argument("--rooms", default=",".join(ROOMS), help=f"rooms or files of vlmlab/ ({','.join(ROOMS)})")
    ap.add_argument("--room-only", action="store_true", help="do not try the tests of other rooms")
    ap.add_argument(
        "--seconds", type=float, default=200, help="of tests in one try, the quickest first (200)"
    )
    ap.add_argument("--list", action="store_true", help="only show the changes")
    args = ap.parse_args()
    mutants = draw(ROOT, args.rooms.split(","), args.count, args.seed)
    if args.list:
        for m in mutants:
            print(f"{m.path}:{m.line}  {m.shown((ROOT / m.path).read_text(encoding='utf-8'))}")
        return 0
    rows = list(try_all(mutants, args.room_only, args.seconds))
    for room in dict.fromkeys(r["room"] for r in rows):
        dead = [r["how"] != "lives" for r in rows if r["room"] == room]
        print(f"{room}: {sum(dead)} of {len(dead)} died")
    alive = [r["change"] for r in rows if r["how"] == "lives"]
    print(
        f"{len(rows) - len(alive)} of {len(rows)} died, in {sum(r['seconds'] for r in rows) / 60:.0f} minutes"
    )
    print(*(["these live:", *alive] if alive else []), sep="\n")
    return bool(alive)


if __name__ == "__main__":
    sys.exit(main())
