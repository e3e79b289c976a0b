"""The rules by which the study cmapkd is set up are followed, and its planned numbers are those of the plan."""

import dataclasses
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from vlmlab import registry
from vlmlab.cli import reproduce as cli
from vlmlab.paths import shipped_notebooks
from vlmlab.studies import manifest
from vlmlab.studies.claims import claim
from vlmlab.studies.driver.runner import reproduce
from vlmlab.studies.pages import distilled, table_damage, tables

ROOT = Path(__file__).parents[2]
PROFILES = ("smoke", "demo", "paper")


@pytest.fixture(scope="module")
def study():
    return manifest.load("cmapkd")


def of(study, name, profile="demo"):
    return study.jobs(profile, (name,))


def configs(study, *matrices, profile="demo"):
    """Name -> settings of the first seed."""
    return {job.name: job.config for job in study.jobs(profile, matrices) if job.seed == 1}


def differ(a, b):
    return {k for k in {*a, *b} if a.get(k) != b.get(k)}


def test_every_profile_of_the_study_draws_all_artefacts(study):
    for profile in PROFILES:
        assert [a.id for a in study.choose(None, profile)] == list(study.artefacts)


def test_every_row_changes_one_setting(study):
    for profile in PROFILES:
        found = configs(study, "main", "ablation", "schedules", "objectives", profile=profile)
        whole = {k: v for k, v in found["cmapkd"].items() if k != "watch"}
        rows = {name: config for name, config in found.items() if name.startswith("cmapkd_")}
        assert all(len(differ(config, whole)) == 1 for config in rows.values())
    planned = tables.published("cmapkd", "table4", kind="planned")["method"]
    assert {*planned} <= {*configs(study, "main", "ablation")}


def test_all_methods_get_the_same_pairs_and_steps(study):
    methods = set(registry.names("distill")) - {"untrained"}
    for profile in ("demo", "paper"):
        found = configs(study, "controls", "main", profile=profile)
        assert methods == {*found} - {"untrained"}
        assert len({(c.get("batch_size"), c.get("max_steps")) for n, c in found.items() if n in methods}) == 1
        for name, config in found.items():
            registry.settings(registry.find(name), config)


def test_heads_for_questions_stand_on_the_student_that_they_are_called_after(study):
    heads = [j for n in ("vqa_teacher", "vqa_controls", "vqa_main", "vqa_ablation") for j in of(study, n)]
    assert heads
    for job in heads:
        assert job.follows["vlm"].name == job.variant and job.follows["vlm"].seed == job.seed
    paper = [{j.variant or j.name for j in of(study, n, "paper")} for n in ("vqa_ablation", "ablation")]
    assert paper[0] == {f"cmapkd_{variant}" for variant in paper[1]}


def test_the_demo_distils_the_larger_model_and_has_three_seeds(study):
    jobs = [
        j
        for n in ("teacher", "controls", "main", "ablation", "schedules", "objectives")
        for j in of(study, n)
    ]
    assert {j.models["teacher"]["name"] for j in jobs if "teacher" in j.models} == {"small"}
    assert {j.models["student"]["name"] for j in jobs} == {"tiny", "small"}
    by_name = {name: {j.seed for j in jobs if j.name == name} for name in {j.name for j in jobs}}
    assert all(seeds == {1, 2, 3} for seeds in by_name.values())


@pytest.fixture
def only_tiny(tmp_path, monkeypatch):
    """Of the embedded models only `tiny` is there."""
    (tmp_path / "models/tiny").mkdir(parents=True)
    (tmp_path / "models/tiny/config.json").write_text("{}")
    monkeypatch.setattr(manifest, "data_dir", lambda: tmp_path)


def test_a_profile_whose_model_is_not_trained_refuses(study, only_tiny, tmp_path):
    assert "vlmlab pretrain small" in study.untrained("demo")
    assert study.untrained("smoke") == study.untrained("paper") == ""
    with pytest.raises(ValueError, match="needs the embedded model 'small'"):
        reproduce("cmapkd", "demo", runs=tmp_path / "runs", figures=tmp_path / "figures")


def test_without_that_model_the_other_studies_are_made(only_tiny, capsys):
    found, problems = cli.with_profile(Namespace(notebooks=shipped_notebooks(), profile="demo"))
    assert "cmapkd" not in found and {"alignednorm", "survey"} <= {*found} and not problems
    assert "cmapkd is left out" in capsys.readouterr().err


def test_the_paper_profile_has_the_plans_settings(study):
    from vlmlab.distill.cmapkd import CMAPKD

    own = {field.name: field.default for field in dataclasses.fields(CMAPKD.Options)}
    assert (own["batch_size"], own["lr"], CMAPKD.Config().sizes) == (256, 5e-5, (56, 28, 14, 7))
    paper = configs(study, "main", profile="paper")["cmapkd"]
    assert {*paper} <= {"watch"}
    models = study.profile("paper").models
    assert models["teacher"]["name"].startswith("ViT-L-14") and models["student"]["name"].startswith(
        "ViT-B-16"
    )
    assert {j.task for j in of(study, "main", "paper")} == {"coco"}
    assert {j.task for j in of(study, "vqa_main", "paper")} == {"vqav2"}


def test_averages_of_the_plan_are_those_of_its_cells():
    planned = tables.published("cmapkd", "table2", kind="planned")
    wide = planned.pivot(index="method", columns="metric", values="mean")
    means = wide[list(distilled.RECALLS)].mean(axis=1)
    assert (means - wide["mean R"]).abs().max() <= 0.051
    assert set(planned["kind"]) == {"planned"} and planned["n"].isna().all()


def test_what_the_plan_calls_overall_is_not_the_mean_of_its_parts():
    planned = tables.published("cmapkd", "table3", kind="planned")
    wide = planned.pivot(index="method", columns="metric", values="mean")
    counts = {"vqa yes/no": 80541, "vqa number": 28134, "vqa other": 105679}  # of VQAv2 val
    means = sum(wide[kind] * n for kind, n in counts.items()) / sum(counts.values())
    assert (wide["vqa"] - means).between(1.9, 2.5).all()


def test_runs_and_claims_are_those_there_are(study):
    names = set(distilled.names("cmapkd"))
    jobs = study.jobs("demo", tuple(study.profile("demo").matrices))
    assert {j.name for j in jobs if j.method != "vqa_head"} == names
    for c in claim.load("cmapkd"):
        for source in c.data:
            head, _, rest = source.partition("/")
            if head == "runs":
                assert {*rest.split("/")[0].split("+")} <= {*study.profile("demo").matrices}, c.id
            elif head != "published":
                assert head in study.artefacts, c.id
        for chosen in (c.of, c.against):
            methods = chosen.get("method", [])
            assert {methods} <= names if isinstance(methods, str) else {*methods} <= names, c.id


@pytest.mark.study
def test_the_check_profile_takes_a_step_with_the_models_of_the_plan(tmp_path):
    lines = ["path,text,split"]
    for i in range(6):
        (tmp_path / "check").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (40 * i, 90, 60)).save(tmp_path / f"check/{i}.png")
        lines.append(f"{i}.png,picture number {i},{'train' if i < 4 else 'test'}")
    (tmp_path / "check/captions.csv").write_text("\n".join(lines))
    command = [
        sys.executable,
        "-m",
        "vlmlab.cli",
        "reproduce",
        "cmapkd",
        "--profile",
        "check",
        "--only",
        "fig2",
    ]
    folders = ["--runs", "runs", "--figures", "figures", "--notebooks", str(ROOT / "notebooks")]
    about = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}}
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False, **about)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "runs").glob("cmapkd/cmapkd/*/*/run.json")
    info = json.loads(path.read_text())
    assert info["stages"] == [["joint", 1]] and info["models"]["teacher"]["name"] == "ViT-L-14-quickgelu"
    drawn = table_damage.read(tmp_path / "figures/cmapkd/fig2.csv")
    assert drawn["text"].str.contains("P2: 56x56, 256 ch.", regex=False).any()
