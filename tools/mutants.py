"""Change single lines on purpose and see whether a test fails: `python tools/mutants.py --count 50`.

Draws places at random (seeded) in the rooms where a silent fault costs most, makes one small change each in a
copy of the repository, and runs the tests of the same room, then, if the mutant lives, the whole suite. Prints
a line a mutant and the share that died; those that live are listed with their change, to be killed by a test or
seen to be equivalent. By hand: fifty mutants take an hour or more.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("methods", "train", "studies", "capturing", "models")
COPIED = (
    "vlmlab",
    "tests",
    "notebooks",
    "tools",
    "data",
    "figures",
    "pyproject.toml",
    "README.md",
    "Makefile",
    ".ci",
)

COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
ARITHMETIC = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the characters from `start` to `end` become `text`."""

    path: Path
    line: int
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]

    def shown(self, source: str) -> str:
        at = source.rfind("\n", 0, self.start) + 1
        stop = source.find("\n", self.end)
        return f"{' '.join(source[at:stop].split())}  →  {' '.join((source[at : self.start] + self.text + source[self.end : stop]).split())}"


class Places(ast.NodeVisitor):
    """Finds what can be changed; messages, annotations and decorators are left alone."""

    def __init__(self, path: Path, source: str):
        self.path, self.source, self.found = path, source, []
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.bytes = [line.encode() for line in source.splitlines(keepends=True)]

    def at(self, line: int, column: int) -> int:
        """Columns of `ast` count bytes of UTF-8."""
        return self.lines[line - 1] + len(self.bytes[line - 1][:column].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def add(self, node: ast.AST, start: int, end: int, text: str) -> None:
        self.found.append(Mutant(self.path, node.lineno, start, end, text))

    def between(self, left: ast.AST, right: ast.AST, text: str) -> None:
        """Replace the operator that stands between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end]
        if (op := gap.strip()) and not set("()#\n") & set(gap):
            self.add(left, start, end, gap.replace(op, text))

    def visit_Compare(self, node):
        if len(node.ops) == 1:
            self.between(node.left, node.comparators[0], COMPARISONS[type(node.ops[0])])
        self.generic_visit(node)

    def visit_BinOp(self, node):
        union = isinstance(node.op, ast.BitOr) and any(
            isinstance(x, ast.Constant) or (isinstance(x, ast.Name) and x.id[0].isupper())
            for x in (node.left, node.right)
        )  # of types, read by nobody
        if union:
            return
        if type(node.op) in ARITHMETIC and not any(
            isinstance(x, (ast.JoinedStr, ast.List)) for x in (node.left, node.right)
        ):
            self.between(node.left, node.right, ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        self.between(node.values[0], node.values[1], "or" if isinstance(node.op, ast.And) else "and")
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.Not):
            self.add(node, *self.span(node), ast.get_source_segment(self.source, node.operand) or "True")
        self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, bool):
            self.add(node, *self.span(node), str(not node.value))
        elif isinstance(node.value, (int, float)):
            self.add(node, *self.span(node), repr(node.value + 1))

    def visit_Call(self, node):
        plain = [*node.args, *node.keywords]
        for keyword in node.keywords:
            if keyword.arg and len(plain) > 1 and plain[-1] is keyword:
                before = plain[-2].value if isinstance(plain[-2], ast.keyword) else plain[-2]
                self.add(node, self.span(before)[1], self.span(keyword.value)[1], "")
        self.generic_visit(node)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call):  # a statement for its effect
            self.add(node, *self.span(node), "pass")
        self.generic_visit(node)

    def visit_Raise(self, node):
        return None

    def visit_JoinedStr(self, node):
        return None

    def visit_arg(self, node):
        return None

    def visit_AnnAssign(self, node):
        if node.value:
            self.visit(node.value)

    def visit_FunctionDef(self, node):
        for part in [*node.args.defaults, *[d for d in node.args.kw_defaults if d], *node.body]:
            self.visit(part)


def draw(rooms: list[str], count: int, seed: int) -> list[Mutant]:
    """`count` places, rooms in turn, so that a large room does not take them all."""
    rng = random.Random(seed)
    drawn = []
    for number, room in enumerate(rooms):
        places = []
        for path in sorted((ROOT / "vlmlab" / room).rglob("*.py")):
            finder = Places(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
            finder.visit(ast.parse(finder.source))
            places += finder.found
        drawn += rng.sample(places, min(len(places), count // len(rooms) + (number < count % len(rooms))))
    return drawn


def passes(folder: Path, tests: list[str], jobs: int, limit: int) -> bool:
    """Whether the tests pass in the copy; one that hangs has failed."""
    python = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        str(jobs),
        "--dist",
        "loadfile",
    ]
    env = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
           "HOME": str(folder)}  # fmt: skip
    try:
        return (
            subprocess.run(
                [*python, *tests], cwd=folder, env=env, capture_output=True, timeout=limit
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


def lives(folder: Path, mutant: Mutant, jobs: int, whole: bool) -> bool:
    """Whether no test notices the mutant."""
    target = folder / mutant.path
    source = target.read_text(encoding="utf-8")
    target.write_text(mutant.apply(source), encoding="utf-8")
    try:
        room = f"tests/{mutant.path.parts[1]}"
        own = folder / room / f"test_{mutant.path.stem}.py"
        steps = [[str(own.relative_to(folder))]] if own.exists() else []
        steps += [[room]] + ([["tests"]] if whole else [])
        return all(passes(folder, step, jobs, 3600) for step in steps)
    finally:
        target.write_text(source, encoding="utf-8")


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--count", type=int, default=50, help="mutants (50)")
    ap.add_argument("--seed", type=int, default=0, help="another seed draws other places (0)")
    ap.add_argument("--rooms", default=",".join(ROOMS), help=f"rooms of vlmlab/ ({','.join(ROOMS)})")
    ap.add_argument("--jobs", type=int, default=2, help="test processes (2)")
    ap.add_argument("--room-only", action="store_true", help="do not try the survivors on the whole suite")
    ap.add_argument("--list", action="store_true", help="only show the changes")
    args = ap.parse_args()
    mutants = draw(args.rooms.split(","), args.count, args.seed)
    survivors = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "copy"
        folder.mkdir()
        for name in COPIED if not args.list else ():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        for mutant in mutants:
            change = f"{mutant.path}:{mutant.line}  {mutant.shown((ROOT / mutant.path).read_text(encoding='utf-8'))}"
            alive = not args.list and lives(folder, mutant, args.jobs, not args.room_only)
            survivors += [change] if alive else []
            print(f"{'LIVES ' if alive else '' if args.list else 'dies  '}{change}", flush=True)
    if not args.list:
        print(f"{len(mutants) - len(survivors)} of {len(mutants)} died")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
