"""Notebooks are committed in one form, and the tool that brings them there does what it says."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("notebooks_tool", ROOT / "tools/notebooks.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

USED = {
    "nbformat": 4,
    "nbformat_minor": 2,
    "metadata": {"kernelspec": {"name": "mine", "display_name": "Mine"}, "papermill": {"duration": 3.2}},
    "cells": [
        {"cell_type": "markdown", "metadata": {"collapsed": True}, "source": "# π\nfor all\n\n"},
        {
            "cell_type": "code",
            "id": "a7f",
            "execution_count": 1,
            "outputs": [],
            "metadata": {"tags": ["parameters"]},
            "source": ["n = 1\n", "m = 2"],
        },
        {
            "cell_type": "code",
            "id": "b21",
            "execution_count": 2,
            "outputs": [],
            "metadata": {"tags": ["injected-parameters"]},
            "source": ["n = 7"],
        },
        {
            "cell_type": "code",
            "id": "c00",
            "execution_count": 3,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["7\n"]}],
            "metadata": {"tags": [], "papermill": {"status": "completed"}},
            "source": ["print(n)"],
        },
    ],
}


@pytest.mark.parametrize("path", tool.find([tool.NOTEBOOKS]), ids=lambda p: str(p.relative_to(ROOT)))
def test_notebook_is_normalised(path):
    raw = path.read_bytes()
    assert raw == tool.normalised(raw.decode("utf-8")).encode("utf-8"), f"{path.name}: run `make notebooks`"


def test_a_used_notebook_is_cleaned():
    text = tool.normalised(json.dumps(USED))
    clean = json.loads(text)
    assert clean["metadata"] == {"kernelspec": tool.KERNEL}
    assert [c["id"] for c in clean["cells"]] == ["cell-00", "cell-01", "cell-02"]
    assert [c["metadata"] for c in clean["cells"]] == [{}, {"tags": ["parameters"]}, {}]
    assert [c["source"] for c in clean["cells"]] == [["# π\n", "for all"], ["n = 1\n", "m = 2"], ["print(n)"]]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in clean["cells"][1:])
    assert "π" in text and tool.normalised(text) == text


def test_check_names_files_and_changes_nothing(tmp_path, capsys):
    bad, good = tmp_path / "bad.ipynb", tmp_path / "good.ipynb"
    copy = tmp_path / ".ipynb_checkpoints/bad.ipynb"
    copy.parent.mkdir()
    for path in (bad, copy):
        path.write_text(json.dumps(USED))
    good.write_text(tool.normalised(json.dumps(USED)), encoding="utf-8")
    assert tool.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().out.split() == [str(bad)]
    assert bad.read_text() == json.dumps(USED)
    assert tool.main([str(tmp_path)]) == 0
    assert tool.main(["--check", str(tmp_path)]) == 0
    assert copy.read_text() == json.dumps(USED)


@pytest.mark.parametrize("text", ["", "[]", '{"nbformat": 3, "worksheets": []}'])
def test_what_is_no_notebook_is_named(tmp_path, capsys, text):
    path = tmp_path / "old.ipynb"
    path.write_text(text)
    assert tool.main([str(tmp_path)]) == 1
    assert "old.ipynb" in capsys.readouterr().err
    assert path.read_text() == text
