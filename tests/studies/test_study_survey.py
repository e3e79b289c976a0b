"""The rules by which the study of the survey is set up (the comments above its profiles) are followed, and its data say what
they claim to."""

import ast
import dataclasses
import inspect
import re

import pytest

from vlmlab import registry
from vlmlab.paths import data_dir
from vlmlab.studies import manifest
from vlmlab.studies.claims import claim
from vlmlab.studies.pages import audited, systems, table_damage, tables

ELEVEN = "resnet transformer bert vit clip moco albef blip flamingo blip2 llava".split()


@pytest.fixture(scope="module")
def study():
    return manifest.load("survey")


def of(study, name, profile="demo"):
    return study.jobs(profile, (name,))


def differ(jobs):
    """The settings in which runs of one seed differ."""
    configs = [job.config for job in jobs if job.seed == jobs[0].seed]
    return {k for c in configs for k in c if any(c.get(k) != other.get(k) for other in configs)}


def test_every_profile_draws_all_artefacts(study):
    for profile in ("smoke", "demo", "paper"):
        assert [a.id for a in study.choose(None, profile)] == list(study.artefacts)


def test_all_eleven_stand_in_the_table_and_on_the_time_line(study):
    dated = tables.published("survey", "systems")
    assert sorted(dated["method"]) == sorted(ELEVEN)
    assert set(dated["reads"]) == {"images", "text", "both"} and dated["month"].between(1, 12).all()
    for profile in ("smoke", "demo", "paper"):
        methods = {job.method for job in study.jobs(profile, study.artefacts["systems"].runs)}
        assert {systems.NAMES.get(m, m) for m in methods} == set(ELEVEN)


def test_dates_are_those_of_the_identifiers():
    for row in tables.published("survey", "systems").itertuples():
        (digits,) = re.findall(r"arXiv (\d{4})\.\d{4,5}$", row.note)
        assert (2000 + int(digits[:2]), int(digits[2:])) == (row.mean, row.month), row.method


def test_only_what_is_studied_varies(study):
    for profile in ("smoke", "demo", "paper"):
        assert differ(of(study, "moco", profile)) <= {"momentum"}
        assert differ(of(study, "resnet", profile)) == {"blocks", "shortcut"}
        assert differ(of(study, "bert", profile)) == {"segments"}
        assert differ(of(study, "blip2", profile)) == {"align"}
        assert differ(of(study, "llava", profile)) == {"instruct_steps"}
        (plain,), (kept,) = of(study, "blip", profile), of(study, "bootstrapped", profile)
        steps = [job.config.get("steps") for job in (plain, kept)]
        assert steps[0] == steps[1] and plain.task == kept.task


def test_the_demo_takes_the_systems_own_settings(study):
    varied = {"momentum", "blocks", "shortcut", "segments", "align", "instruct_steps", "part"}
    jobs = study.jobs("demo", tuple(study.profile("demo").matrices))
    assert {k for job in jobs for k in job.config} == {*varied, "steps"}
    assert {job.config.get("part") for job in jobs if "steps" in job.config} == {"filter"}
    momenta = sorted(job.config["momentum"] for job in of(study, "moco") if job.seed == 1)
    assert momenta == [0.0, 0.9, 0.99, 0.999]


def test_seeds_are_as_the_comment_says(study):
    seeds = {name: {job.seed for job in of(study, name)} for name in study.profile("demo").matrices}
    three = {"moco", "resnet", "language", "flamingo", "blip2"}
    assert {name for name, found in seeds.items() if found == {1, 2, 3}} == three
    assert all(seeds[name] == {1} for name in seeds.keys() - three)


def test_captioner_and_filter_have_not_read_what_they_judge(study):
    from vlmlab.tasks.shapes import tasks as shapes

    found, clean = (shapes.dataset(id, "retrieval") for id in ("shapes/noisy", "shapes/clean"))
    assert {job.task for name in ("captioner", "filter") for job in of(study, name)} == {"shapes/clean"}
    assert not {*found.train.ids} & {*clean.train.ids} and clean.train.flaws is None
    assert found.test.fingerprint() == clean.test.fingerprint()


@pytest.mark.parametrize(
    "method",
    ["moco", "resnet", "transformer", "bert", "albef", "blip", "blip_bootstrapped", "language"]
    + ["flamingo", "blip2", "llava"],
)
def test_the_paper_profile_has_the_sizes_of_the_papers(study, method):
    cls = registry.find(method)
    real = dataclasses.asdict(cls.real())
    jobs = [job for name in study.profile("paper").matrices for job in of(study, name, "paper")]
    configs = [job.config for job in jobs if job.method == method]
    usual = dataclasses.asdict(cls.Config())
    found = [{k: config.get(k, usual[k]) for k in real} for config in configs]
    assert real in found
    for config in configs:
        registry.settings(method, config)


def test_the_audit_names_checks_that_are_made(study):
    audit = table_damage.read(data_dir() / "published/survey/audit.csv").fillna("")
    assert audit["number"].is_unique and set(audit["verdict"]) == {"wrong", "inexact", "right"}
    assert (audit[["said", "fact", "source", "system"]] != "").all(axis=None)
    tree = ast.parse(inspect.getsource(audited))
    told = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return) and isinstance(n.value, ast.Dict)]
    assert {*audit["check"]} - {""} == {key.value for found in told for key in found.keys}


def test_claims_of_the_audit_read_its_checks_exactly(study):
    audit = table_damage.read(data_dir() / "published/survey/audit.csv").fillna("")
    numbered = dict(zip(audit["number"], audit["check"]))
    found = claim.load("survey")
    assert len({c.id for c in found}) == len(found)
    for c in found:
        assert {name.split("/")[0] for name in c.data} <= {*study.artefacts, "runs", "published"}
        if c.data == ("audit",):
            assert c.exact and numbered[int(c.source.removeprefix("audit "))] == c.of["method"], c.id
