"""Nothing half written is ever seen, damage is named, one process at a time works in a folder."""

import os
import re

import pytest

from vlmlab import files


def test_a_write_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "new/a.json"
    files.write_json(path, {"b": 1, "a": "é"})
    before = path.read_bytes()

    def fill(temporary):
        temporary.write_text("half")
        raise ValueError

    with pytest.raises(ValueError):
        files.write(path, fill)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["a.json"]
    assert files.read_json(path) == {"a": "é", "b": 1}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"cannot write {re.escape(str(tmp_path))}/file/a\.json .*make room"):
        files.write_json(tmp_path / "file/a.json", {})


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}}'])
def test_damage_is_named(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is damaged: it is not JSON"):
        files.read_json(path)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "b.json")


def test_a_folder_is_held_by_one(tmp_path):
    with files.hold(tmp_path):
        with pytest.raises(BlockingIOError, match=rf"in use by process {os.getpid()} on \S+, since"):
            with files.hold(tmp_path):
                pass
    with files.hold(tmp_path):
        pass
