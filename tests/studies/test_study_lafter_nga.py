"""The rules by which the demo of lafter_nga was set up (the comment above its profile) are followed, and its profiles for
real models train and draw."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vlmlab
from vlmlab import studies
from vlmlab.methods.lafter_nga import PLANS, spans
from vlmlab.studies import manifest
from vlmlab.studies.pages import tables
from vlmlab.tasks.faces import tasks as faces

ROOT = Path(__file__).parents[2]
PARTS = ("single", "cascade", "nga", "both")


@pytest.fixture(scope="module")
def study():
    return manifest.load("lafter_nga")


def configs(study, *matrices, profile="demo"):
    """variant -> settings of the first seed."""
    return {job.variant: job.config for job in study.jobs(profile, matrices) if job.seed == 1}


def differ(a, b):
    return {k for k in {*a, *b} if a.get(k) != b.get(k)}


def test_rows_of_the_ablation_differ_in_stages_and_reading_alone(study):
    for profile in ("demo", "paper", "paper_b32"):
        own, true = (configs(study, m, profile=profile) for m in ("stages", "stages_true"))
        assert {*own} == {*PARTS} and {*true} == {f"{part}_true" for part in PARTS}
        for part in PARTS:
            assert differ(own[part], own["both"]) <= {"stages", "aggregate"}
            assert differ(own[part], true[f"{part}_true"]) == {"labels", "w_class"}
        assert (own["single"]["stages"], own["single"]["aggregate"]) == ("1-12", "last")
        assert own["cascade"]["aggregate"] == "last" and len(spans(own["nga"]["stages"], 12)) == 1


def test_every_other_setting_is_varied_alone(study):
    both = configs(study, "stages")["both"]
    alone = {"sigma": {"aggregate", "sigma"}, "designs": None, "prompts": {"tokens"}}
    for matrix, fields in alone.items():
        for variant, config in configs(study, matrix).items():
            changed = differ(config, both)
            assert changed == fields if fields else len(changed) == 1, variant
    for config in configs(study, "order").values():
        assert differ(config, both) == {"order", "warmup_epochs", "warmup_lr"}
        assert config["warmup_lr"] == both["lr"]
        assert config["epochs"] > config["warmup_epochs"] + len(PLANS["b16"].split(",")) - 1


def test_both_ends_of_the_width_and_one_are_swept(study):
    found = sorted(config["sigma"] for config in configs(study, "sigma").values())
    assert found[0] == 1e-3 and found[-1] == 1e3 and 1.0 in found


def test_the_demo_has_three_seeds_and_tests_no_face_that_its_settings_were_chosen_on(study):
    names = ("main", "main_true", "stages", "stages_true", "sigma", "designs", "prompts", "order")
    jobs = study.jobs("demo", names)
    assert {job.task for job in jobs} == {"faces/emotions-500"}
    seeds = {name: {j.seed for j in jobs if j.name == name} for name in {job.name for job in jobs}}
    assert all(found == {1, 2, 3} for found in seeds.values())
    test = next(iter(vlmlab.task("faces/emotions-500", protocol="zero_shot").tests.values()))
    assert not {*test.ids} & {*faces.part("val").ids}


def test_both_models_of_the_plan_have_their_own_stages(study):
    for profile, model, plan in (("paper", "ViT-B-16", "b16"), ("paper_b32", "ViT-B-32", "b32")):
        assert study.profile(profile).models["vlm"]["name"].startswith(model)
        assert {c["stages"] for v, c in configs(study, "stages", profile=profile).items() if v == "both"} == {
            plan
        }


def test_what_the_plan_expects_is_called_planned():
    plan = tables.published("lafter_nga", "plan", kind="planned")
    assert set(plan["kind"]) == {"planned"} and plan["n"].isna().all()
    found = plan.set_index("metric")["mean"]
    assert found["parameters_b32"] == 4 * 16 * 768 + 4 + 4 and found["gain_low"] < found["gain_high"]


def emotion6(root):
    """As Emotion6 is laid out, with a picture an answer."""
    from PIL import Image

    names = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
    lines = [
        "\t".join(
            ["[image_filename]", "[valence]", "[arousal]", *(f"[prob. {n}]" for n in (*names, "neutral"))]
        )
    ]
    for c, name in enumerate(names):
        for i in range(1, 5):
            path = root / f"images/{name}/{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (40 * c, 60 * i, 90)).save(path)
            shares = [0.7 if n == name else 0.05 for n in (*names, "neutral")]
            lines.append("\t".join([f"{name}/{i}.jpg", "4.5", "5.2", *map(str, shares)]))
    (root / "ground_truth.txt").write_text("\r\n".join(lines) + "\r\n")


@pytest.mark.study
@pytest.mark.parametrize(
    "profile, model", [("check", "ViT-B-16-quickgelu"), ("check_b32", "ViT-B-32-quickgelu")]
)
def test_the_check_profiles_train_and_draw_with_the_models_of_the_plan(tmp_path, profile, model):
    emotion6(tmp_path / "Emotion6")
    command = [sys.executable, "-m", "vlmlab.cli", "reproduce", "lafter_nga", "--profile", profile]
    folders = ["--only", "cka", "--runs", tmp_path / "runs", "--figures", tmp_path / "figures"]
    places = ["--notebooks", ROOT / "notebooks"]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [*command, *folders, *places],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = sorted((tmp_path / "runs/lafter_nga/lafter_nga").glob("*/*/run.json"))
    infos = [json.loads(path.read_text()) for path in found]
    assert {info["models"]["vlm"]["name"] for info in infos} == {model}
    assert {info["labels"]["variant"] for info in infos} == {"single", "both"}
    steps = {stage: n for info in infos for stage, n in info["stages"]}
    assert steps == {"texts": 2, "images": 2}
    losses = [
        json.loads(line)["loss"] for line in (found[0].parent / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 4 and losses[2] != losses[3]
    rows = vlmlab.results(tmp_path / "runs")
    assert {"accuracy", "KL", "clark", "intersection"} <= set(rows["metric"])
    assert studies.read_provenance(tmp_path / "figures/lafter_nga/cka.svg")["profile"] == profile
