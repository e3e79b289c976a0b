"""A name looks the same in every figure, and names drawn together can be told apart, also without colour."""

import itertools

import pytest

from vlmlab import plots
from vlmlab.names_and_colours import NAMES, PALETTE, light

STUDIES = {
    "prompts": "zero_shot linear_probe coop maple promptsrc hicropl mmrl mmrlpp aligned_norm",
    "lafter": "zero_shot cascade_clip lafter nga lafter_nga",
    "ablation": "zero_shot linear_probe lafter lafter_nga_single lafter_nga_cascade lafter_nga_nga lafter_nga_both",
    "orders": "joint deepest_first front_first",
    "distillation": "teacher zero_shot kd fitnet promptkd c2kd llava_kd clip_kd cmapkd",
    "decoding": "greedy dola dola_static fusion",
    "levels": "P2 P3 P4 P5",
    "roles": "cls prompt patch register",
}


@pytest.mark.parametrize("names", STUDIES.values(), ids=STUDIES)
def test_within_a_study_colours_differ(names):
    look = plots.looks(names.split())
    assert len({one["color"] for one in look.values()}) == len(look)


@pytest.mark.parametrize("names", STUDIES.values(), ids=STUDIES)
def test_print_without_colour_still_tells_apart(names):
    look = plots.looks(names.split())
    assert len({(one["marker"], one["linestyle"]) for one in look.values()}) == len(look)


def test_a_known_name_keeps_its_colour_whatever_stands_beside_it():
    alone = plots.looks(["mmrlpp"])["mmrlpp"]
    assert plots.looks(["something", "aligned_norm", "mmrlpp"])["mmrlpp"] == alone
    assert plots.colour("mmrlpp") == alone["color"] == "#d55e00"


def test_a_variant_has_the_colour_of_its_method_and_another_marker():
    a, b = plots.looks(["mmrlpp", "mmrlpp_unified"]).values()
    assert a["color"] == b["color"] and a["marker"] != b["marker"] and a["linestyle"] != b["linestyle"]


def test_controls_of_distillation_differ_by_more_than_colour():
    look = plots.looks(["zero_shot", "finetune", "scratch", "random_init"])
    for a, b in itertools.combinations(look.values(), 2):
        assert (a["marker"], a["linestyle"]) != (b["marker"], b["linestyle"])


def test_unknown_names_are_coloured_by_rule_and_do_not_collide():
    names = [f"loss {i}" for i in range(len(PALETTE))]
    look = plots.looks(names)
    assert look == plots.looks(list(names)) and {one["color"] for one in look.values()} == {*PALETTE}
    assert plots.colour("loss 3") == plots.looks(["loss 3"])["loss 3"]["color"]
    assert len({plots.colour(f"loss {i}") for i in range(30)}) > 4
    beside = plots.looks(["aligned_norm", *names[:8]])
    assert len({one["color"] for one in beside.values()}) == 9


def test_a_hex_colour_and_black_are_themselves():
    assert plots.colour("#123456") == "#123456" and plots.colour("black") == "#000000"


def test_label_prints_known_names_and_leaves_others():
    assert plots.label("mmrlpp") == "MMRL++" and plots.label("my method") == "my method"
    assert all(printed and not printed.startswith("_") for printed, *_ in NAMES.values())


def test_label_of_an_embedded_task_is_its_subject():
    assert plots.label("emoji/food") == "food" and plots.label("emoji/food, noise") == "food, noise"
    assert plots.label("attention / share") == "attention / share"


def test_label_of_own_images_is_no_path():
    for id in ("folder:trees", "folder:~/data/trees/", "table:/home/me/trees"):
        assert plots.label(id) == "trees"
    assert plots.label("mine:Method") == "mine:Method"


def test_light_keeps_the_hue_and_stays_apart_from_white():
    assert light("#000000") == "#808080" and light("#ffffff") == "#ffffff"
    for colour in PALETTE:
        red, green, blue = (int(light(colour)[i : i + 2], 16) for i in (1, 3, 5))
        assert min(red, green, blue) < 225 and light(colour) not in PALETTE
