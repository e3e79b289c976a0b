"""A small study in a temporary project: cheap notebooks, a training function without any model."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from vlmlab import studies
from vlmlab.studies.driver import runner

TRAIN = """
import hashlib, json, os, pathlib, signal, time

def train(job, runs):
    task = job["task"].split("/")[1]
    key = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{job['study']}/{job['method']}/{job['task']}/{key}"
    path = pathlib.Path(runs, name)
    path.mkdir(parents=True, exist_ok=True)
    with open(pathlib.Path(runs, "calls.txt"), "a") as calls:
        calls.write(f"{os.getpid()} {task} {job['seed']}\\n")
    print("what a job prints is no answer")
    if task == "raise":
        raise ValueError("this task cannot be\\nsecond line")
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    times = len(pathlib.Path(runs, "calls.txt").read_text().split(f" {task} {job['seed']}\\n")) - 1
    if task == "kill_twice" and times <= 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "slow":
        time.sleep(60)
    time.sleep(0.05)
    (path / "run.json").write_text(json.dumps({"key": key, "status": "ok", "job": {}, "labels": {}}))
    value = "NaN" if task == "corrupt" and times == 1 else "1.0"
    (path / "results.jsonl").write_text(f'{{"value": {value}}}\\n')
    return {"run": name, "key": key, "status": "ok", "digest": key}
"""
PARAMETERS = 'study = "fake"\nartefact = ""\nprofile = "demo"\nruns = "runs"\nout = ""\nepochs: int = 1'
SAVE = """import pathlib
for kind in {kinds!r}:
    head = "epochs\\n" if kind == "csv" else ""
    pathlib.Path(out, f"{{artefact}}.{{kind}}").write_text(f"{{head}}{{epochs}}")"""
FIGURE, TABLE = ("svg", "png"), ("csv", "tex")


@dataclasses.dataclass
class Project:
    """A temporary project and the calls on it."""

    root: Path
    parameters = PARAMETERS

    @property
    def places(self) -> dict:
        folders = {
            "runs": "runs",
            "figures": "figures",
            "notebooks": "notebooks",
            "data": "data",
        }
        return {name: self.root / folder for name, folder in folders.items()}

    def reproduce(self, **options) -> runner.Summary:
        return studies.reproduce("fake", **{**self.places, "train": "fake_train:train", **options})

    def states(self) -> dict[str, str]:
        rows = studies.states("fake", **self.places, train="fake_train:train")
        return {row.artefact: f"{row.state} {row.detail}".strip() for row in rows}

    def calls(self) -> list[list[str]]:
        """[process, task, seed] of every call of the training function."""
        path = self.root / "runs/calls.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def notebook(self, name: str, *cells: str, parameters: str = PARAMETERS) -> Path:
        """A notebook with a title, the parameters cell, and code cells."""
        made = [{"cell_type": "markdown", "metadata": {}, "source": "# title", "id": "t"}]
        for i, text in enumerate([parameters, *cells]):
            metadata = {} if i else {"tags": ["parameters"]}
            made.append(
                {
                    "cell_type": "code",
                    "id": f"c{i}",
                    "metadata": metadata,
                    "source": text,
                    "outputs": [],
                    "execution_count": None,
                }
            )
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        notebook = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        return self.write(f"notebooks/fake/{name}.ipynb", json.dumps(notebook))

    def artefact(
        self,
        name: str,
        *cells: str,
        kind: str = "figure",
        matrix: str = "main",
        extra: str = "",
        parameters: str = PARAMETERS,
    ) -> str:
        """A notebook and the part of study.toml that names it."""
        kinds = FIGURE if kind == "figure" else TABLE
        self.notebook(name, *cells, SAVE.format(kinds=kinds), parameters=parameters)
        text = f'[[artefact]]\nid = "{name}"\nnotebook = "{name}.ipynb"\nkind = "{kind}"\n'
        runs = f'runs = ["{matrix}"]\n' if matrix else ""
        return f"{text}{runs}{extra}\n"

    def study(self, *artefacts: str, tasks: dict[str, list[str]] | None = None, extra: str = "") -> Path:
        """study.toml with one matrix per entry of `tasks`."""
        text = f'[study]\nid = "fake"\n\n{"".join(artefacts)}\n[profile.demo]\nmodel = "none"\n{extra}\n'
        for name, ids in (tasks or {"main": ["toy/a"]}).items():
            text += f'\n[[profile.demo.matrix]]\nname = "{name}"\nmethods = ["one"]\n'
            text += f"tasks = {ids}\nseeds = [1, 2]\nshots = [4]\n"
        return self.write("notebooks/fake/study.toml", text)


LAZY = """import importlib

_MODULES = {{{table}}}
_HOME = {{name: module for module, names in _MODULES.items() for name in names}}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"{{__name__}}.{{_HOME[name]}}"), name)
"""
LAB = {  # a package of the user's own, laid out as vlmlab is
    "__init__": "",
    "measures/__init__": LAZY.format(table='"alpha": ("alpha_of",), "beta": ("beta_of",)'),
    "measures/alpha": "from . import shared\n\ndef alpha_of():\n    return shared.one\n",
    "measures/beta": '"""Doc."""\n\ndef beta_of():\n    return 2\n',
    "measures/gamma": "def gamma_of():\n    return 3\n",
    "measures/shared": "one = 1\n",
}


def make(root: Path) -> Project:
    project = Project(root)
    project.write("fake_train.py", TRAIN)
    for name, text in LAB.items():
        project.write(f"lab/{name}.py", text)
    project.write("data/published/fake/table1.csv", "a\n1\n")
    project.write("data/toy/images.csv", "a\n1\n")
    return project


@pytest.fixture(scope="session", autouse=True)
def find_fake_train(tmp_path_factory):
    """Workers import fake_train from a folder on PYTHONPATH."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "fake_train.py").write_text(TRAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        patch.syspath_prepend(folder)
        yield
    sys.modules.pop("fake_train", None)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return make(tmp_path)


@pytest.fixture(scope="module")
def module_project(tmp_path_factory) -> Project:
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root), prepend=":")
        yield make(root)
