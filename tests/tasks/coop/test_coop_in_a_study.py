"""The real path: ViT-B/16 and data in CoOp's layout through the notebooks and the command of the demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import coop_miniature as mini
import pytest

import vlmlab
from vlmlab import studies

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.study


def test_the_check_profile_trains_and_draws_with_the_papers_model(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "COUNTS", {"train": 5, "val": 1, "test": 1})  # each image takes half a second
    mini.make_miniature(tmp_path / "data", "oxford_pets")
    command = [
        sys.executable,
        "-m",
        "vlmlab.cli",
        "reproduce",
        "alignednorm",
        "--profile",
        "check",
        "--only",
        "table1,fig3b",
        "--runs",
        tmp_path / "runs",
        "--figures",
        tmp_path / "figures",
    ]
    settings = {"VLMLAB_DATASETS": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = (tmp_path / "runs/alignednorm/aligned_norm/oxford_pets").glob("*/run.json")
    infos = {json.loads(path.read_text())["job"]["seed"]: path for path in found}
    path, info = infos[1], json.loads(infos[1].read_text())
    assert (info["models"]["vlm"]["name"], info["steps"], info["status"]) == (
        "ViT-B-16-quickgelu",
        2,
        "finished",
    )
    config, options = info["job"]["config"], info["job"]["options"]
    assert (config["w_proj"], config["token_mix"], options["batch_size"]) == (0.1, 0.7, 4)  # the presets
    losses = [json.loads(line)["loss"] for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and losses[0] != losses[1]
    results = vlmlab.results(tmp_path / "runs")
    assert set(results["method"]) == {"zero_shot", "mmrlpp", "aligned_norm"}
    assert set(results["split"]) == {"base", "new", "hm"}
    made = studies.read_provenance(tmp_path / "figures/alignednorm/fig3b.svg")
    assert made["profile"] == "check" and info["key"] in made["run_keys"]
