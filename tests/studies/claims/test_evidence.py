"""Which runs, tables and columns stand behind a claim."""

import numpy as np
import pandas as pd
import pytest
from test_judge import ONE, save

from vlmlab.studies import load
from vlmlab.studies.claims import answers, evidence
from vlmlab.studies.jobs import receipts
from vlmlab.studies.places import Places

MATRICES = """
[[profile.demo.matrix]]
name = "first"
methods = ["one"]
tasks = ["toy/a", "toy/b"]
seeds = [1, 2]

[[profile.demo.matrix]]
name = "second"
methods = ["two"]
tasks = ["toy/b"]
seeds = [1]

[profile.demo.matrix.variants]
wide = {}
"""


@pytest.fixture
def found(project):
    """The evidence of a study with two matrices whose tasks are not the same."""
    study = project.study(project.artefact("fig1", matrix="first"))
    text = study.read_text().partition("\n[[profile.demo.matrix]]")[0]
    study.write_text(text + MATRICES)
    project.write("notebooks/fake/claims.toml", ONE)
    places = Places.of("demo", **project.places)
    return evidence.Evidence(load("fake", project.places["notebooks"]), "demo", places, "fake_train:train")


def done(job):
    return receipts.Done(f"fake/{job.name}/{job.task}/{job.seed}", f"{job.name} {job.task} {job.seed}", "")


def test_runs_are_read_on_the_tasks_that_every_method_has(found, project, monkeypatch):
    asked = []

    def drawn(runs, metric):
        asked.append((list(runs), metric))
        rows = [("two", "wide", "toy/b", 1, 50.0, 40.0), ("one", "", "toy/b", 1, 60.0, 70.0)]
        frame = pd.DataFrame(rows, columns=["method", "variant", "task", "seed", 0, 1])
        frame = frame.assign(protocol="base_to_new", split="new", rule="unified", shots=None, metric=metric)
        frame.attrs["concepts"] = 9
        return frame

    monkeypatch.setattr(evidence, "drawn", drawn)
    monkeypatch.setattr(receipts.Index, "done", lambda index, job: done(job))
    rows = found.first(["runs/first+second/accuracy"])
    runs = project.places["runs"]
    of_b = [(runs / f"fake/one/toy/b/{seed}", "base_to_new", "") for seed in (1, 2)]
    assert asked == [([*of_b, (runs / "fake/two_wide/toy/b/1", "base_to_new", "wide")], "accuracy")]
    assert rows.evidence == "runs/first+second: 5 runs, accuracy"
    assert rows.keys == ("one toy/a 1", "one toy/a 2", "one toy/b 1", "one toy/b 2", "two_wide toy/b 1")
    assert rows.seeds == (1, 2, 1, 2, 1) and rows.frame.attrs["concepts"] == 9
    assert {*rows.frame["task"]} == {"toy/b", "average"} and {*rows.frame["method"]} == {"one", "two_wide"}
    assert found.first(["runs/first+second/accuracy"]) is rows and len(asked) == 1  # read once


def test_missing_runs_are_counted(found, monkeypatch):
    monkeypatch.setattr(receipts.Index, "done", lambda index, job: done(job) if job.seed == 1 else None)
    with pytest.raises(LookupError, match=r"^2 of 4 runs of first are missing, or of other code or data$"):
        found.first(["runs/first/accuracy"])
    with pytest.raises(
        LookupError, match="profile demo has no matrix third; fig9 is no artefact of study fake"
    ):
        found.first(["runs/first+third/accuracy", "fig9"])


def test_published_tables_call_tasks_as_runs_do(found, project):
    project.write("data/published/fake/table2.csv", "method,dataset,value\na,x,3\n")
    rows = found.first(["published/table2"])
    assert list(rows.frame) == ["method", "task", "value"] and rows.evidence == "published/table2"
    assert rows.keys == rows.seeds == ()


def test_of_a_tidy_artefact_only_measured_numbers_count(found, project):
    frame = pd.DataFrame({"method": ["a", "b"], "kind": ["measured", "published"], "value": [1.0, 2.0]})
    save(project, frame, seeds=(4, 7))
    rows = found.first(["fig9", "fig1"])
    assert rows.frame["method"].tolist() == ["a"] and rows.evidence == "fig1"
    assert rows.keys == ("k1",) and rows.seeds == (4, 7)


def test_an_unknown_profile_has_no_evidence(found):
    with pytest.raises(ValueError, match="study fake has no profile 'paper'"):
        evidence.Evidence(found.study, "paper", found.places)


def test_base_and_new_of_one_run_have_their_harmonic_mean():
    about = {"variant": "", "task": "t", "protocol": "p", "rule": "r", "shots": 4, "seed": 1, "metric": "m"}
    rows = pd.DataFrame(
        [
            {"method": m, "split": s, **about, 0: x, 1: y}
            for m, s, x, y in (("a", "base", 80.0, 60.0), ("a", "new", 40.0, 20.0), ("b", "base", 50.0, 50.0))
        ]
    )
    found = answers.with_summaries(rows)
    assert found["split"].tolist() == ["base", "new", "base", "hm"]
    assert found.iloc[-1][["method", 0, 1]].tolist() == ["a", pytest.approx(160 / 3), pytest.approx(30)]
    assert answers.with_summaries(rows[:1]).equals(rows[:1])  # no new classes, no mean


@pytest.mark.parametrize("metric", ["R@5", "t2i R@", "x2i R@5", "AUC", "t2i R@5 "])
def test_metrics_that_no_single_answer_stands_behind(metric):
    with pytest.raises(LookupError, match=f"no single answers stand behind {metric}"):
        answers.drawn([], metric)


def test_a_mean_over_classes_weighs_each_class_alike():
    worth, factor = np.array([100.0, 0.0, 0.0, 100.0]), np.array([[1.0], [1.0], [2.0], [1.0]])
    assert answers.mean(worth, np.array([0, 0, 0, 1]), factor).tolist() == [(25 + 100) / 2]
    assert answers.mean(worth, np.zeros(4), factor).tolist() == [40]
