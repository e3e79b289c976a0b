"""A picture loads what draws it and no other, so that editing one plot leaves the figures of others alone."""

import subprocess
import sys

import pytest

from vlmlab import plots


def test_a_name_loads_its_own_module():
    code = (
        "import sys; from vlmlab import plots; plots.label('cls'); plots.sweep; plots.lines; "
        "print(callable(plots.sweep), callable(plots.lines), "
        "sorted(m for m in sys.modules if m.startswith('vlmlab.plots.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = [f"vlmlab.plots.{name}" for name in ("checks", "lines", "marks", "style", "sweep")]
    assert done.stdout.strip() == f"True True {modules}"


def test_names():
    assert all(callable(getattr(plots, name)) for name in plots.__all__) and dir(plots) == sorted(
        plots.__all__
    )
    with pytest.raises(AttributeError, match=r"No vlmlab\.plots attribute line"):
        plots.line  # noqa: B018
