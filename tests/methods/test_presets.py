"""Per-data-set values of the papers."""

import csv
from pathlib import Path

import pytest

from vlmlab import methods
from vlmlab.registry import settings as sort_out

with (Path(methods.__file__).parent / "presets.csv").open() as file:
    ROWS = list(csv.DictReader(file))


def test_every_row_is_a_legal_setting_with_a_source_and_stands_once():
    places = [(r["method"], r["task"], r["protocol"], r["shots"], r["field"]) for r in ROWS]
    assert len(set(places)) == len(places)
    for method, task, protocol, shots in {p[:4] for p in places}:
        values = methods.presets(method, task, protocol, int(shots) if shots else None)
        assert values and sort_out(method, values)
    assert all(r["source"] for r in ROWS)
    assert {r["protocol"] for r in ROWS} == {"", "few_shot", "cross_dataset", "domain_shift"}


@pytest.mark.parametrize(
    "method,task,protocol,shots,wanted",
    [
        (
            "mmrl",
            "eurosat",
            "base_to_new",
            16,
            {"anchor_weight": 0.01, "rep_dim": 2048, "epochs": 10, "batch_size": 4, "lr": 1e-3},
        ),
        ("mmrl", "stanford_cars", "few_shot", 1, {"anchor_weight": 7.0, "epochs": 50, "batch_size": 32}),
        ("mmrl", "imagenet", "cross_dataset", 16, {"anchor_weight": 0.2, "epochs": 1, "warmup_epochs": 0}),
        ("mmrlpp", "oxford_pets", "base_to_new", 16, {"token_mix": 0.7, "anchor_weight": 0.01, "epochs": 10}),
        (
            "mmrlpp",
            "imagenet",
            "base_to_new",
            16,
            {"token_mix": 0.9, "epochs": 5, "batch_size": 32, "lr": 1e-3},
        ),
        ("mmrlpp", "imagenet", "few_shot", 16, {"epochs": 5, "batch_size": 32, "lr": 1e-3}),
        ("mmrlpp", "dtd", "few_shot", 16, {"epochs": 100, "batch_size": 32, "lr": 2e-3}),
        (
            "aligned_norm",
            "dtd",
            "base_to_new",
            16,
            {"token_mix": 0.9, "anchor_weight": 7.0, "w_proj": 0.2, "w_token": 0.15, "epochs": 10},
        ),
        ("aligned_norm", "sun397", "base_to_new", 16, {"epochs": 13}),
        ("promptsrc", "dtd", "few_shot", 16, {"gpa_mean": 45.0, "gpa_std": 5.0, "epochs": 50}),
        (
            "promptsrc",
            "dtd",
            "base_to_new",
            16,
            {"optimiser": "sgd", "lr": 0.0025, "epochs": 20, "crop": [0.08, 1.0]},
        ),
        (
            "promptsrc",
            "imagenet",
            "domain_shift",
            16,
            {"depth": 3, "gpa_mean": 6.0, "gpa_std": 10.0, "epochs": 20},
        ),
        (
            "hicropl",
            "imagenet",
            "cross_dataset",
            16,
            {"tokens": 2, "depth": 6, "cross_layer": 5, "epochs": 5},
        ),
        ("coop", "dtd", "few_shot", 16, {"epochs": 200}),
        ("lafter", "oxford_flowers", "few_shot", None, {"text_steps": 600, "epochs": 50, "lr": 5e-4}),
        ("lafter_nga", "dtd", "few_shot", None, {"text_steps": 400, "epochs": 8, "lr": 1e-4, "nga_lr": 1e-5}),
        ("coop", "dtd", "few_shot", 4, {"epochs": 100}),
        ("coop", "dtd", "few_shot", 1, {"epochs": 50}),
        ("coop", "imagenet", "few_shot", 4, {"epochs": 50}),
    ],
)
def test_values(method, task, protocol, shots, wanted):
    values = methods.presets(method, task, protocol, shots)
    assert {k: values[k] for k in wanted} == wanted
    assert all(type(values[k]) is type(v) for k, v in wanted.items())


def test_embedded_tasks_have_the_general_values_and_zero_shot_none():
    assert methods.presets("zero_shot", "dtd") == {}
    assert methods.presets("mmrlpp", "emoji/food") == {
        "optimiser": "adamw",
        "lr": 1e-3,
        "batch_size": 4,
        "epochs": 10,
    }


def test_what_is_set_for_a_target_is_apart():
    assert methods.target_presets("mmrlpp", "oxford_pets", "cross_dataset") == {"token_mix": 0.6}
    assert methods.target_presets("mmrlpp", "imagenet_sketch", "domain_shift") == {"token_mix": 0.7}
    assert methods.target_presets("aligned_norm", "oxford_pets", "cross_dataset") == {}
