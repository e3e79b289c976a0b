"""Write environment.yml from pyproject.toml: `python tools/environment.py`."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "3.11"
EXTRAS = ("hf", "lab", "test")

TEMPLATE = """\
# Made from pyproject.toml by tools/environment.py; change it there.
name: {name}
channels:
  - conda-forge
dependencies:
  - python={python}
  - pip
  - pip:
{requirements}
      - -e .
"""


def render(pyproject: str) -> str:
    """The text of environment.yml: every dependency once, then vlmlab itself, all from pip."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(r for extra in EXTRAS for r in extras[extra])]
    lines = "\n".join(f"      - {r}" for r in dict.fromkeys(wanted))
    return TEMPLATE.format(name=project["name"], python=PYTHON, requirements=lines)


if __name__ == "__main__":
    text = render((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (ROOT / "environment.yml").write_bytes(text.encode())
