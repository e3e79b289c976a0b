"""One training job: what it asks of vlmlab, and what its digest stands for."""

import types

import pandas as pd
import pytest

import vlmlab
from vlmlab.studies.jobs import train
from vlmlab.studies.profiles import Job


@pytest.fixture
def verbs(monkeypatch, tmp_path):
    """vlmlab's verbs replaced by ones that remember how they were called."""
    calls, state = [], types.SimpleNamespace(weights=b"w", value=12.5)
    run = types.SimpleNamespace(path=tmp_path / "s/m/t/k1", key="k1", status="finished")
    run.path.mkdir(parents=True)

    def fit(*args, **kwargs):
        calls.append(("fit", args, kwargs))
        (run.path / "trainables.safetensors").write_bytes(state.weights)
        return run

    def evaluate(run, task, rule):
        calls.append(("evaluate", rule))
        rule = rule or ("unified",)
        return pd.DataFrame({"rule": [*rule], "value": [state.value / (i + 1) for i in range(len(rule))]})

    verbs = {
        "load": lambda **k: calls.append(("load", k)) or "vlm",
        "fit": fit,
        "evaluate": evaluate,
        "task": lambda *a, **k: calls.append(("task", a, k)) or "task",
    }
    for name, verb in verbs.items():
        monkeypatch.setattr(vlmlab, name, verb, raising=False)
    return calls, state


JOB = Job(
    "s",
    {"vlm": {"name": "tiny", "device": "cpu"}},
    "mmrlpp",
    "emoji/food",
    "base_to_new",
    4,
    2,
    ("unified", "decoupled"),
    {"epochs": 3, "rank": 2},
)


def job(**changes):
    return JOB.spec | changes


def test_what_a_job_asks_for(verbs, tmp_path):
    calls, _ = verbs
    result = train.train(job(), str(tmp_path))
    assert calls == [
        ("load", {"name": "tiny", "device": "cpu"}),
        ("task", ("emoji/food",), {"protocol": "base_to_new", "shots": 4, "seed": 2}),
        (
            "fit",
            ("mmrlpp", {"vlm": "vlm"}, "task"),
            {"out": str(tmp_path), "study": "s", "variant": "", "epochs": 3, "rank": 2},
        ),
        ("evaluate", ("unified", "decoupled")),
    ]
    del result["digest"]
    assert result == {"run": "s/m/t/k1", "key": "k1", "status": "finished"}


def test_presets_stand_under_the_settings_of_the_study(verbs, tmp_path):
    calls, _ = verbs
    train.train(job(presets=True, task="dtd", protocol="few_shot", config={"epochs": 3}), str(tmp_path))
    (settings,) = (c[2] for c in calls if c[0] == "fit")
    assert settings["epochs"] == 3 and settings["lr"] == 2e-3 and settings["anchor_weight"] == 7.0


def test_digest_is_of_numbers_and_weights(verbs, tmp_path):
    _, state = verbs
    first = train.train(job(), str(tmp_path))["digest"]
    assert train.train(job(), str(tmp_path))["digest"] == first
    state.value += 1e-12
    other = train.train(job(), str(tmp_path))["digest"]
    state.weights = b"x"
    assert len({first, other, train.train(job(), str(tmp_path))["digest"]}) == 3


def test_models_go_by_role_and_runs_fill_the_roles_they_follow(verbs, tmp_path, monkeypatch):
    calls, _ = verbs
    monkeypatch.setattr(vlmlab, "open_run", lambda path: f"run {path.relative_to(tmp_path)}", raising=False)
    models = {"student": {"name": "tiny"}, "teacher": {"name": "small"}}
    train.train(job(models=models), str(tmp_path))
    train.train(job(models={}), str(tmp_path))
    train.train(job(models={"language": {"name": "words"}}, after={"vision": "s/vit/t/k0"}), str(tmp_path))
    given = [c[1][1] for c in calls if c[0] == "fit"]
    vlm = "vlm"  # what `load` gives here
    assert given == [{"student": vlm, "teacher": vlm}, {}, {"language": vlm, "vision": "run s/vit/t/k0"}]


def test_rules_that_a_study_leaves_out_are_left_to_the_method(verbs, tmp_path):
    calls, _ = verbs
    train.train(job(rules=None), str(tmp_path))
    assert calls[-1] == ("evaluate", None)
