"""Puts the data and the notebooks at the root of the repository into the wheel, as vlmlab/_shipped/; the rest is in
pyproject.toml. An editable install has no copy: there the folders of the checkout are used (vlmlab/paths.py).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (
    "data/descriptions",
    "data/dola_static",
    "data/drawings",
    "data/emoji",
    "data/faces",
    "data/models",
    "data/published",
    "notebooks",
)  # as in MANIFEST.in
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")


class BuildWithFolders(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "vlmlab/_shipped"
        shutil.rmtree(target, ignore_errors=True)  # what an earlier build left
        for name in SHIPPED:
            shutil.copytree(name, target / name, ignore=LEFT_OUT)


setup(cmdclass={"build_py": BuildWithFolders})
