"""Execute one notebook with checked parameters, and say in one line what went wrong."""

import ast
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ...files import read_json, write_json
from ...schema import Record, Wrong, convert, short
from ..jobs.worker import Failed, Killed

LIMIT = 1800  # seconds for a whole notebook
START = 180  # seconds for a kernel to start, on a busy machine
# what a kernel runs first: IPython looks in the working folder before it looks where pip installs, and there a
# vlmlab/ may lie that is another one
FIRST = "(lambda path: '' in path and path.append(path.pop(path.index(''))))(__import__('sys').path)"
RECORD = "vlmlab-code"  # the cell and the file of the record of code
TYPES = {t.__name__: t for t in (str, int, float, bool, list, tuple, dict)}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One assignment of the cell tagged `parameters`; no types means that anything fits."""

    name: str
    types: tuple[type, ...]
    default: str  # as written


class Cell(Record):
    """What is read of a cell."""

    cell_type: str
    source: str | list[str]
    metadata: dict[str, object] = {}


class Sheet(Record):
    """What is read of a notebook."""

    nbformat: Literal[4]
    cells: list[Cell]
    metadata: dict[str, object] = {}


def read(path: Path) -> dict:
    """The notebook as JSON; ValueError when it is none of format 4, damaged, or of another language."""
    try:
        notebook = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a notebook: {error.__cause__ or error}") from error
    if isinstance(notebook, dict) and notebook.get("nbformat") != 4:
        raise ValueError(f"{path} is not a notebook of format 4; open it in Jupyter and save it again")
    try:
        sheet = convert(notebook, Sheet)
    except Wrong as error:
        raise ValueError(f"{path} is a damaged notebook: {error.field or 'it'} {error}") from error
    kernel = sheet.metadata.get("kernelspec")
    language = kernel.get("language") if isinstance(kernel, dict) else None
    if language not in (None, "", "python"):
        raise ValueError(f"{path} is a notebook in {short(language)}; the notebooks of a study are in Python")
    for cell in notebook["cells"]:
        cell.setdefault("metadata", {})
    return notebook


def parameters(path: Path) -> dict[str, Parameter]:
    """What the parameters cell of a notebook declares: names, types from annotations or defaults.

    ValueError when there is no such cell, more than one, or one that is no Python.
    """
    cells = [c for c in read(path)["cells"] if "parameters" in tags(c)]
    if len(cells) != 1:
        raise ValueError(f"{path} has {len(cells)} cells tagged 'parameters'; it needs exactly one")
    try:
        tree = ast.parse("".join(cells[0]["source"]))
    except (SyntaxError, ValueError, RecursionError) as error:  # ValueError: a NUL character
        why = f"{error.msg}, line {error.lineno}" if isinstance(error, SyntaxError) else error
        message = f"{path}: the parameters cell is no Python: {why}"
        raise ValueError(message) from error
    found = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value and isinstance(targets[0], ast.Name):
            types = annotated(node.annotation) if isinstance(node, ast.AnnAssign) else ()
            types = types or like(node.value)
            found[targets[0].id] = Parameter(targets[0].id, types, ast.unparse(node.value))
    return found


def tags(cell: dict) -> list:
    found = cell["metadata"].get("tags")
    return found if isinstance(found, list) else []


def annotated(node: ast.expr) -> tuple[type, ...]:
    """The types of an annotation such as `int`, `list[str]` or `str | None`; none for anything else."""
    if isinstance(node, ast.BinOp):
        sides = annotated(node.left), annotated(node.right)
        return sides[0] + sides[1] if all(sides) else ()
    if isinstance(node, ast.Constant) and node.value is None:
        return (type(None),)
    name = node.value if isinstance(node, ast.Subscript) else node
    return (TYPES[name.id],) if isinstance(name, ast.Name) and name.id in TYPES else ()


def like(node: ast.expr) -> tuple[type, ...]:
    """The type of a literal default; none for None and for what is computed."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ()
    return () if value is None else (type(value),)


def check(path: Path, values: dict) -> None:
    """ValueError for the first value that the notebook does not declare or whose type is another."""
    declared = parameters(path)
    for name, value in values.items():
        if name not in declared:
            there = ", ".join(declared) or "nothing"
            raise ValueError(f"{path} has no parameter {name!r}; its parameters cell declares {there}")
        types = declared[name].types
        if types and not any(fits(value, t) for t in types):
            wanted = " or ".join(t.__name__ for t in types)
            raise ValueError(
                f"{path}: {name} must be {wanted}, like its default {declared[name].default}; "
                f"got {value!r} ({type(value).__name__})"
            )


def fits(value: object, kind: type) -> bool:
    """A whole number is a legal float, a list a legal tuple, a bool only a bool."""
    if isinstance(value, bool):
        return kind is bool
    also = {float: int, tuple: list}.get(kind, kind)
    return isinstance(value, (kind, also))


def perform(
    source: str, copy: str, values: dict, limit: float, project: str, several: bool = False
) -> dict[str, str]:
    """Execute a notebook into `copy`, in a process of its own; the folder of `copy` starts empty.

    values: papermill parameters. limit: seconds for the whole notebook. project: the folder that holds
    notebooks/. several: more notebooks follow, so kernels may share what is slow to import. Returns the record of the code that the notebook loaded (code.py). `Failed` says in one line what
    went wrong and in which cell; the partly executed copy stays. `Killed` when the kernel was.
    """
    target = Path(copy)
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir(parents=True)
    arguments = (Path(source), target, values, limit, project, several)
    problem = attempt(*arguments)
    if isinstance(problem, Failed) and not started(target):  # ports of kernels race, rarely
        problem = attempt(*arguments)
    if target.exists():
        executed = read(target)
        executed["cells"] = [c for c in executed["cells"] if c.get("id") != RECORD]
        write_json(target, executed)
    if problem:
        raise problem
    code = read_json(target.with_name(RECORD))
    target.with_name(RECORD).unlink()
    return code


def recording(source: Path, target: Path, project: str) -> dict:
    """The notebook with one more cell, which writes down what code its kernel has loaded by then."""
    notebook = read(source)
    text = (
        "import sys as _sys\n"
        "_files = [f for m in list(_sys.modules.values()) if (f := getattr(m, '__file__', None))]\n"
        "from vlmlab.studies.code import save as _save\n"
        f"_save({str(target.with_name(RECORD))!r}, {project!r}, _files)"
    )
    cell = {"cell_type": "code", "id": RECORD, "metadata": {}, "source": text, "outputs": []}
    return notebook | {"cells": [*notebook["cells"], cell | {"execution_count": None}]}


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let kernels find modules that lie beside a notebook, as they do when Jupyter opens it."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder.absolute()), before]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ.update({"PYTHONPATH": before} if before is not None else {})


def uses_vlmlab(notebook: dict) -> bool:
    """Whether its cells name vlmlab: the others need none of the large libraries."""
    return any("vlmlab" in "".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")


def attempt(
    source: Path, target: Path, values: dict, limit: float, project: str, several: bool
) -> Failed | None:
    """One execution by papermill; what went wrong."""
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from .kernel import CAN_FORK, ForkedKernel, OwnKernel

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # failures are reported here, once
    end = time.monotonic() + limit
    kernel = ForkedKernel if CAN_FORK and several and uses_vlmlab(read(source)) else OwnKernel
    try:
        with importable(source.parent):
            papermill.execute_notebook(
                nbformat.from_dict(recording(source, target, project)),
                str(target),
                parameters=values,
                kernel_name="python3",
                language="python",
                kernel_manager_class=kernel,
                progress_bar=False,
                start_timeout=START,
                shutdown_kernel="immediate",
                extra_arguments=["--IPKernelApp.log_level=ERROR", f"--IPKernelApp.exec_lines={FIRST}"],
                timeout_func=lambda cell: max(1, end - time.monotonic()),
            )
    except PapermillExecutionError as error:
        first = next(iter(str(error.evalue).splitlines()), "")
        return Failed(f"{error.ename} in {place(target)}: {first}")
    except DeadKernelError:
        return Killed(f"the kernel died in {place(target)}, perhaps out of memory")
    except CellTimeoutError:
        return Failed(f"over the limit of {limit:g} s in {place(target)}")
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        return Failed(f"{type(error).__name__} in {place(target)}: {first}")
    return None


def started(path: Path) -> list[dict]:
    """The cells that began to run, in papermill's own record of a notebook."""
    if not path.exists():
        return []
    cells = own_cells(read(path))
    return [c for c in cells if c["metadata"].get("papermill", {}).get("start_time")]


def own_cells(notebook: dict) -> list[dict]:
    """Without papermill's marks at a failure."""
    return [c for c in notebook["cells"] if "papermill-error-cell-tag" not in tags(c)]


def place(path: Path) -> str:
    """Where a partly executed notebook stopped: its cell, counted from 1 in the notebook as committed."""
    ran = started(path)
    if not ran:
        return "the start of the kernel"
    own = [c for c in ran if "injected-parameters" not in tags(c)]
    count = ran[-1].get("execution_count")
    return f"cell {len(own)}" + (f" (In [{count}])" if count else "")


def tidy(notebook: dict, attempt: Path, folder: Path) -> dict:
    """An executed notebook without times and places, so that the same results make the same file.

    attempt: where it wrote; folder: where that lies now.
    """
    notebook = json.loads(json.dumps(notebook).replace(attempt.as_posix(), folder.as_posix()))
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
        if "injected-parameters" in tags(cell):
            cell["id"] = "injected-parameters"
    return notebook
