"""A job counts as done only while its run, its inputs and its code are what they were."""

import functools
import json

import pytest

from vlmlab import studies
from vlmlab.studies.jobs import pool
from vlmlab.studies.jobs import receipts as jobs
from vlmlab.studies.places import Places


@pytest.fixture
def trained(project):
    """A project with two trained runs; returns a function that tells how many of them are done."""
    project.study(project.artefact("good"))
    places = Places.of("demo", **{k: project.places[k] for k in ("runs", "notebooks", "data")})
    wanted = studies.load("fake", project.places["notebooks"]).jobs("demo", ("main",))
    index = jobs.Index("fake", places, "fake_train:train")
    assert jobs.train_missing(wanted, index, functools.partial(pool.answers, slots=1)) == jobs.Outcome()

    def done(train="fake_train:train"):
        index = jobs.Index("fake", places, train)
        return sum(index.done(job) is not None for job in wanted)

    assert done() == 2
    return done


def run_folder(project):
    return next((project.root / "runs/fake/one/toy/a").iterdir())


def test_unfinished_or_missing_runs_are_not_done(trained, project):
    path = run_folder(project) / "run.json"
    info = json.loads(path.read_text())
    for text in (json.dumps(info | {"status": "running"}), json.dumps(info | {"key": "other"}), "{", ""):
        path.write_text(text)
        assert trained() == 1, text
    path.write_text(json.dumps(info))
    assert trained() == 2
    (run_folder(project) / "results.jsonl").unlink()
    assert trained() == 1


@pytest.mark.parametrize("text", [None, "", "[]", '{"jobs": 1}'])
def test_a_lost_receipt_only_asks_again(trained, project, text):
    receipt = next((project.root / "runs/fake/jobs").iterdir())
    receipt.unlink()
    if text is not None:
        receipt.write_text(text)
    assert trained() == 1
    calls = len(project.calls())
    assert again(project) == jobs.Outcome()
    assert len(project.calls()) == calls + 1 and trained() == 2


def again(project):
    """Train what is missing."""
    places = Places.of("demo", **{k: project.places[k] for k in ("runs", "notebooks", "data")})
    wanted = studies.load("fake", project.places["notebooks"]).jobs("demo", ("main",))
    return jobs.train_missing(wanted, jobs.Index("fake", places, "fake_train:train"), pool.answers)


@pytest.mark.parametrize(("name", "text"), [("results.jsonl", '{"value": NaN}\n'), ("run.json", "{")])
def test_a_run_that_was_damaged_later_is_trained_again(trained, project, name, text):
    path = run_folder(project) / name
    good = path.read_text()
    path.write_text(text)
    assert trained() == 1
    assert again(project) == jobs.Outcome() and trained() == 2
    assert path.read_text() == good and path.with_name(f"{name}.damaged").read_text() == text


def test_a_job_that_is_done_returns_at_once(trained, project):
    job, _ = studies.load("fake", project.places["notebooks"]).jobs("demo", ("main",))
    places = Places.of("demo", **{k: project.places[k] for k in ("runs", "notebooks", "data")})
    request = jobs.Index("fake", places, "fake_train:train").request(job)
    calls = len(project.calls())
    assert jobs.perform(**request.arguments) == job.id and len(project.calls()) == calls
    assert jobs.perform(**request.arguments | {"inputs": "others"}) == job.id
    assert len(project.calls()) == calls + 1


def test_resources_are_no_part_of_a_run(trained, project):
    text = project.root / "notebooks/fake/study.toml"
    text.write_text(text.read_text().replace('model = "none"', 'model = "none"\nresources = { cores = 2 }'))
    job, _ = studies.load("fake", project.places["notebooks"]).jobs("demo", ("main",))
    assert job.resources.cores == 2 and "resources" not in job.spec and trained() == 2


def test_data_and_model_files_belong_to_a_job(trained, project):
    project.write("data/other/images.csv", "a\n")
    project.write("data/toy/README.md", "text")
    assert trained() == 2
    project.write("data/models/none/config.json", "{}")
    assert trained() == 0
