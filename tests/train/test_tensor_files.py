"""Files of tensors and of records: what a checksum covers, what is refused, what is written."""

import hashlib
import json

import pytest
import torch
from small_learners import Growing, Net, Queue, TwoStages

from vlmlab.train import records
from vlmlab.train.key import key_of
from vlmlab.train.opening import by_role, described, standing
from vlmlab.train.records import damaged, read_lines, write_lines
from vlmlab.train.tensor_files import checksum, load_own, read_record, read_tensors, write_tensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
RECORD = {"key": "k", "step": 3}
CHANGES = {
    "a value": (TENSORS | {"b": torch.tensor([1, 3])}, RECORD),
    "a shape": (TENSORS | {"a": TENSORS["a"].view(3, 2)}, RECORD),
    "a type": (TENSORS | {"b": TENSORS["b"].view(torch.float64)}, RECORD),
    "a name": ({"a": TENSORS["a"], "c": TENSORS["b"]}, RECORD),
    "one less": ({"a": TENSORS["a"]}, RECORD),
    "the record": (TENSORS, RECORD | {"step": 4}),
}
SAME = {
    "order": (dict(reversed(TENSORS.items())), dict(reversed(RECORD.items()))),
    "a checksum in it": (TENSORS, RECORD | {"check": "x"}),
    "how it lies in memory": (TENSORS | {"a": TENSORS["a"].T.contiguous().T}, RECORD),
}


@pytest.mark.parametrize("change", [*CHANGES, *SAME])
def test_what_a_checksum_covers(change):
    same = checksum(*{**CHANGES, **SAME}[change]) == checksum(TENSORS, RECORD)
    assert same == (change in SAME)


def test_what_is_written_is_read(tmp_path):
    for name, (tensors, record) in {"a": (TENSORS, RECORD), "b": SAME["order"]}.items():
        write_tensors(tmp_path / name, tensors, record)
        found, told = read_tensors(tmp_path / name, "cpu")
        assert found.keys() == tensors.keys() and all(torch.equal(found[k], v) for k, v in TENSORS.items())
        assert told == RECORD | {"check": checksum(TENSORS, RECORD)} == read_record(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("q.bias"), "q.bias"),
        (lambda t: t.update(more=torch.ones(1)), "more"),
        (lambda t: t.update({"at": torch.ones(2)}), "at"),
        (lambda t: t.clear(), "at, k.bias, k.weight, q.bias; another"),  # four of five
        (lambda t: None, None),
    ],
)
def test_tensors_that_do_not_fit_a_learner_are_named(tmp_path, change, named):
    learner = Queue({}, None)
    tensors = {k: v.detach() + 1 for k, v in learner.own().items()}
    change(tensors)
    if named is None:
        load_own(learner, tensors, tmp_path / "x")
        assert all(torch.equal(v, tensors[k]) for k, v in learner.own().items())
    else:
        with pytest.raises(ValueError, match=f"does not fit Queue: {named}"):
            load_own(learner, tensors, tmp_path / "x")


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_keys_and_checksums_are_those_of_the_content_in_any_order():
    """A key is that of the format and the job; where the same job has another key, runs are trained again."""
    assert key_of({"b": 1, "a": [2.5]}) == key_of({"a": [2.5], "b": 1}) == sha('[2, {"a": [2.5], "b": 1}]')
    timing = dict.fromkeys(("started", "finished", "seconds", "git", "device", "check"), 1)
    assert records.checksum({"b": 1, "a": 2}) == records.checksum({"a": 2, **timing, "b": 1})
    assert records.checksum({"b": 1, "a": 2}) == sha('{"a": 2, "b": 1}') != records.checksum({"a": 2})


def test_lines_have_a_checksum_that_nobody_sees(tmp_path):
    rows = [{"value": 1.5, "metric": "é"}, {"value": 2, "right": "x"}]
    write_lines(tmp_path / "a", rows)
    assert read_lines(tmp_path / "a") == rows and read_lines(tmp_path / "none") == []
    lines = [json.loads(line) for line in (tmp_path / "a").read_text(encoding="utf-8").splitlines()]
    assert [line.pop("check") for line in lines] == [records.checksum(row) for row in rows] and lines == rows
    (tmp_path / "a").write_bytes(b"\n".join((tmp_path / "a").read_bytes().split(b"\n")[:1]) + b'\n{"val')
    assert read_lines(tmp_path / "a") == rows[:1]


def test_what_is_damaged_is_said_in_one_line(tmp_path):
    said = str(damaged(tmp_path / "run.json", "two\n  lines " + "x" * 400))
    assert said == (
        f"{tmp_path}/run.json is damaged (two lines {'x' * 290}); move the folder {tmp_path} away and run again"
    )


def test_models_by_role():
    model = Net()
    assert by_role(Growing, None) == by_role(Growing, {}) == {}
    assert by_role(TwoStages, model) == by_role(TwoStages, {"vlm": model}) == {"vlm": model}
    assert standing(model) is model


@pytest.mark.parametrize("package", ["", "mylab"])
def test_how_a_record_names_a_model(tmp_path, package):
    model = Net()
    model.package, model.source = package, {"name": "x"}
    wanted = {"name": "net", "source": {"name": "x"}, "precision": "fp32", "weights": model.fingerprint()}
    wanted |= {"package": package} if package else {}
    assert described({"vlm": model}, tmp_path) == {"vlm": wanted}
