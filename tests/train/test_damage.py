"""Files of a run that were damaged in any way: one error that names the file, never other numbers."""

import json
import os
import shutil
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_learners import Growing, Numbers

import vlmlab
from vlmlab.train import loop
from vlmlab.train.run import Run, results
from vlmlab.train.run_folder import RunFolder
from vlmlab.train.tensor_files import write_tensors

ROW = {"task": "numbers", "protocol": "pairs", "rule": "unified", "test": "x", "n": 3}
ROWS = [ROW | {"split": "test", "metric": name, "value": 0.5} for name in ("accuracy", "other")]


def fitted(out) -> Run:
    return vlmlab.fit(Growing, {}, Numbers(), out=out, device="cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = fitted(tmp_path_factory.mktemp("whole"))
    run.save_results(ROWS)
    return run


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that was stopped after its second saved state."""
    out, save, calls = tmp_path_factory.mktemp("begun"), loop.Loop.save, []

    def stop(self):
        save(self)
        calls.append(self.saver.wait())
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            fitted(out)
    return next(p.parent for p in out.glob("**/run.json"))


def copied(path, tmp_path):
    """The same run below another root, where `fit` finds it."""
    return shutil.copytree(path.parents[3], tmp_path / "runs") / path.relative_to(path.parents[3])


def put(data):
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data.encode())


def flip(where):
    def change(path):
        data = bytearray(path.read_bytes())
        data[where] ^= 0x10
        path.write_bytes(data)

    return change


def field(name, value):
    """Another value in a JSON file, as an editor or a disk would leave it."""

    def change(path):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        first = json.loads(lines[0])
        inner = first
        *way, last = name.split(".")
        for key in way:
            inner = inner[key]
        inner.pop(last) if value is None else inner.update({last: value})
        path.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")

    return change


def half(path):
    put(path.read_bytes()[: path.stat().st_size // 2])(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def again(change):
    """The tensors and the record written anew after a change, so that the file itself is sound."""

    def rewrite(path):
        with safe_open(path, "pt") as f:
            record, tensors = json.loads(f.metadata()["vlmlab"]), {k: f.get_tensor(k) for k in f.keys()}
        change(record, tensors)
        save_file(tensors, path, {"vlmlab": json.dumps(record)})

    return rewrite


ANY = {
    "empty": put(""),
    "half": half,
    "binary": put(b"\xff\xfe\0\n"),
    "UTF-16": lambda path: put(path.read_bytes().decode("latin-1").encode("utf-16"))(path),
    "deep": put("[" * 100_000 + "\n"),
    "a number": put("5\n"),
    "a list": put("[]\n"),
    "a huge number": put('{"key": "k", "step": 1' + "0" * 5000 + "}\n"),
    "a folder": a_folder,
    "a pipe": a_pipe,
}
INFO = {
    "no job": field("job", None),
    "job 5": field("job", 5),
    "labels a list": field("labels", []),
    "status 5": field("status", 5),
    "a model that is a path": field("models", {"vlm": "../x"}),
    "stages below zero": field("stages", [["a", -1]]),
    "another seed": field("job.seed", 2),
    "another method": field("job.method", "../evil"),
    "another setting": field("config", {"x": 1}),
    "a field more": field("classnames", 5),
}
TENSORS = {
    "a bit of a weight": flip(-20),
    "a bit of the header": flip(60),
    "a byte more": lambda path: put(path.read_bytes() + b"x")(path),
    "missing": lambda path: path.unlink(),
    "a NaN": again(lambda r, t: t[min(t)].view(-1)[:1].fill_(float("nan"))),
    "a tensor less": again(lambda r, t: t.pop(min(t))),
    "another shape": again(lambda r, t: t.update({min(t): torch.ones(3)})),
    "no record": lambda path: save_file({"a": torch.ones(1)}, path),
    "another program's": lambda path: save_file({"a": torch.ones(1)}, path, {"vlmlab": "{}"}),
}
STATE = {
    "no step": again(lambda r, t: r.pop("step")),
    "step x": again(lambda r, t: r.update(step="x")),
    "step a billion": again(lambda r, t: r.update(step=10**9)),
    "stage 99": again(lambda r, t: r.update(stage=99)),
    "no optimiser": again(lambda r, t: [t.pop(k) for k in list(t) if k.startswith("optimiser")]),
    "an odd entry": again(lambda r, t: t.update({"optimiser|x|y": torch.ones(3)})),
}


def refused(call, name):
    with (
        warnings.catch_warnings(),
        pytest.raises((ValueError, OSError), match=name.replace(".", r"\.")) as caught,
    ):
        warnings.simplefilter("error")
        call()
    assert "delete" not in str(caught.value) and "remove" not in str(caught.value)


@pytest.mark.parametrize("how", [*ANY, *INFO])
def test_run_json(whole, tmp_path, how):
    run = Run(copied(whole.path, tmp_path))
    {**ANY, **INFO}[how](run.path / "run.json")
    refused(lambda: fitted(tmp_path / "runs"), "run.json")
    refused(lambda: results(tmp_path / "runs"), "run.json")


@pytest.mark.parametrize(
    "how", {**ANY, "NaN": field("value", float("nan")), "no value": field("value", None)}.items()
)
def test_results(whole, tmp_path, how):
    run = Run(copied(whole.path, tmp_path))
    how[1](run.path / "results.jsonl")
    if how[0] in ("empty", "half"):  # a line cut by a kill is none
        assert results(tmp_path / "runs").empty
    else:
        refused(lambda: results(tmp_path / "runs"), "results.jsonl")


def test_another_digit_in_a_measured_number(whole, tmp_path):
    run = Run(copied(whole.path, tmp_path))
    path = run.path / "results.jsonl"
    path.write_text(path.read_text().replace("0.5", "0.6", 1))
    refused(lambda: run.results, "results.jsonl")


@pytest.mark.parametrize(
    "how", {**ANY, "another loss": field("loss", 0.5), "no loss": field("loss", None)}.items()
)
def test_metrics(whole, tmp_path, how):
    run = Run(copied(whole.path, tmp_path))
    how[1](run.path / "metrics.jsonl")
    refused(lambda: run.metrics, "metrics.jsonl")


@pytest.mark.parametrize("how", {**{k: v for k, v in ANY.items() if k != "a pipe"}, **TENSORS}.items())
def test_trainables(whole, tmp_path, how):
    run = Run(copied(whole.path, tmp_path))
    how[1](run.path / "trainables.safetensors")
    refused(lambda: fitted(tmp_path / "runs"), "trainables.safetensors")


def test_trainables_of_another_run(whole, tmp_path):
    run, other = (
        Run(copied(whole.path, tmp_path)),
        vlmlab.fit(Growing, {}, Numbers(), out=tmp_path, seed=2, device="cpu"),
    )
    shutil.copy(other.path / "trainables.safetensors", run.path)
    refused(lambda: fitted(tmp_path / "runs"), "trainables.safetensors")


@pytest.mark.parametrize(
    "how",
    {
        **{k: v for k, v in ANY.items() if k != "a pipe"},
        **{k: v for k, v in TENSORS.items() if k != "missing"},
        **STATE,
    }.items(),
)
def test_state_is_refused_not_used(begun, tmp_path, how):
    path = copied(begun, tmp_path)
    how[1](path / "state.safetensors")
    refused(lambda: fitted(tmp_path / "runs"), "state.safetensors")


@pytest.mark.parametrize(
    "how", {**{k: v for k, v in ANY.items() if k != "a pipe"}, "another loss": field("loss", 0.5)}.items()
)
def test_a_log_that_is_not_what_the_state_knows(begun, tmp_path, how):
    path = copied(begun, tmp_path)
    how[1](path / "metrics.jsonl")
    refused(lambda: fitted(tmp_path / "runs"), "metrics.jsonl")


def test_what_is_sound_goes_on_to_the_same_bytes(begun, whole, tmp_path):
    run = Run(copied(begun, tmp_path))
    assert run.status == "running"
    fitted(tmp_path / "runs")
    for name in ("trainables.safetensors", "metrics.jsonl"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert Run(run.path).metrics["loss"].equals(whole.metrics["loss"])


def test_what_earlier_versions_wrote_is_read(whole, tmp_path):
    """Without checksums: types alone are looked at."""
    run = Run(copied(whole.path, tmp_path))
    for name in ("check", "log"):
        field(name, None)(run.path / "run.json")
    again(lambda r, t: r.pop("check"))(run.path / "trainables.safetensors")
    assert fitted(tmp_path / "runs").status == "finished" and len(run.results) == 2


def test_one_damaged_run_hides_no_other_and_is_said_once(whole, tmp_path):
    root = tmp_path / "runs"
    path = copied(whole.path, tmp_path)
    shutil.copytree(path, other := path.with_name("other"))
    half(other / "run.json")
    with pytest.warns(UserWarning, match=f"left out: {other}/run.json is damaged") as said:
        assert len(results(root)) == 2
    assert len(said) == 1


def test_a_value_that_is_not_finite_is_not_saved(whole, tmp_path):
    run = Run(copied(whole.path, tmp_path))
    with pytest.raises(
        ValueError, match="accuracy of test: value must be a finite number; it is nan; not saved"
    ):
        run.save_results([ROWS[0] | {"value": float("nan")}])
    assert len(run.results) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_only_read(whole, tmp_path):
    path = copied(whole.path, tmp_path)
    path.chmod(0o500)
    try:
        assert fitted(tmp_path / "runs").path == path
        with pytest.raises(OSError, match=f"cannot write {path}"):
            Run(path).save_results(ROWS)
    finally:
        path.chmod(0o700)


def test_the_folder_says_where_it_is(whole):
    assert RunFolder(whole.path).position() == {}


def test_run_json_of_another_run(whole, tmp_path):
    path = copied(whole.path, tmp_path)
    other = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path / "other", seed=2, device="cpu")
    shutil.copy(other.path / "run.json", path)
    refused(lambda: fitted(tmp_path / "runs"), "run.json")


@pytest.mark.parametrize("wrong", [{"stage": 99}, {"step": 10**9}, {"done": 10**6}])
def test_a_state_that_is_sound_but_of_no_such_step(begun, tmp_path, wrong):
    path = copied(begun, tmp_path)
    folder = RunFolder(path)
    state = folder.read_state("cpu")
    write_tensors(
        folder.state,
        {f"own|{k}": v for k, v in state.own.items()}
        | {f"optimiser|{k}": v for k, v in state.optimiser.items()},
        state.position | wrong,
    )
    refused(lambda: fitted(tmp_path / "runs"), "metrics.jsonl" if "done" in wrong else "state.safetensors")
