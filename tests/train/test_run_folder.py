"""Results that nobody can use are found, and those that are right are not."""

import json

import pytest

from vlmlab.train.run_folder import damage, set_aside

TENSORS = json.dumps(
    {"__metadata__": {"a": "b"}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
)
GOOD = {
    "run.json": '{"key": "k", "status": "finished", "job": {}, "labels": {}}',
    "results.jsonl": '{"value": 1.5}\n{"value": 2}\n',
    "trainables.safetensors": len(TENSORS).to_bytes(8, "little") + TENSORS.encode() + b"01234567",
}


@pytest.fixture
def run(tmp_path):
    for name, content in GOOD.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def test_a_good_run(run):
    assert damage(run) == ""
    (run / "trainables.safetensors").unlink()  # zero-shot
    assert damage(run) == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.json", b'{"key": "k", "sta', "run.json: Unterminated string"),
        ("run.json", b"[]", "run.json: it must be a table with the fields key, status, job, labels"),
        ("run.json", b'{"key": "k"}', "run.json: status is missing"),
        ("run.json", b"\xff\xfe", "run.json: 'utf-8' codec"),
        ("run.json", None, "run.json: No such file"),
        ("results.jsonl", b"", "results.jsonl: no row is measured"),
        (
            "results.jsonl",
            b'{"value": 1}\n{"value": NaN}\n',
            "results.jsonl: line 2, value must be a finite number; it is nan",
        ),
        ("results.jsonl", b'{"value": -Infinity}\n', "line 1, value must be a finite number; it is -inf"),
        ("results.jsonl", b'{"value": "1"}\n', "results.jsonl: line 1, value must be a finite number"),
        ("results.jsonl", b'{"value": 1}\n{"val', "results.jsonl: line 2, Unterminated"),
        ("results.jsonl", None, "results.jsonl: No such file"),
        ("trainables.safetensors", GOOD["trainables.safetensors"][:-1], "has 98 of 99 bytes"),
        ("trainables.safetensors", b"", "trainables.safetensors: "),
    ],
)
def test_damaged_runs(run, name, content, words):
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    words = words.replace("98 of 99", f"{len(GOOD[name]) - 1} of {len(GOOD[name])}")
    assert words in damage(run)
    set_aside(run)
    assert not (run / name).exists()
    if content is not None:
        assert (run / f"{name}.damaged").read_bytes() == content
