"""Dependencies are followed to the module that defines a name, and no further."""

import importlib
import re
from pathlib import Path

import pytest

from vlmlab.studies.driver import notebook
from vlmlab.studies.driver.modules import Modules, python_of
from vlmlab.studies.places import PACKAGE

NOTEBOOKS = sorted(Path(PACKAGE.parent, "notebooks").glob("*/*.ipynb"))

FILES = {
    "__init__.py": 'import importlib\n_ROOMS = {"fit": "vlmlab.train.fit", "capture": "vlmlab.capture"}\n'
    "__version__ = '1'\n"
    "def __getattr__(name):\n    return importlib.import_module(_ROOMS[name])\n",
    "measures/__init__.py": "from .norms import ratio\nfrom . import geometry\n",
    "measures/norms.py": "from ..capture.tokens import roles\ndef ratio(): return roles\n",
    "measures/geometry.py": "def uniformity(): return 1\n",
    "capture/__init__.py": "import importlib\n_NAMES = {'mean': 'reducers', 'roles': '.tokens'}\n"
    "def __getattr__(name):\n    return importlib.import_module(_NAMES[name])\n",
    "capture/reducers.py": "def mean(): return 1\n",
    "capture/tokens.py": "def roles(): return 1\n",
    "plots/__init__.py": "import importlib\n_MODULES = {'lines': ('lines', 'band'), 'grid': ['grid']}\n"
    "_HOME = {n: m for m, names in _MODULES.items() for n in names}\n"
    "def __getattr__(name):\n    return importlib.import_module(_HOME[name])\n",
    "plots/lines.py": "def lines(): return 1\ndef band(): return 2\n",
    "plots/grid.py": "def grid(): return 1\n",
    "methods/__init__.py": "import importlib\nfrom .method import Method\n"
    "def build(name):\n    return importlib.import_module(f'{__name__}.{name}')\n",
    "methods/method.py": "class Method: pass\n",
    "methods/one.py": "from .method import Method\nTABLE = 'presets.csv'\n",
    "methods/two.py": "from .one import TABLE\n",
    "methods/presets.csv": "a\n1\n",
    "train/__init__.py": "",
    "train/fit.py": "from .. import methods\ndef fit(): return methods.build('one')\n",
    "studies/__init__.py": "from .provenance import save\nfrom .runner import reproduce\n",
    "studies/provenance.py": "from .. import __version__\ndef save(): return __version__\n",
    "studies/runner.py": "from . import provenance\ndef reproduce(): pass\n",
}
METHODS = ["methods/__init__", "methods/method", "methods/one", "methods/two"]


@pytest.fixture
def package(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "vlmlab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "vlmlab"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import numpy, vlmlab", []),
        ("import vlmlab\nvlmlab.__version__", []),
        ("from vlmlab import measures\nmeasures.ratio(1)", ["capture/tokens", "measures/norms"]),
        ("from vlmlab import measures as m\nm.geometry.uniformity(1)", ["measures/geometry"]),
        ("from vlmlab.measures.geometry import uniformity", ["measures/geometry"]),
        ("import vlmlab.measures.geometry", ["measures/geometry"]),
        ("def later():\n    from vlmlab.measures import ratio", ["capture/tokens", "measures/norms"]),
        (
            "from vlmlab import measures\nprint(measures)",
            ["capture/tokens", "measures/__init__", "measures/geometry", "measures/norms"],
        ),
        ("import vlmlab\nvlmlab.capture.mean(1)", ["capture/reducers"]),
        ("from vlmlab.capture import roles", ["capture/tokens"]),
        ("import vlmlab\nvlmlab.capture(1)", ["capture/__init__", "capture/reducers", "capture/tokens"]),
        ("from vlmlab import plots\nplots.band(1)", ["plots/lines"]),
        ("from vlmlab.plots import grid", ["plots/grid"]),
        ("from vlmlab.methods.one import TABLE", ["methods/method", "methods/one"]),
        ("import vlmlab\nvlmlab.fit(1)", [*METHODS, "train/fit"]),
        (
            "import importlib\nimportlib.import_module('vlmlab.methods.one')",
            ["methods/method", "methods/one"],
        ),
        ("from vlmlab import studies\nstudies.save(1)", ["studies/provenance"]),
        ("from vlmlab.studies import reproduce", []),
    ],
)
def test_reached_modules(package, code, expected):
    assert list(Modules(package).digests(code)) == [f"vlmlab/{name}.py" for name in expected]


@pytest.mark.parametrize("room", ["measures", "plots"])
def test_public_names_of_a_room_lead_to_their_own_module(room):
    public = importlib.import_module(f"vlmlab.{room}")
    modules = Modules(PACKAGE)
    for name in public.__all__:
        assert modules.resolve(f"vlmlab.{room}.{name}") == {getattr(public, name).__module__}, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_depends_on_the_measures_it_uses_and_no_other(path):
    cells = ["".join(c["source"]) for c in notebook.read(path)["cells"] if c["cell_type"] == "code"]
    modules, code = Modules(PACKAGE), python_of(cells)
    uses = "".join(f"\nmeasures.{name}" for name in re.findall(r"measures\.(\w+)", code))

    def measures(text):
        return {name for name in modules.digests(text) if name.startswith("vlmlab/measures/")}

    assert measures(code) == (measures(f"from vlmlab import measures{uses}") if uses else set())
    assert len(measures(code)) < len(list(PACKAGE.glob("measures/*.py"))) - 1


def test_relative_imports_need_the_module_name(package):
    assert list(Modules(package).digests("from ..measures import geometry", "vlmlab.train.x")) == [
        "vlmlab/measures/geometry.py"
    ]


def test_a_plugin_that_does_not_exist_is_left_to_who_asks_for_it(package):
    modules = Modules(package, {"vlmlab.methods": ["tree"]})
    assert "vlmlab/methods/__init__.py" in modules.digests("import vlmlab\nvlmlab.fit(1)")


def test_plugins_narrow_computed_imports(package):
    modules = Modules(package, {"vlmlab.methods": ["one"]})
    assert "vlmlab/methods/two.py" not in modules.digests("import vlmlab\nvlmlab.fit(1)")


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("return 1", "return 2", False),
        ("def uniformity(): return 1", 'def uniformity():\n    """Doc."""\n    # why\n    return (1)', True),
    ],
)
def test_digest_is_of_the_code(package, old, new, same):
    code, path = "from vlmlab.measures import geometry", package / "measures/geometry.py"
    before = Modules(package).digests(code)
    path.write_text(path.read_text().replace(old, new))
    assert (Modules(package).digests(code) == before) is same


def test_a_table_beside_a_module_belongs_to_it(package):
    code = "from vlmlab.methods import one"
    before = Modules(package).digests(code)
    (package / "methods/presets.csv").write_text("a\n2\n")
    after = Modules(package).digests(code)
    assert [n for n in before if before[n] != after[n]] == ["vlmlab/methods/one.py"]


def test_cells_of_a_notebook_are_one_text():
    cells = ["%matplotlib inline\nimport vlmlab as v", "%%html\n<b>", "if v:\n    !ls\n    v.fit(1)"]
    text = python_of(cells)
    assert text == "pass\nimport vlmlab as v\nif v:\n    pass\n    v.fit(1)"
