"""Where a line of Python can be changed, and how: what `tools/mutants.py` draws from."""

import ast
import random
from dataclasses import dataclass
from pathlib import Path

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

UNSEEN = (
    "non_blocking",
    "refresh",
    "progress",
    "pin_memory",
    "stacklevel",
)  # keywords that only decide how fast, or which line is blamed


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the characters from `start` to `end` become `text`.

    first, last: lines of the statement up to the change; who executes one of them could notice it.
    """

    path: Path
    line: int
    first: int
    last: int
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]

    def shown(self, source: str) -> str:
        at = source.rfind("\n", 0, self.start) + 1
        stop = source.find("\n", self.end)
        changed = source[at : self.start] + self.text + source[self.end : stop]
        return f"{' '.join(source[at:stop].split())}  →  {' '.join(changed.split())}"


class Places(ast.NodeVisitor):
    """Finds what can be changed; messages, annotations and decorators are left alone."""

    def __init__(self, path: Path, source: str):
        self.path, self.source, self.found, self.statement = path, source, [], None
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
        first = (self.statement or node).lineno
        last = self.source.count("\n", 0, end) + 1
        self.found.append(Mutant(self.path, node.lineno, first, last, start, end, text))

    def visit(self, node):
        outer = self.statement
        if isinstance(node, ast.stmt):
            self.statement = node
        super().visit(node)
        self.statement = outer

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
            isinstance(x, (ast.JoinedStr, ast.List))
            or (isinstance(x, ast.Constant) and isinstance(x.value, str))
            for x in (node.left, node.right)  # text, or a path: only an error could come of it
        ):
            self.between(node.left, node.right, ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        self.between(node.values[0], node.values[1], "or" if isinstance(node.op, ast.And) else "and")
        self.generic_visit(node)

    def visit_If(self, node):
        """A plain condition is turned round; others are changed within."""
        if isinstance(node.test, (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr)):
            start, end = self.span(node.test)
            self.add(node.test, start, end, f"not ({self.source[start:end]})")
        self.generic_visit(node)

    visit_IfExp = visit_While = visit_If

    def visit_Return(self, node):
        if isinstance(node.value, (ast.Name, ast.Attribute, ast.Call)):
            self.add(node, *self.span(node.value), "None")
        self.generic_visit(node)

    def visit_List(self, node):
        """One of several entries is left out."""
        for n, (entry, following) in enumerate(zip(node.elts, [*node.elts[1:], None])):
            if following is not None:
                self.add(entry, self.span(entry)[0], self.span(following)[0], "")
            elif n:
                self.add(entry, self.span(node.elts[n - 1])[1], self.span(entry)[1], "")
        self.generic_visit(node)

    visit_Set = visit_List

    def visit_Dict(self, node):
        for key, value, following in zip(node.keys, node.values, [*node.keys[1:], None]):
            if key is not None and following is not None:
                self.add(key, self.span(key)[0], self.span(following)[0], "")
            elif (
                key is not None and key is node.keys[-1] and len(node.keys) > 1 and node.keys[-2] is not None
            ):
                self.add(key, self.span(node.values[-2])[1], self.span(value)[1], "")
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
            if keyword.arg and keyword.arg not in UNSEEN and len(plain) > 1 and plain[-1] is keyword:
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

    def visit_Assign(self, node):
        if not (isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"):
            self.generic_visit(node)

    def visit_keyword(self, node):
        if node.arg not in UNSEEN:
            self.generic_visit(node)

    def visit_ClassDef(self, node):
        for part in node.body:
            self.visit(part)

    def visit_FunctionDef(self, node):
        for part in [*node.args.defaults, *[d for d in node.args.kw_defaults if d], *node.body]:
            self.visit(part)


def places(root: Path, path: Path) -> list[Mutant]:
    """All mutants of a file of vlmlab."""
    finder = Places(path.relative_to(root), path.read_text(encoding="utf-8"))
    finder.visit(ast.parse(finder.source))
    return finder.found


def draw(root: Path, rooms: list[str], count: int, seed: int) -> list[Mutant]:
    """`count` places of rooms or files below vlmlab/, in turn, so that a large room does not take them all.

    A room's draw does not depend on the other rooms, and a larger one begins with the smaller.
    """
    drawn = []
    for number, room in enumerate(rooms):
        folder = root / "vlmlab" / room
        found = [m for f in (sorted(folder.rglob("*.py")) or [folder]) for m in places(root, f)]
        random.Random(f"{seed} {room}").shuffle(found)
        share = count // len(rooms) + (number < count % len(rooms))
        drawn += [(place, number, mutant) for place, mutant in enumerate(found[:share])]
    return [mutant for _, _, mutant in sorted(drawn, key=lambda d: d[:2])]
