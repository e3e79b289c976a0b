"""Text is UTF-8 everywhere, whatever the locale of the machine: each place that reads or writes it says so."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("vlmlab", "tools", "benchmarks", "data")
MODE = {"open": 1, "fdopen": 1, "NamedTemporaryFile": 0, "TemporaryFile": 0}  # its place among the arguments
TEXT = ("read_text", "write_text")
OTHERS = (
    "os.open",
    "Image.open",
    "gzip.open",
    "zipfile.open",
    "archive.open",
)  # no text, or said by the mode


def unsaid(tree: ast.Module) -> list[str]:
    """The calls that would take the encoding of the locale."""
    return [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Call) and is_unsaid(n)]


def is_unsaid(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    last, given = name.rpartition(".")[2], {k.arg: k.value for k in call.keywords}
    if "encoding" in given or None in given or name in OTHERS:  # None: **kwargs
        return False
    if last in TEXT:
        return len(call.args) <= (last == "write_text")
    if last in MODE:
        place = MODE[last] - (isinstance(call.func, ast.Attribute) and last == "open")  # path.open(mode)
        mode = given.get("mode") or (call.args[place] if len(call.args) > place else None)
        default = "w+b" if last.endswith("TemporaryFile") else "r"
        value = mode.value if isinstance(mode, ast.Constant) else default
        return isinstance(value, str) and "b" not in value
    return "text" in given or "universal_newlines" in given


@pytest.mark.parametrize(
    "path",
    sorted(p for f in FOLDERS for p in (ROOT / f).rglob("*.py")),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_every_text_has_its_encoding(path):
    wrong = unsaid(ast.parse(path.read_text(encoding="utf-8")))
    assert not wrong, f'{path} takes the encoding of the locale: {wrong}; say encoding="utf-8"'


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("open(p, 'rb')", False),
        ("p.open('a+')", True),
        ("p.open('r+b')", False),
        ("p.open('w', encoding='utf-8')", False),
        ("os.fdopen(1, 'w')", True),
        ("p.read_text()", True),
        ("p.write_text('x')", True),
        ("p.read_text('utf-8')", False),
        ("subprocess.run(['git'], text=True)", True),
        ("subprocess.run(['git'])", False),
        ("tempfile.TemporaryFile(dir=d)", False),
        ("tempfile.NamedTemporaryFile('w')", True),
    ],
)
def test_the_rule_itself(line, wrong):
    assert bool(unsaid(ast.parse(line))) == wrong


def test_the_command_line_in_a_locale_without_letters():
    """What it prints to a pipe or a file is UTF-8 where Python itself would take ASCII."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import sys; from vlmlab import cli; cli.parser = lambda: sys.exit(print('\\u03b1 \\xb1')); cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "α ±\n"), done.stderr.decode()
