"""environment.yml says what pyproject.toml says."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_environment_file_is_current():
    render = runpy.run_path(str(ROOT / "tools/environment.py"))["render"]
    expected = render((ROOT / "pyproject.toml").read_text(encoding="utf-8")).encode()
    actual = (ROOT / "environment.yml").read_bytes()
    assert actual == expected, "environment.yml is out of date; run `python tools/environment.py`"
    packages = [line for line in actual.decode().splitlines() if line.startswith("      - ")]
    assert len(packages) == len({*packages})
