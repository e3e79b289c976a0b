"""Results that nobody can use are found, and those that are right are not."""

import json

import pytest

from vlmlab.train.run_folder import RunFolder, damage, found, is_run, set_aside

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


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (b'{"job": {}, "x": 1}', True),
        (b'{"key": "k", "x": 1}', True),
        (b'{"of": "another program"}', False),
        (b'{"of": "another program"}\n', False),
        (b'{"of": "another pro', True),  # cut: nobody knows
        (b"", True),
        (b'\xff\xfe{"of": 1}', False),
        (b'\xff\xfe{"key"', True),
        (None, True),
    ],
)
def test_whose_run_json_it_is(tmp_path, content, ours):
    path = tmp_path / "run.json"
    path.mkdir() if content is None else path.write_bytes(content)
    assert is_run(path) is ours and found(tmp_path) == ([tmp_path] if ours else [])


def test_what_cannot_be_read_is_said_when_it_is_opened(tmp_path, monkeypatch):
    def locked(self, *args, **how):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr(type(tmp_path), "read_text", locked)
    assert is_run(tmp_path / "run.json")


def test_of_several_links_to_one_run_the_first_by_name_is_found(tmp_path):
    """Whatever order the disk has them in; others come in the order of their paths."""
    names = ["m", "z", "c", "q", "a", "t", "b", "y", "d", "x", "k", "n"]
    (tmp_path / "far").mkdir()
    (tmp_path / "far/run.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    for name in names:
        (tmp_path / "runs" / name).symlink_to(tmp_path / "far")
    for name in ("s", "e", "l"):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text("{")
    (tmp_path / "far/run.json").write_text('{"key": 1}')
    assert [p.name for p in found(tmp_path / "runs")] == ["a", "e", "l", "s"]


@pytest.mark.parametrize("size", [b"", b"x"])
def test_tensors_of_no_run_are_an_empty_file(run, size):
    """A header that names no tensor."""
    head = b'{"__metadata__":{"a":"b"}}'
    (run / "trainables.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + size)
    total = 8 + len(head)
    assert damage(run) == (f"trainables.safetensors: has {total + 1} of {total} bytes" if size else "")


def test_an_unreadable_file_has_no_number_in_its_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"^cannot write .*file \(.*[a-z]\); make room or choose another"
    ) as said:
        with RunFolder(tmp_path / "file").held():
            pass
    assert "Errno" not in str(said.value)
