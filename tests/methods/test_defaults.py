"""What a method does when nothing is said: the values of its paper or of the authors' code, and what is legal."""

import dataclasses

import pytest

from vlmlab import methods, registry

MMRL = {
    "first_block": 6,
    "tokens": 5,
    "rep_dim": 512,
    "prompt_weight": 0.3,
}  # alpha = 0.7 of the class branch
MMRLPP = MMRL | {"rank": 4, "proj_rank": 64, "token_mix": 0.9, "anchor_weight": 0.2}  # of ImageNet
LAFTER = {
    **{"tokens": 50, "descriptions": None, "noise": 0.1, "smoothing": 0.1, "labels": "pseudo"},
    **{"teacher": "drifting", "student": "raw", "norms": "all", "w_class": 1.0, "w_distribution": 0.0},
    "epochs": 50,
}
CONFIGS = {
    "zero_shot": {},
    "linear_probe": {},
    "coop": {"tokens": 4, "class_position": "end", "class_specific": False},
    "maple": {"tokens": 2, "depth": 9, "half_prompts": True},
    "promptsrc": {
        **{"tokens": 4, "depth": 9, "image_tokens": None, "image_depth": None},
        **{"w_text": 25.0, "w_image": 10.0, "w_logits": 1.0, "gpa_mean": 15.0, "gpa_std": 1.0, "epochs": 20},
    },
    "hicropl": {
        **{"tokens": 16, "depth": 12, "cross_layer": 6, "anchor_weight": 12.0},
        **{"mode": "faithful", "descriptions": None},
    },
    "mmrl": MMRL | {"anchor_weight": 0.5},
    "mmrlpp": MMRLPP,
    "aligned_norm": MMRLPP | {"w_proj": 0.005, "w_token": 0.005, "norm_loss": "l1"},
    "lafter": LAFTER,
    "lafter_nga": LAFTER
    | {"stages": "6-8,9-11,12", "tokens": 16, "placement": "replace", "sharing": "separate"}
    | {"start": "uniform", "aggregate": "gaussian", "sigma": 1.0, "flow": "onward", "fusion": "softmax"}
    | {"last_stage": 2.0, "classifiers": "shared", "readout": "ln_post", "norms": "inner"}
    | {"w_consistency": 0.0, "w_distill": 0.0, "epochs": 8},
}
DASSL = {
    **{"epochs": 10, "batch_size": 4, "lr": 1e-3, "weight_decay": 5e-4, "optimiser": "adamw"},
    **{"warmup_epochs": 1, "crop": (0.5, 1.0), "max_steps": None, "eps": 1e-8},
}
SCRIPTS = {
    **{"epochs": 50, "batch_size": 50, "lr": 5e-4, "weight_decay": 0.01, "text_steps": 400, "text_lr": 5e-4},
    **{"crop": (0.2, 1.0), "max_steps": None},
}
PLAN = {"epochs": 8, "lr": 1e-4, "nga_lr": 1e-5, "order": "deepest_first"}
PLAN |= {"warmup_epochs": 2, "unfreeze_epochs": 1, "warmup_lr": 1e-4}
OPTIONS = {"promptsrc": DASSL | {"epochs": 20}, "lafter": SCRIPTS, "lafter_nga": SCRIPTS | PLAN}


@pytest.mark.parametrize("name", methods.names())
def test_defaults_are_those_of_the_paper(name):
    config, options = registry.settings(name, {})
    assert dataclasses.asdict(config) == dataclasses.asdict(methods.find(name).Config()) == CONFIGS[name]
    assert dataclasses.asdict(options) == OPTIONS.get(name, DASSL)
    given = dataclasses.asdict(methods.find(name).Options())
    assert given | {"epochs": 0} == OPTIONS.get(name, DASSL) | {"epochs": 0}
    assert given["epochs"] == {"lafter": 50, "lafter_nga": 8}.get(name, 10)


@pytest.mark.parametrize("name", ["mmrl", "mmrlpp", "aligned_norm"])
def test_defaults_of_its_family_are_what_the_papers_set_for_imagenet(name):
    preset = methods.presets(name, "imagenet")
    assert {k: CONFIGS[name][k] for k in preset.keys() & CONFIGS[name].keys()} == {
        k: v for k, v in preset.items() if k in CONFIGS[name]
    }


# method, setting -> what is just legal, what is just not
BORDERS = {
    ("mmrlpp", "epochs"): ((1, 100_000), (0, 100_001)),
    ("mmrlpp", "lr"): ((0, 1e9), (-1e-9, 1e9 + 0.5)),
    ("mmrlpp", "batch_size"): ((1,), (0,)),
    ("mmrlpp", "crop"): (((1e-9, 1e-9), (1.0, 1.0)), ((0.0, 1.0), (0.5, 0.4), (0.5, 1.5), (-0.5, 1.0))),
    ("lafter", "crop"): (((0.1, 0.1),), ((0.0, 1.0), (0.5, 0.4))),
    ("lafter", "smoothing"): ((0, 1), (-1e-9, 1.5)),
    ("lafter", "noise"): ((0,), (-1e-9,)),
    ("lafter_nga", "sigma"): ((1e-4, 1e4), (0.99e-4, 1e4 + 0.5)),
    ("lafter_nga", "warmup_epochs"): ((0,), (-1,)),
    ("lafter_nga", "unfreeze_epochs"): ((1,), (0,)),
}


@pytest.mark.parametrize("at", BORDERS, ids=".".join)
def test_borders_of_settings(at):
    (name, setting), (legal, illegal) = at, BORDERS[at]
    for value in legal:
        given = registry.settings(name, {setting: value})
        assert value in [getattr(x, setting) for x in given if hasattr(x, setting)]
    for value in illegal:
        with pytest.raises(ValueError, match=f"^{setting} "):
            registry.settings(name, {setting: value})


@pytest.mark.parametrize(
    ("weights", "fits"),
    [((1, 0), True), ((0, 1), True), ((1, 1), True), ((0, 0), False)],
)
def test_lafter_needs_one_of_its_losses(weights, fits):
    given = dict(zip(("w_class", "w_distribution"), weights))
    if fits:
        assert registry.configure("lafter", given).w_class == weights[0]
    else:
        with pytest.raises(ValueError, match="nothing is left to learn from images"):
            registry.configure("lafter", given)


def test_what_the_room_offers():
    assert dir(methods) == sorted(methods.__all__) and {"build", "presets", "Method"} <= {*dir(methods)}
    assert methods.names() == sorted(CONFIGS)
