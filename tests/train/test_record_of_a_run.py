"""What run.json says, what others may do meanwhile, and what a run on disk shows of itself."""

import dataclasses
import importlib.metadata
import json
import platform

import pandas as pd
import pytest
from small_learners import Distil, Growing, Net, Numbers, Queue, TwoStages, models_of

import vlmlab
from vlmlab.train import fit as fitting
from vlmlab.train.evaluate import at_the_end
from vlmlab.train.fit import named, place, resting, versions
from vlmlab.train.opening import attached, check_weights
from vlmlab.train.run import COLUMNS, Run, differing, results, runs
from vlmlab.train.run_folder import RunFolder

ROW = {"task": "numbers", "protocol": "pairs", "rule": "unified", "test": "x", "n": 3, "split": "test"}


class Long(Queue):
    """Steps enough for a mean over the last ones, in passes of ten."""

    differs = "a queue of twelve"

    def stages(self, task, options, seed):
        (stage,) = super().stages(task, options, seed)
        return [dataclasses.replace(stage, steps=25, epoch=10)]


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    task = Numbers(shots=4, provenance={"from": "nowhere"}, arguments={"id": "numbers"})
    return vlmlab.fit(Long, {}, task, out=tmp_path_factory.mktemp("long"), variant="mine", seed=9)


def test_the_record_of_a_run_is_whole(long):
    info = long.info
    assert set(info) == {
        *("job", "labels", "config", "models", "key", "task", "classes", "differs", "stages", "prepared"),
        *(
            "device",
            "versions",
            "git",
            "provenance",
            "started",
            "status",
            "finished",
            "steps",
            "seconds",
            "log",
        ),
    }
    assert info["labels"] == {
        **{"study": "adhoc", "method": info["job"]["method"], "variant": "mine", "task": "numbers"},
        **{"protocol": "pairs", "shots": 4, "seed": 9},
    }
    assert info["job"].keys() == {
        *("method", "config", "options", "seed", "models", "data", "files", "code"),
    }
    assert (info["provenance"], info["task"], info["classes"]) == (
        {"from": "nowhere"},
        {"id": "numbers"},
        None,
    )
    assert (info["differs"], info["status"], info["steps"]) == ("a queue of twelve", "finished", 25)
    assert info["stages"] == [["moco", 25]] and info["prepared"] == {} == info["models"]
    assert info["device"] == "cpu" and len(info["seconds"]) == 9 and info["key"] == long.path.name


def test_versions_of_what_the_numbers_come_from():
    packages = {"torch": "torch", "open_clip": "open_clip_torch", "torchvision": "torchvision"}
    wanted = {name: importlib.metadata.version(package) for name, package in packages.items()}
    assert versions() == wanted | {"python": platform.python_version(), "vlmlab": vlmlab.__version__}


def test_what_is_taken_over_is_in_the_record_and_classes_are_those_of_the_task(tmp_path):
    task = vlmlab.task("emoji/food", protocol="few_shot", shots=1, backgrounds=1)
    run = vlmlab.fit("zero_shot", vlmlab.load("tiny", device="cpu"), task, out=tmp_path)
    assert run.info["classes"] == [list(task.classes.names), task.classes.template]
    assert run.info["task"] == task.arguments and run.info["labels"]["seed"] == task.seed


@pytest.mark.parametrize(
    ("name", "legal"),
    [("a" * 100, True), ("a" * 101, False), ("a b-+=,.(c)_1", True), ("", False), (5, False), (".a", False)],
)
def test_names(name, legal):
    if legal:
        assert named("study", name) == name
    else:
        with pytest.raises(ValueError, match="study must be a name of at most 100"):
            named("study", name)
    assert named("variant", "", empty=True) == "" and named("variant", "x", empty=True) == "x"


@pytest.mark.parametrize(
    ("method", "folder"),
    [
        ("a", "a"),
        ("my_lab:Own", "my_lab.Own"),
        ("..", "_"),
        ("/", "_"),
        ("x" * 150, "x" * 100),
        ("a/../b", "a.b"),
    ],
)
def test_folders_are_called_after_study_method_and_task(tmp_path, method, folder):
    path = place(tmp_path, "mine", {"method": method}, Numbers())
    assert path.relative_to(tmp_path).parts[:3] == ("mine", folder, "numbers") and len(path.name) == 16


def test_who_trains_holds_the_folder_and_who_finds_it_done_does_not(long, tmp_path, monkeypatch):
    held, real = [], RunFolder.held
    monkeypatch.setattr(RunFolder, "held", lambda self: (held.append(self.path), real(self))[1])
    run = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path)
    assert held == [run.path]
    vlmlab.fit(Growing, {}, Numbers(), out=tmp_path)
    assert held == [run.path]  # also where nothing can be written


def test_what_a_run_trained_rests_while_it_is_built_on(long):
    trained = list(long.model.trainable().values())
    with pytest.raises(KeyError), resting({"a": long, "b": Net()}):
        assert trained and not any(p.requires_grad for p in trained)
        raise KeyError
    assert all(p.requires_grad for p in trained)


def test_what_is_built_on_a_run_trains_and_the_run_does_not(long, tmp_path):
    seen = []

    class On(Queue):
        models_needed = ("vlm",)

        def __init__(self, models, config):
            super().__init__(models, config)
            self.below = models["vlm"]
            self.eval()

        def losses(self, batch, stage=None):
            seen.append((self.training, self.q.training, self.below.training, self.below.q.training))
            return super().losses(batch, stage)

    run = vlmlab.fit(On, long, Numbers(), out=tmp_path)
    assert set(seen) == {(True, True, False, False)} and not run.model.training
    assert not any(name.startswith("below") for name in run.model.own())
    where = run.info["models"]["vlm"].pop("run")
    assert (run.path / where).resolve() == long.path.resolve()
    wanted = {"run": where, "key": long.key, "name": repr(long), "weights": long.digest}
    assert run.info["models"] == {"vlm": wanted} and run.info["job"]["models"]["vlm"] == {
        "run": long.key,
        "weights": long.digest,
    }


@pytest.mark.parametrize("given", [{"device": "cpu"}, {"precision": "fp32"}])
def test_device_and_precision_are_those_of_models_where_there_are_any(tmp_path, given):
    with pytest.raises(ValueError, match="device and precision are those of the models"):
        vlmlab.fit(TwoStages, Net(), Numbers(), out=tmp_path, **given)
    assert vlmlab.fit(Growing, {}, Numbers(), out=tmp_path, **given).status == "finished"


def test_mixed_precision_of_what_starts_from_nothing(tmp_path, monkeypatch):
    seen, check = [], fitting.check_precision
    monkeypatch.setattr(fitting, "check_precision", lambda p, d: (seen.append((p, d.type)), check(p, d))[1])
    vlmlab.fit(Growing, {}, Numbers(), out=tmp_path / "a")
    vlmlab.fit(Growing, {}, Numbers(), out=tmp_path / "b", precision="amp_bf16")
    assert seen == [("fp32", "cpu"), ("amp_bf16", "cpu")]


# opening


REFUSED = {
    "status": ("running", "is running; call vlmlab.fit again to finish it"),
    "models": ({"vlm": {"name": "x", "weights": "y"}}, "run.json is damaged .*stands on nothing"),
    "config": ({"nope": 1}, "run.json: .*no parameter 'nope'.*; another version of the method made this run"),
    "key": ("0123", "trainables.safetensors is damaged .it is of the run .*, not of 0123"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_record_that_does_not_fit_its_learner(tmp_path, field):
    run = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path)
    value, said = REFUSED[field]
    RunFolder(run.path).write_info(run.info | {field: value})
    with pytest.raises(ValueError, match=said):
        attached(Run(run.path), {})


def test_other_weights_are_named_with_their_role(long):
    wanted = {"name": "ViT", "weights": "0" * 64}
    for role, words in (("vlm", r"\(ViT\)"), ("teacher", r"\(ViT as teacher\)")):
        with pytest.raises(ValueError, match=rf"weights 000000000000 {words}, but this one has"):
            check_weights(long, role, wanted, Net())
        check_weights(long, role, {"name": "x", "weights": long.digest}, long)


# what a run on disk shows


def test_columns_of_results(tmp_path, long):
    words = "study method variant task protocol split shots seed rule metric value n key test"
    assert COLUMNS == words.split() == [*results(tmp_path)]
    assert [*results(tmp_path, config=["lr"])] == [*COLUMNS, "lr"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two runs of a learner that differs from its paper, the second measured twice."""
    out = tmp_path_factory.mktemp("measured")
    found = [vlmlab.fit(Long, {}, Numbers(shots=2), out=out, seed=seed) for seed in (1, 2)]
    for run in found:
        run.save_results(
            [ROW | {"metric": name, "value": float(run.info["labels"]["seed"])} for name in "ab"]
        )
    return out, found


def test_rows_of_several_runs_are_counted_through_and_filtered(measured):
    out, found = measured
    frame = results(out)
    assert [*frame.index] == [0, 1, 2, 3] and sorted(frame["seed"]) == [1, 1, 2, 2]
    for wanted in ("b", ["b"], ("b",), {"b"}):
        assert results(out, metric=wanted)["metric"].tolist() == ["b", "b"]
    assert [*results(out, metric="b").index] == [0, 1] and results(out, metric="b", seed=2)[
        "value"
    ].tolist() == [2]
    assert [r.path for r in runs(out)] == sorted(r.path for r in found)
    name = found[0].info["labels"]["method"]
    assert differing(out, frame) == [f"differs   {name}: a queue of twelve"]
    assert differing(out, frame[frame["key"] == "none"]) == differing(out, frame[:0]) == []


def test_what_differs_is_said_of_runs_in_the_table_alone(measured, tmp_path):
    plain = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path)
    plain.save_results([ROW | {"metric": "a", "value": 1.0}])
    assert differing(tmp_path, results(tmp_path)) == []


def test_only_damaged_runs_are_an_error(tmp_path):
    run = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path)
    (run.path / "results.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"results.jsonl is damaged"):
        results(tmp_path)
    other = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path, seed=2)
    other.save_results([ROW | {"metric": "a", "value": 1.0}])
    with pytest.warns(UserWarning, match="left out: .*results.jsonl is damaged"):
        assert len(results(tmp_path)) == 1
    (run.path / "run.json").write_text("{")
    with pytest.warns(UserWarning, match="left out: .*run.json is damaged"):
        assert [r.path for r in runs(tmp_path)] == [other.path]


def test_the_panel_of_a_run(long, tmp_path):
    panel, info = long.panel(), long.info
    method = info["labels"]["method"]
    assert panel.line == f"{method}_mine numbers seed 9, finished, {long.path}"
    assert panel.facts["task"] == "numbers, pairs, 4 shots" and panel.facts["differs"] == "a queue of twelve"
    assert panel.facts["trained"] == f"25 steps in {sum(info['seconds']):.0f} s on cpu"
    assert (panel.facts["models"], panel.facts["error"], panel.facts["settings"]) == ("", None, "")
    bare = vlmlab.fit(Distil, models_of(Distil), Numbers(), out=tmp_path)
    RunFolder(bare.path).write_info(bare.info | {"status": "failed", "error": "no luck"})
    facts = bare.panel().facts
    assert facts["task"] == "numbers, pairs" and facts["models"] == "student: net, teacher: net"
    assert (facts["trained"], facts["error"]) == ("", "no luck") and "_mine" not in bare.panel().line
    curve, table = bare.numbers()
    assert "<svg" in curve and table == ""
    bare.save_results([ROW | {"metric": "a", "value": 12.5}])
    table = bare.numbers()[1]
    assert [word for word in ("split", "rule", "metric", "value", "n") if f">{word}</" in table] == [
        *("split", "rule", "metric", "value", "n")
    ]


def test_settings_of_a_run_are_on_its_panel(tmp_path):
    task = vlmlab.task("emoji/food", protocol="few_shot", shots=1, backgrounds=1)
    run = vlmlab.fit("zero_shot", vlmlab.load("tiny", device="cpu"), task, out=tmp_path)
    assert "epochs" in run.panel().facts["settings"] and "tiny" in run.panel().facts["models"]


def test_the_end_of_a_training_that_answers_no_questions(long):
    log = pd.DataFrame(json.loads(x) for x in (long.path / "metrics.jsonl").read_text().splitlines())
    assert log["epoch"].nunique() == 3
    about = {"split": "training", "n": 20, "test": long.info["job"]["data"][:16]}
    wanted = {name: log[name][5:].mean() for name in ("nce", "loss")}
    rows = {row.pop("metric"): row for row in at_the_end(long)}
    assert rows.keys() == wanted.keys()
    for name, value in wanted.items():
        assert rows[name].pop("value") == pytest.approx(value, rel=1e-12) and rows[name] == about


def test_a_growing_run_has_no_epochs_in_its_log(tmp_path):
    run = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path)
    assert {row["metric"]: row["n"] for row in at_the_end(run)} == {"mse": 8, "loss": 8}
