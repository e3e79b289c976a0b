"""Importing vlmlab is light, and its rooms import each other in one direction only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vlmlab"

HEAVY = ("torch", "matplotlib", "open_clip")

# room -> what it may import besides itself; "capturing.tokens" is one module of a room
ANYTHING = ("",)
MAY_IMPORT = {
    "models": (),
    "capturing": ("models",),
    "measures": (),
    "methods": ("models",),
    "distill": ("models",),
    "decode": ("models",),
    "mini": ("models", "tasks"),
    "systems": ("models", "tasks"),
    "tasks": (),
    "scores": ("tasks",),
    "train": ("models", "methods", "distill", "decode", "mini", "systems", "tasks", "scores"),
    "cards": ("models", "methods", "mini", "tasks", "scores", "train", "capturing.attention_tap"),
    "plots": (),
    "studies": ANYTHING,
    "widgets": ANYTHING,
    "cli": ANYTHING,
    "__init__": ANYTHING,
    "__main__": ("cli",),
}
# wing of studies -> the other wings it may import; modules directly in studies/ are ground that imports no wing
WINGS = {
    "jobs": (),
    "claims": ("pages", "jobs"),
    "pages": ("jobs",),
    "driver": ("claims", "pages", "jobs"),
}
FOR_NOBODY = ("widgets", "cli")  # except where the table names them
# Modules directly in vlmlab/ that the table does not name are common ground: all may import them,
# they import no room. The lazy names of `vlmlab` itself are for the rooms that may import anything.


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, text: str) -> list[str]:
    """What a module of vlmlab imports from vlmlab, at any depth of its code: 'room.module.name'."""
    here = path.relative_to(PACKAGE).parent.parts
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [a.name.split(".")[1:] for a in node.names if a.name.split(".")[0] == "vlmlab"]
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            if node.level:
                base = [*here[: len(here) - node.level + 1], *module]
            elif module and module[0] == "vlmlab":
                base = module[1:]
            else:
                continue
            found += [[*base, a.name] for a in node.names]
    return [".".join(parts) for parts in found]


def is_allowed(room: str, target: str, rooms: set[str]) -> bool:
    first = target.split(".")[0]
    allowed = MAY_IMPORT.get(room, ())
    if first == room or first.startswith("__"):
        return True
    if first in FOR_NOBODY:
        return first in allowed
    if first in rooms and first not in MAY_IMPORT:
        return True
    return allowed == ANYTHING or any(f"{target}.".startswith(f"{a}.") for a in allowed)


def wrong_arrows(path: Path, text: str, rooms: set[str]) -> list[str]:
    return [t for t in imports(path, text) if not is_allowed(room_of(path), t, rooms)]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    rooms = {room_of(p) for p in modules()}
    wrong = wrong_arrows(path, path.read_text(encoding="utf-8"), rooms)
    assert not wrong, f"{room_of(path)} must not import {wrong}; MAY_IMPORT in this file says what it may"


def wrong_wings(path: Path, text: str) -> list[str]:
    """The imports of a module of studies from wings that its own may not know."""
    inside = path.relative_to(PACKAGE / "studies").parts
    wing = inside[0] if len(inside) > 1 else ""
    targets = [t.removeprefix("studies.") for t in imports(path, text) if t.startswith("studies.")]
    known = (wing, *WINGS.get(wing, ()))
    of_wings = [t for t in targets if t.split(".")[0] in WINGS]
    return [t for t in of_wings if not any(f"{t}.".startswith(f"{k}.") for k in known if k)]


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "studies").rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_wings_of_studies_point_one_way(path):
    wrong = wrong_wings(path, path.read_text(encoding="utf-8"))
    assert not wrong, f"{path} must not import {wrong}; WINGS in this file says what it may"


@pytest.mark.parametrize(
    ("where", "line", "wrong"),
    [
        ("studies/manifest.py", "from .jobs.worker import Request", ["jobs.worker.Request"]),
        ("studies/jobs/pool.py", "from ..driver import notebook", ["driver.notebook"]),
        ("studies/jobs/pool.py", "from ..manifest import load\nfrom .worker import Worker", []),
        ("studies/pages/tables.py", "from ..claims import judge", ["claims.judge"]),
        ("studies/claims/judge.py", "def f():\n    from ..pages.tables import per_seed", []),
        ("studies/driver/runner.py", "from ..jobs import pool\nfrom ..pages import gallery", []),
    ],
)
def test_the_rule_of_wings_itself(where, line, wrong):
    assert wrong_wings(PACKAGE / where, line) == wrong


def test_every_wing_has_its_rule():
    assert {p.name for p in (PACKAGE / "studies").iterdir() if (p / "__init__.py").is_file()} == {*WINGS}


def test_every_room_has_its_rule():
    folders = {p.relative_to(PACKAGE).parts[0] for p in modules() if p.parent != PACKAGE}
    new = sorted(folders - set(MAY_IMPORT))
    assert not new, f"say in MAY_IMPORT what {new} may import"


@pytest.mark.parametrize(
    ("where", "line", "wrong"),
    [
        ("measures/norms.py", "from ..models.towers import Tower", ["models.towers.Tower"]),
        ("measures/norms.py", "def f():\n    import vlmlab.models", ["models"]),
        ("measures/norms.py", "from .. import token_labels\nfrom ..token_labels import roles_of", []),
        ("measures/norms.py", "from ..capturing import capture", ["capturing.capture"]),
        ("measures/norms.py", "from vlmlab import load", ["load"]),
        ("measures/norms.py", "import torch, vlmlab", [""]),
        ("measures/norms.py", "from .. import paths, __version__\nfrom . import attention", []),
        ("train/fit.py", "from ..methods.method import Method\nfrom ..tasks import task", []),
        ("methods/maple.py", "from ..train import fit", ["train.fit"]),
        ("tasks/emoji.py", "from ..models import load", ["models.load"]),
        ("studies/runner.py", "from .. import fit, widgets\nfrom ..cli import main", ["widgets", "cli.main"]),
        ("paths.py", "from .models import load", ["models.load"]),
        ("__init__.py", "from .models import load\nfrom .cli import main", ["cli.main"]),
        ("__main__.py", "from .cli import main", []),
    ],
)
def test_the_rule_itself(where, line, wrong):
    rooms = {*MAY_IMPORT, "paths", "token_labels"}
    assert wrong_arrows(PACKAGE / where, line, rooms) == wrong


def test_import_is_light():
    code = f"import sys, vlmlab; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"`import vlmlab` already loads {done.stdout.strip()}"
