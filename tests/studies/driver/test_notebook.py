"""Parameters are checked against the parameters cell; one execution ends in one clear line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from forked import running, wait_for

from vlmlab.studies.driver import kernel, notebook
from vlmlab.studies.jobs.worker import Failed

GOOD = {
    "nbformat": 4,
    "metadata": {},
    "cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "a = 1"}],
}
CELL = """import os
epochs = 10
rate: float = 1
name = os.environ.get("NAME", "x")
task: str | None = None
free = None
tasks: list[str] = []
sizes = (1, 2)
flag = False
"""


def test_what_a_parameters_cell_declares(project):
    found = notebook.parameters(project.notebook("n", parameters=CELL))
    assert {n: p.types for n, p in found.items()} == {
        "epochs": (int,),
        "rate": (float,),
        "name": (),
        "task": (str, type(None)),
        "free": (),
        "tasks": (list,),
        "sizes": (tuple,),
        "flag": (bool,),
    }


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 3, "rate": 2, "name": "y", "task": None, "free": [1], "tasks": ["a"], "flag": True},
        {"rate": 0.5, "task": "emoji/food", "sizes": [3]},
    ],
)
def test_legal_values(project, values):
    notebook.check(project.notebook("n", parameters=CELL), values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "no parameter 'epoch'; its parameters cell declares epochs, rate"),
        ({"epochs": "3"}, "epochs must be int, like its default 10; got '3'"),
        ({"epochs": 2.5}, "epochs must be int"),
        ({"epochs": True}, "epochs must be int"),
        ({"rate": "fast"}, "rate must be float"),
        ({"flag": 1}, "flag must be bool"),
        ({"task": 3}, "task must be str or NoneType"),
        ({"tasks": "a"}, "tasks must be list"),
    ],
)
def test_illegal_values(project, values, words):
    with pytest.raises(ValueError, match=words):
        notebook.check(project.notebook("n", parameters=CELL), values)


def test_notebooks_that_cannot_be_read(project):
    path = project.notebook("n", parameters="a = (")
    with pytest.raises(ValueError, match=r"n\.ipynb: the parameters cell is no Python"):
        notebook.parameters(path)
    path.write_text(path.read_text().replace('"parameters"', '"params"'))
    with pytest.raises(ValueError, match="0 cells tagged 'parameters'"):
        notebook.parameters(path)
    with pytest.raises(ValueError, match="not a notebook"):
        notebook.parameters(project.write("m.ipynb", "{"))


def test_limit_for_the_whole_notebook(project, tmp_path):
    source = project.notebook("n", "import time\nfor i in range(20):\n    time.sleep(0.1)", "time.sleep(60)")
    copy = tmp_path / "attempt/n.ipynb"
    with pytest.raises(Failed, match=r"over the limit of 3 s in cell [34]"):
        notebook.perform(str(source), str(copy), {"epochs": 2}, limit=3, project=str(project.root))
    assert len(notebook.started(copy)) >= 3


@pytest.mark.parametrize(("failures", "calls"), [(0, 1), (1, 2), (5, 2)])
def test_a_kernel_that_does_not_start_gets_a_second_chance(project, tmp_path, monkeypatch, failures, calls):
    source, made = project.notebook("n"), []

    def attempt(source, target, values, limit, project, several):
        made.append(source)
        target.write_text(source.read_text())
        target.with_name(notebook.RECORD).write_text('{"a.py": "1"}')
        return Failed("no port") if len(made) <= failures else None

    monkeypatch.setattr(notebook, "attempt", attempt)
    arguments = (str(source), str(tmp_path / "out/n.ipynb"), {}, 10, str(project.root))
    if failures > 1:
        with pytest.raises(Failed, match="no port"):
            notebook.perform(*arguments)
    else:
        assert notebook.perform(*arguments) == {"a.py": "1"}
    assert len(made) == calls


def test_an_attempt_starts_in_an_empty_folder(project, tmp_path, monkeypatch):
    left = tmp_path / "out/from_before.csv"
    left.parent.mkdir()
    left.touch()
    monkeypatch.setattr(notebook, "attempt", lambda *args: Failed("no port"))
    with pytest.raises(Failed):
        notebook.perform(str(project.notebook("n")), str(tmp_path / "out/n.ipynb"), {}, 10, str(project.root))
    assert not left.exists()


def test_a_tidy_copy_holds_no_times_and_no_attempt(tmp_path):
    cell = {
        "metadata": {"papermill": {}, "execution": {}, "tags": ["injected-parameters"]},
        "id": "3f",
        "source": 'out = "runs/s/attempts/fig1"',
    }
    copy = {"metadata": {"papermill": {}}, "cells": [cell]}
    tidy = notebook.tidy(copy, Path("runs/s/attempts/fig1"), Path("figures/s"))
    cell = {
        "metadata": {"tags": ["injected-parameters"]},
        "id": "injected-parameters",
        "source": 'out = "figures/s"',
    }
    assert tidy == {"metadata": {}, "cells": [cell]}


def test_the_code_that_a_notebook_loads_is_recorded(project, tmp_path):
    project.write("notebooks/fake/beside.py", "def value():\n    return 1\n")
    source = project.notebook("n", "from lab.measures import alpha_of\nimport beside\nbeside.value()")
    copy = tmp_path / "attempt/n.ipynb"
    code = notebook.perform(str(source), str(copy), {"epochs": 2}, 60, str(project.root))
    assert sorted(code) == [
        "lab/__init__.py",
        "lab/measures/__init__.py",
        "lab/measures/alpha.py",
        "lab/measures/shared.py",
        "notebooks/fake/beside.py",
    ]
    assert [c["id"] for c in notebook.read(copy)["cells"]][-1] == "c1"
    assert sorted(p.name for p in copy.parent.iterdir()) == ["n.ipynb"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\0", "is not a notebook"),
        (b"{", "is not a notebook"),
        (b"[" * 100_000, "too deep|not a notebook"),
        (GOOD | {"nbformat": 3}, "not a notebook of format 4"),
        ([], "damaged notebook: it must be a table"),
        ({"nbformat": 4}, "damaged notebook: cells is missing"),
        (GOOD | {"cells": {}}, "damaged notebook: cells"),
        (GOOD | {"cells": [1]}, "damaged notebook: cells"),
        (GOOD | {"cells": [{"cell_type": "code", "source": 5}]}, r"damaged notebook: cells .*source"),
        (GOOD | {"cells": [{"cell_type": "code", "source": "a = 1"}]}, "0 cells tagged 'parameters'"),
        (GOOD | {"cells": GOOD["cells"] * 2}, "2 cells tagged"),
        (GOOD | {"cells": [GOOD["cells"][0] | {"source": "a = \0"}]}, "no Python"),
        (GOOD | {"metadata": {"kernelspec": {"name": "ir", "language": "R"}}}, "a notebook in 'R'"),
    ],
)
def test_a_damaged_or_foreign_notebook_is_named(tmp_path, content, words):
    path = tmp_path / "n.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ValueError, match=words) as caught:
        notebook.parameters(path)
    assert str(path) in str(caught.value)


def test_the_kernel_is_the_interpreter_that_runs_vlmlab(project, tmp_path, monkeypatch):
    """Whatever a machine calls python3, and in a notebook that names another kernel."""
    spec = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
    project.write("jupyter/kernels/python3/kernel.json", json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(project.root / "jupyter"))
    path = project.notebook("n", "import sys\nprint(sys.executable)", parameters=CELL)
    path.write_text(path.read_text().replace('"python3"', '"another"'))
    notebook.perform(str(path), str(tmp_path / "out/copy.ipynb"), {}, 60, str(project.root))
    (output,) = notebook.read(tmp_path / "out/copy.ipynb")["cells"][2]["outputs"]
    assert "".join(output["text"]).strip() == sys.executable


WORKER = """
import sys
from vlmlab.studies.driver import kernel, notebook
kernel.LOADED = kernel.LOADED[-2:]
notebook.perform(*sys.argv[1:3], {}, 60, sys.argv[3], several=True)
"""


@pytest.mark.skipif(not kernel.CAN_FORK, reason="kernels are forked where a system can")
def test_kernels_of_several_notebooks_share_imports_and_nothing_else(project, tmp_path, monkeypatch):
    """The libraries (here a small one) come with the kernel, vlmlab does not; modules and output are its own."""
    monkeypatch.setattr(kernel, "LOADED", ["wave", *kernel.LOADED[-2:]])
    ask = (
        "import os, pathlib, sys\nfound = [n in sys.modules for n in ('wave', 'vlmlab', 'beside')]\n"
        "import vlmlab, beside\nprint(os.getpid(), found, pathlib.Path().resolve(), name)"
    )
    project.write("notebooks/fake/beside.py", "")
    source, said, code = project.notebook("n", ask, parameters=CELL), [], []
    for i in range(2):
        copy = tmp_path / f"out{i}/copy.ipynb"
        code.append(
            notebook.perform(str(source), str(copy), {"name": f"n{i}"}, 120, str(project.root), several=True)
        )
        (output,) = notebook.read(copy)["cells"][3]["outputs"]
        said.append("".join(output["text"]).split(" ", 1))
    assert said[0][0] != said[1][0]
    assert [text for _, text in said] == [f"[True, False, False] {Path().resolve()} n{i}\n" for i in range(2)]
    assert code[0] == code[1] and "notebooks/fake/beside.py" in code[0]


@pytest.mark.skipif(not kernel.CAN_FORK, reason="kernels are forked where a system can")
def test_a_forked_kernel_ends_with_its_worker(project, tmp_path):
    mark = tmp_path / "mark.txt"
    cell = f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}} ')\n"
    source = project.notebook("n", cell + "time.sleep(60)  # for vlmlab")
    arguments = [str(source), str(tmp_path / "out/copy.ipynb"), str(project.root)]
    worker = subprocess.Popen([sys.executable, "-c", WORKER, *arguments])
    try:
        wait_for(lambda: mark.exists() and mark.read_text().endswith(" "))
    finally:
        worker.kill()
        worker.wait()
    wait_for(lambda: not any(map(running, mark.read_text().split())))
