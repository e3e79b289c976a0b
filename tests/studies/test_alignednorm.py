"""The rules by which the demo of alignednorm was set up (the comment above its profile) are followed."""

import csv

import pytest

import vlmlab
from vlmlab.paths import HOME
from vlmlab.studies import manifest
from vlmlab.tasks.emoji.tasks import GROUPS, WIDENED

LEAST = 60
TUNING = HOME / "figures/tune/alignednorm/tuning.csv"


@pytest.fixture(scope="module")
def study():
    return manifest.load("alignednorm")


def concepts(id):
    """How many test concepts the base and the new classes of a task have."""
    tests = vlmlab.task(id, protocol="base_to_new", shots=1).tests.values()
    return [len({split.concept(i) for i in split.ids}) for split in tests]


def test_the_tasks_are_all_that_have_enough_concepts(study):
    groups = [f"drawings/{g}" for g in WIDENED] + [f"emoji/{g}" for g in GROUPS]
    enough = {id for id in groups if min(concepts(id)) >= LEAST}
    matrices = study.profile("demo").matrices
    assert {*matrices["main"].tasks} == {*matrices["more"].tasks} == enough
    tuned = {task for m in study.profile("tune").matrices.values() for task in m.tasks}
    assert tuned and not enough & tuned


def test_compared_methods_have_ten_seeds(study):
    jobs = study.jobs("demo", ("main", "more"))
    for method in ("mmrlpp", "aligned_norm"):
        assert {job.seed for job in jobs if job.method == method} == set(range(1, 11))


def test_rates_and_weights_are_those_that_tuning_chose(study):
    with TUNING.open(encoding="utf-8", newline="") as file:
        chosen = [row for row in csv.DictReader(file) if row["chosen"] == "True"]
    jobs = {job.method: job.config for job in study.jobs("demo", ("main",))}
    assert {row["method"] for row in chosen} == set(jobs) - {"zero_shot"}
    for row in chosen:
        wanted = float(row["lr"] if row["setting"] == "lr" else row["value"])
        assert jobs[row["method"]][row["setting"]] == pytest.approx(wanted), row
    for name, variant in (("token", "w_token"), ("proj", "w_proj")):
        (job, *_) = [j for j in study.jobs("demo", ("parts",)) if j.variant == name]
        assert job.config[variant] == jobs["aligned_norm"][variant]
