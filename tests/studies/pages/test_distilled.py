"""What is read off students of cmapkd: how they are drawn, how they score elsewhere, what they cost, how their loss moved."""

import csv
import types

import numpy as np
import pandas as pd
import pytest
import torch

import vlmlab
from vlmlab.distill.pyramid import LEVELS
from vlmlab.paths import data_dir
from vlmlab.studies.pages import costs, diagrams, distilled, pyramids
from vlmlab.tasks.captions import Captions
from vlmlab.tasks.shapes import tasks as shape_tasks

SIZES = {"channels": 8, "sizes": [9, 4, 2, 1]}


@pytest.fixture(scope="module")
def tiny():
    return vlmlab.load("tiny", device="cpu")


def learner_of(tiny, **settings):
    return vlmlab.registry.build("cmapkd", {"student": tiny, "teacher": tiny}, **SIZES | settings)


@pytest.fixture(scope="module")
def learner(tiny):
    return learner_of(tiny)


def millions(*modules) -> float:
    return sum(p.numel() for m in modules for p in m.parameters()) / 1e6


# ----------------------------------------------------------------------------- drawings


def test_the_drawing_of_a_learner_has_all_of_it(learner):
    boxes, links = diagrams.overview(learner)
    at = boxes.set_index("name")
    for top, role in ((0, "teacher"), (3, "student")):
        assert at.loc[role, ["column", "row", "group"]].tolist() == [0, top + 0.5, role]
        for k, (kind, what) in enumerate((("image", "pyramid"), ("text", "hierarchy"))):
            assert at.loc[f"{role} {kind}", ["column", "row", "group"]].tolist() == [1, top + k, role]
            assert at.loc[f"{role} {what}", ["column", "row", "group"]].tolist() == [2, top + k, role]
            for link in ((role, f"{role} {kind}"), (f"{role} {kind}", f"{role} {what}")):
                assert link in links
    whole = f"{millions(learner.student):.2f} M"
    assert at.loc["teacher", "text"] == f"teacher\ntiny\n{whole}, frozen"
    assert at.loc["student", "text"] == f"student\ntiny\n{whole}, trains wholly"
    assert at.loc["student image", "text"] == "image tower\n8x8 patches\n12 blocks of width 128"
    assert at.loc["student text", "text"] == "text tower\n12 blocks of width 128"
    parts = learner.builder.vision, learner.builder.language
    pyramid, hierarchy = (f"{1e3 * millions(part):.0f} k" for part in parts)
    assert at.loc["teacher pyramid", "text"] == f"pyramid P2-P5\n{pyramid}"
    assert at.loc["student hierarchy", "text"] == f"hierarchy L1-L4\n{hierarchy}"
    assert at.loc["weights", "text"] == f"ALSN\n{millions(learner.alsn):.2f} M\nfrom P5, L4 of teacher"
    assert at.loc["weights", ["column", "row", "group"]].tolist() == [3, 2, "cmapkd"]
    terms = at[at["group"] == "kd"]
    assert terms["text"].to_dict() == {
        "intra_v": "levels of images\nx 1",
        "intra_l": "levels of texts\nx 1",
        "align_single": "P5 with L4\nx 0.5",
        "align_pyr": "all pairs of levels\nx 0.25",
        "rel_sample": "relations of samples\nx 0.3",
        "rel_layer": "relations of levels\nx 0.09",
        "task": "CLIP's loss, deployed\nx 0.1",
    }
    assert (terms["column"] == 4).all() and terms["row"].mean() == pytest.approx(2)  # in the middle
    assert np.diff(terms["row"]) == pytest.approx([0.85] * 6)
    read = [("teacher pyramid", "weights"), ("teacher hierarchy", "weights")]
    assert links[-4:] == [*read, ("weights", "intra_v"), ("weights", "intra_l")] and len(links) == 12
    known = {*diagrams.WEIGHTS, "alsn", "prefit_pairs", "prefit_decoder"}
    assert {*diagrams.NAMES} == known and len({*diagrams.NAMES.values()}) == len(known)


@pytest.mark.parametrize("inputs, roles", [("student", ["student"]), ("both", ["teacher", "student"])])
def test_who_is_read_by_the_weighing_and_terms_without_weight(tiny, inputs, roles):
    boxes, links = diagrams.overview(
        learner_of(tiny, alsn_inputs=inputs, w_rel=0.0, w_intra=2.0, w_align_pyr=3.0)
    )
    at = boxes.set_index("name")["text"]
    assert at["weights"].endswith(f"of {' and '.join(roles)}")
    assert [a for a, b in links if b == "weights"] == [
        f"{r} {w}" for r in roles for w in ("pyramid", "hierarchy")
    ]
    assert not {"rel_sample", "rel_layer"} & {*at.index} and at["align_pyr"].endswith("x 1.5")


def test_levels_without_weights_of_their_own_and_without_learnt_parts(tiny):
    own = {
        "teacher_basis": "regress",
        "w_align": 0.0,
        "w_rel_layer": 0.0,
        "weights": "uniform",
        "w_intra": 0.0,
    }
    boxes, links = diagrams.overview(learner_of(tiny, **own))
    assert boxes.set_index("name").loc["weights", "text"] == "uniform weights"
    assert "weights" not in {name for link in links for name in link}
    assert boxes.set_index("name").loc["teacher pyramid", "text"] == "pyramid P2-P5\n0 k"


def test_sizes_in_words():
    sized = lambda n: diagrams.size(torch.nn.Linear(n, 1, bias=False))
    assert [sized(n) for n in (99_400, 100_000, 1_234_000)] == ["99 k", "0.10 M", "1.23 M"]


def test_the_pyramid_and_the_hierarchy_are_drawn_deepest_on_top(tiny, learner):
    boxes, links = diagrams.pyramid(learner)
    above = "8 ch.\n+ the level above,\n3x3 convolution"
    assert boxes[boxes["column"] == 1][["name", "row", "text", "group"]].to_numpy().tolist() == [
        ["P2", 3, f"P2: 9x9, {above}", "cmapkd"],
        ["P3", 2, f"P3: 4x4, {above}", "cmapkd"],
        ["P4", 1, f"P4: 2x2, {above}", "cmapkd"],
        ["P5", 0, "P5: 1x1, 8 ch.\npooled", "cmapkd"],
    ]
    taps = boxes[boxes["column"] == 0]
    assert taps["name"].tolist() == [f"block {b}" for b in (3, 6, 9, 12)] and taps["row"].tolist() == [
        3,
        2,
        1,
        0,
    ]
    assert taps["text"].iloc[0] == "behind block 3\n1x1 convolution" and {*taps["group"]} == {"student"}
    top_down = {("P3", "P2"), ("P4", "P3"), ("P5", "P4")}
    assert {*links} == top_down | {(f"block {3 * (k + 1)}", level) for k, level in enumerate(LEVELS)}
    for literal, how in (
        ((), ("mean of words", "phrases of three", "pooled words", "the token read")),
        (("language",), ("mean with padding", "across the batch", "across the batch", "token 0")),
    ):
        boxes, links = diagrams.hierarchy(learner_of(tiny, literal=literal) if literal else learner)
        levels = boxes[boxes["column"] == 1]
        assert levels["text"].tolist() == [f"L{k}: 8 ch.\n{text}" for k, text in enumerate(how, 1)]
        assert levels["row"].tolist() == [3, 2, 1, 0] and {*levels["group"]} == {"cmapkd"}
        blocks = boxes[boxes["column"] == 0]
        assert blocks["text"].tolist() == [f"behind block {b}" for b in (3, 6, 9, 12)]
        assert blocks["row"].tolist() == [3, 2, 1, 0] and {*blocks["group"]} == {"student"}
        assert links == [(f"block {3 * k}", f"L{k}") for k in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {},
            "coarse 5 (P5, student), medium 4 (P4-P5, student), warm_all 1 (P2-P5, student), alsn 5 (P2-P5, ALSN), "
            "fine 10 (P2-P5, student + ALSN)",
        ),
        (
            {"weights": "uniform", "warm_all": False},
            "coarse 5 (P5, student), medium 5 (P4-P5, student), fine 15 (P2-P5, student)",
        ),
        ({"schedule": "one_stage"}, "joint 25 (P2-P5, student + ALSN)"),
    ],
)
def test_a_schedule_in_a_line(settings, told):
    config = vlmlab.registry.configure(vlmlab.registry.find("cmapkd"), settings)
    assert diagrams.schedule(config) == told


# ----------------------------------------------------------------------------- what runs hold


def test_the_levels_that_a_learner_holds(tiny):
    scenes, own = shape_tasks.scenes(5), learner_of(tiny)
    with torch.no_grad():
        for p in own.alsn.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    found = pyramids.seen(own, scenes)
    for side in (found.student, found.teacher):
        assert [m.shape[1:] for m in side.maps] == [(8, n, n) for n in (9, 4, 2, 1)]
        assert side.vision.shape == (5, 4, 8) == side.language.shape and side.vision.dtype == np.float32
        assert np.linalg.norm(side.image, axis=1) == pytest.approx(1) == np.linalg.norm(side.text, axis=1)
    texts = [scenes.texts[at[0]] for at in scenes.texts_of]
    with torch.no_grad():
        text = torch.nn.functional.normalize(tiny.encode_text(texts), dim=1).numpy()
    assert found.student.text == pytest.approx(text, abs=1e-4) and found.teacher.text == pytest.approx(
        text, abs=1e-4
    )
    batch = next(iter(pyramids.batches(own, scenes)))
    assert batch["text"] == texts and torch.equal(batch["image"], batch["teacher_image"])
    with torch.no_grad():
        s, t = own.levels(batch), own.teacher_levels(batch)
        assert found.weights == pytest.approx(own.weights(s, t).numpy(), abs=1e-5)
        assert found.losses == pytest.approx(own.costs(s, t).numpy(), rel=1e-3, abs=1e-5)
    assert found.weights.shape == (5, 2, 4) and found.weights.sum(-1) == pytest.approx(1)
    assert np.abs(found.weights - found.alone).max() > 1e-3  # that of a fresh one is another
    assert sorted(found.shuffled[:, 0, 0]) == sorted(found.weights[:, 0, 0])
    assert (found.shuffled != found.weights).any()
    fresh = pyramids.before(own)
    assert fresh.teacher_builder is own.teacher_builder and fresh.config == own.config
    same, other = (pyramids.before(own, seed) for seed in (0, 1))
    first = [next(iter(x.builder.parameters())) for x in (fresh, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2]) and not fresh.training
    with pytest.raises(ValueError, match="weights='uniform'"):
        pyramids.seen(learner_of(tiny, weights="uniform"), scenes)


def test_pairs_of_levels_that_are_matched_in_the_last_stage(tiny):
    for how, value in (("diagonal", np.eye(4)), ("uniform", np.full((4, 4), 1 / 4))):
        found = pyramids.compatibility(learner_of(tiny, compatibility=how))
        off = ~np.eye(4, dtype=bool)
        if how == "diagonal":
            assert (np.diag(found) > found.values.max(where=off, initial=0)).all()
        else:
            assert np.ptp(found.values) < 1e-6
        assert value.shape == found.shape and [*found["vision"].values] == ["P2", "P3", "P4", "P5"]
        assert [*found["language"].values] == ["L1", "L2", "L3", "L4"]


def test_the_settings_of_a_run():
    info = {"job": {"method": "cmapkd"}, "config": {"channels": 8}}
    found = distilled.config(types.SimpleNamespace(info=info))
    assert type(found) is vlmlab.registry.find("cmapkd").Config and found.channels == 8


def test_names_are_those_of_the_study_in_its_order():
    with (data_dir() / "published/cmapkd/methods.csv").open(encoding="utf-8") as file:
        rows = [(row["id"], row["name"]) for row in csv.DictReader(file)]
    assert list(distilled.names("cmapkd").items()) == rows


def scores(*lines) -> pd.DataFrame:
    columns = ["method", "name", "task", "split", "seed", "metric", "value"]
    return pd.DataFrame(lines, columns=columns).assign(rule="unified")


def test_numbers_by_seed_are_called_by_the_run():
    frame = scores(
        ("kd", "kd_x", "t", "val", 1, "i2t R@1", 1.0),
        ("kd", "kd_x", "t", "test", 1, "i2t R@1", 2.0),
        ("kd", "kd_x", "t", "test", 2, "mean rank", 3.0),
        ("kd", "kd", "u", "test", 2, "i2t R@5", 4.0),
    )
    columns = ["method", "task", "split", "seed", "metric", "value"]
    found = distilled.by_seed(frame, ["i2t R@1", "i2t R@5"])
    assert [*found] == columns and [*found.index] == [0, 1]
    assert found.to_numpy().tolist() == [
        ["kd_x", "t", "test", 1, "i2t R@1", 2.0],
        ["kd", "u", "test", 2, "i2t R@5", 4.0],
    ]
    assert distilled.by_seed(frame, ["i2t R@1"], "val")["value"].tolist() == [1.0]


def test_questions_are_those_of_the_heads_as_ten_people_answered_or_one():
    lines = [
        ("vqa_head", "vqa_head_kd", "v", "test", 1, "exact_match", 10.0),
        ("vqa_head", "vqa_head_kd", "v", "test", 1, "exact_match number", 20.0),
        ("vqa_head", "vqa_head_kd", "v", "val", 1, "exact_match", 30.0),
        ("kd", "kd", "v", "test", 1, "exact_match", 40.0),
    ]
    found = distilled.questions(scores(*lines))
    assert [*found] == ["method", "task", "split", "seed", "metric", "value"] and [*found.index] == [0, 1]
    assert found[["method", "metric", "value"]].to_numpy().tolist() == [
        ["kd", "vqa", 10.0],
        ["kd", "vqa number", 20.0],
    ]
    both = scores(*lines, ("vqa_head", "vqa_head_kd", "v", "test", 1, "vqa_accuracy other", 50.0))
    assert distilled.questions(both)[["metric", "value"]].to_numpy().tolist() == [["vqa other", 50.0]]


def test_unseen_classes_and_captions_are_scored_image_by_image(monkeypatch):
    classes = vlmlab.task("emoji/activities", protocol="zero_shot")
    some = next(iter(classes.tests.values())).select(range(3))
    read = {"read": lambda id, rng=None: None, "content": str.encode, "concept": lambda id: f"of {id}"}
    pairs = Captions(["x", "y"], ("a", "b", "c"), np.array([0, 0, 1]), **read)
    logits = np.zeros((3, len(some.classnames)))
    logits[[0, 1, 2], some.labels] = (1, -1, 1)
    similarity = np.array([[0.0, 2, 1], [5, 0, 1]])
    asked = []

    def answers(score, learner, test, rules):
        asked.append((score.__name__.rpartition(".")[2], learner, rules))
        return {"unified": logits if test is some else similarity}

    monkeypatch.setattr(distilled, "answers", answers)
    rows = distilled.elsewhere("a student", {"emoji": some, "drawn": pairs}, seed=4)
    assert asked == [
        ("classification", "a student", {"unified": None}),
        ("retrieval", "a student", {"unified": None}),
    ]
    assert [(r["task"], r["metric"], r["value"]) for r in rows] == [
        *(("emoji", "top-1", v) for v in (100, 0, 100)),
        ("drawn", "i2t R@1", 100),
        ("drawn", "i2t R@1", 0),
    ]
    assert {(r["seed"], r["split"]) for r in rows} == {(4, "test")}
    assert [r["concept"] for r in rows] == [
        *(f"emoji {some.concept(i)}" for i in some.ids),
        "drawn of x",
        "drawn of y",
    ]


@pytest.mark.parametrize(
    ("lengths", "stage", "steps"),
    [
        ({"prefit": 50, "a": 3, "b": 9, "c": 9}, "c", 3),
        ({"a": 30, "b": 9}, "a", 8),
        ({"a": 2, "b": 1}, "a", 1),
        ({"a": 24}, "a", 8),
        ({"a": 23}, "a", 7),
    ],
)
def test_the_longest_stage_is_asked_again_on_its_first_steps(monkeypatch, lengths, stage, steps):
    log = pd.DataFrame(
        [{"stage": s, "loss": 100.0 if i >= steps else 4.0 + i} for s, n in lengths.items() for i in range(n)]
    )
    monkeypatch.setattr(
        distilled, "again", lambda run, task, name, count: np.full(count, 2.0 if name == stage else -1)
    )
    before = np.mean([4.0 + i for i in range(steps)])
    found = distilled.change(types.SimpleNamespace(metrics=log), None, seed=7)
    assert found == {"seed": 7, "stage": stage, "value": pytest.approx(100 * (2 / before - 1))}


def test_shares_are_kept_where_they_were_measured():
    columns = {"loss": 1.0, "share_a": [0.5, None, 1.0], "share_b": [0.5, None, None], "share_c": 0.0}
    log = pd.DataFrame({"method": "m", "seed": 3, "stage": ["x", "x", "y"], **columns})
    found = distilled.shares(log)
    assert [*found] == ["method", "seed", "stage", "step", "term", "value"] and [*found.index] == [0, 1, 2]
    assert found.to_numpy().tolist() == [
        ["m", 3, "x", 0, "a", 0.5],
        ["m", 3, "y", 2, "a", 1.0],
        ["m", 3, "x", 0, "b", 0.5],
    ]


# ----------------------------------------------------------------------------- costs


def test_parameters_that_are_deployed_and_those_for_training_alone(tiny, learner):
    towers = vlmlab.measures.parameters(tiny).to_series() / 1e6
    parts = [learner.builder, learner.teacher_builder, learner.alsn, learner.decoders]
    found = distilled.sizes(learner)
    assert found["image_million"] == towers["image"] and found["text_million"] == towers["text"]
    assert found["deployed_million"] == pytest.approx(towers["image"] + towers["text"])
    assert found["training_million"] == pytest.approx(millions(*parts) + 1e-6)  # and the scale of pairs
    prompts = vlmlab.registry.build("promptkd", {"student": tiny, "teacher": tiny}, depth=2, tokens=3)
    extra = 2 * 3 * 128 / 1e6 + millions(prompts.projector)
    found = distilled.sizes(prompts)
    assert found["image_million"] == pytest.approx(towers["image"] + extra) and found["training_million"] == 0
    assert found["text_million"] == pytest.approx(towers["text"])
    assert found["deployed_million"] == pytest.approx(towers["image"] + extra + towers["text"])


def test_texts_of_promptkd_are_those_of_its_teacher(tiny):
    teacher = vlmlab.load("tiny", device="cpu")
    with torch.no_grad():
        next(iter(teacher.clip.transformer.parameters())).mul_(1.5)
    scenes = shape_tasks.scenes(3)
    for method in ("promptkd", "kd"):
        settings = {"depth": 2, "tokens": 2} if method == "promptkd" else {}
        own = vlmlab.registry.build(method, {"student": tiny, "teacher": teacher}, **settings)
        calls, pixels = distilled.deployed(own, scenes, 2)
        texts = [scenes.texts[at[0]] for at in scenes.texts_of][:2]
        with torch.no_grad():
            for kind, wanted in (("image", own.encode_image(pixels)), ("text", own.encode_text(texts))):
                one, many = (call() for call in calls[kind])
                assert torch.allclose(one, wanted[:1], atol=1e-4) and torch.allclose(many, wanted, atol=1e-4)


def test_the_closed_form_counts_every_product(tiny):
    found, joint = distilled.closed_form(tiny), tiny.encode_text(["a"]).shape[1]
    for kind, tokens, more in (
        ("image", 8 * 8 + 1, 64 * (8 * 8 * 3) * 128),  # 64 patches of 8 x 8 pixels in three colours
        ("text", tiny.tokenize(["a"]).shape[1], 0),
    ):
        one = 4 * tokens * 128 * 128 + 2 * tokens * 128 * 512 + 2 * tokens * tokens * 128
        assert found[f"{kind}_gflop"] == pytest.approx(2 * (12 * one + more + 128 * joint) / 1e9, rel=1e-12)


def test_columns_of_the_table_of_costs():
    rows = pd.DataFrame({"method": "kd", "metric": [*distilled.COSTS], "kind": "measured", "mean": 12.34567})
    rows = rows.assign(**dict.fromkeys(("median", "q1", "q3", "sd"), np.nan), n=1, note="")
    table = costs.printed(rows, distilled.COSTS, {"kd": "KD"})
    assert table.iloc[0].to_dict() == {
        "image tower, M": "12.35",
        "text tower, M": "12.35",
        "deployed, M": "12.35",
        "for training, M": "12.35",
        "GFLOP an image": "12.346",
        "GFLOP a text": "12.346",
        "an image, ms": "12.35",
        "a text, ms": "12.35",
        "in a batch, ms": "12.35",
        "memory, MiB": "12.3",
        "image to text R@1": "12.3",
    }


def test_what_is_measured_of_costs_is_printed():
    committed = pd.read_csv(data_dir().parent / "figures/cmapkd/table5.csv")
    compared = {"image_over_teacher"}  # a ratio that a claim reads
    assert set(committed["metric"]) - compared == set(distilled.COSTS)
