"""Difficulty of pairs, likeness of levels and types of scenes against sums by hand and against SciPy."""

import io
import itertools
import types

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from PIL import Image

import vlmlab
from vlmlab.studies.pages import difficulty, pyramids, scene_types
from vlmlab.tasks.captions import Captions
from vlmlab.tasks.shapes import tasks as shape_tasks

VISION, LANGUAGE = ("P2", "P3", "P4", "P5"), ("L1", "L2", "L3", "L4")


def pairs(texts, image_of, **about):
    ids = [str(i) for i in range(max(image_of) + 1)]
    reading = {"read": lambda id, rng=None: Image.new("RGB", (8, 8)), "content": str.encode}
    return Captions(ids, tuple(texts), np.array(image_of), **reading | about)


def log_p(row):
    return [x - np.log(sum(np.exp(row))) for x in row]


def rank(row, right):
    """Mean over all orders of tied items of where the first right one stands."""
    orders = [sorted(order, key=lambda i: -row[i]) for order in itertools.permutations(range(len(row)))]
    return np.mean([1 + min(order.index(i) for i in right) for order in orders])


def test_difficulties_are_those_of_their_definitions():
    texts, image_of = ["a", "b", "c", "a", "d"], [0, 0, 1, 2, 2]
    test = pairs(texts, image_of)
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 3, 5)).round(1)
    teacher[:, 3] = teacher[:, 0]  # the same text
    teacher[1, 2] = teacher[1, 4]  # a tie
    found = difficulty.difficulties(test, teacher, student)
    own = [{texts[j] for j in range(5) if image_of[j] == i} for i in range(3)]
    right = [[j for j in range(5) if texts[j] in own[i]] for i in range(3)]
    shown = [[i for i in range(3) if j in right[i]] for j in range(5)]
    for i in range(3):
        mine = [j for j in range(5) if image_of[j] == i]
        t, s = log_p(teacher[i]), log_p(student[i])
        of_text = [-np.log(sum(np.exp(log_p(teacher[:, j])[k]) for k in shown[j])) for j in mine]
        loss = -np.log(sum(np.exp(t[j]) for j in right[i])) + np.mean(of_text)
        ranks = np.log2(rank(teacher[i], right[i])) + np.mean(
            [np.log2(rank(teacher[:, j], shown[j])) for j in mine]
        )
        assert found["loss"][i] == pytest.approx(loss / 2) and found["rank"][i] == pytest.approx(ranks / 2)
        assert found["gap"][i] == pytest.approx(sum(np.exp(a) * (a - b) for a, b in zip(t, s)))
    assert list(found) == list(difficulty.NAMES) and len({*difficulty.NAMES.values()}) == 4


def test_what_is_to_be_seen_is_counted_or_compressed():
    masks = {"0": [[[1, 1, 0, 0]]], "1": [[[1, 0, 0, 0]], [[0, 1, 1, 1]]], "2": [[[1, 0, 0, 0]]]}
    shows = (("x",), ("x", "y"), ("x",))
    test = pairs("abc", [0, 1, 2], shows=shows, mask_of=lambda id: np.array(masks[id], dtype=bool))
    assert difficulty.scene(test).tolist() == [1.5, 2.75, 1.75]
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    assert difficulty.scene(pairs("ab", [0, 1])).tolist() == [len(file.getvalue())] * 2


def test_ranks_share_and_end_at_one():
    assert difficulty.shares(np.array([3.0, 1, 2, 2])).tolist() == [1, 0, 0.5, 0.5]
    assert difficulty.shares(np.array([5.0])).tolist() == [0]


def test_spearman_has_the_interval_and_the_p_of_its_draws():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 25))
    y = y + 0.5 * x
    found = difficulty.spearman(x, y, draws=300, seed=3)
    ranks = [scipy.stats.rankdata(v) for v in (x, y)]
    at = np.random.default_rng(3).integers(0, 25, (300, 25))
    drawn = [np.corrcoef(ranks[0][i], ranks[1][i])[0, 1] for i in at]
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))
    exact = scipy.stats.spearmanr(x, y)
    assert found["rho"] == pytest.approx(exact.statistic) and found["p"] == pytest.approx(
        exact.pvalue, abs=0.05
    )
    assert (
        difficulty.spearman(x, x, draws=99)["p"]
        == pytest.approx(0.01)
        == difficulty.spearman(x, -x, draws=99)["p"]
    )
    assert difficulty.spearman(x, x) == {"rho": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1),
                                         "p": pytest.approx(1 / 1001)}  # fmt: skip
    assert difficulty.spearman(x, np.ones(25)) == {"rho": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert difficulty.spearman(x, y) == difficulty.spearman(x, y, 1000, 0)


def test_correlations_are_row_by_row():
    a, b = np.random.default_rng(2).normal(size=(2, 3, 7))
    found = difficulty.correlation(a, b)
    assert found == pytest.approx([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)])


def test_weights_by_tenths_have_the_band_of_their_means():
    rng = np.random.default_rng(3)
    hard, weights = rng.permutation(400.0 * np.arange(400)), rng.normal(size=(400, 2))
    found = difficulty.deciles(hard, weights, count=4)
    assert found[["decile", "level"]].to_numpy().tolist() == [[d, k] for d in (1, 2, 3, 4) for k in (0, 1)]
    order = np.argsort(hard)
    for row in found.itertuples():
        own = weights[order[100 * (row.decile - 1) : 100 * row.decile], row.level]
        assert row.mean == pytest.approx(own.mean(), abs=0.03)  # the shares of ranks end at 1
        assert row.high - row.low == pytest.approx(2 * 1.96 * own.std() / 10, rel=0.2)
    ten = difficulty.deciles(np.arange(40.0), np.full((40, 1), 0.25))
    assert ten["decile"].tolist() == list(range(1, 11)) and (ten[["mean", "low", "high"]] == 0.25).all(
        axis=None
    )


def test_each_source_of_weights_is_asked_about_each_measure():
    n = 30
    up = np.arange(n) / n
    level = lambda *values: np.stack([np.broadcast_to(v, n) for v in values], axis=1)
    sides = lambda vision: np.stack([vision, vision[:, ::-1]], axis=1)
    found = types.SimpleNamespace(
        weights=sides(level(up, 0, 0, 1 - up)),
        losses=sides(level(up, 1, 1, 1)),  # the larger the loss, the smaller the weight
        shuffled=sides(level(0, up, 0, 0)),
        alone=sides(level(0, 0, up, 0)),
    )
    rows = pd.DataFrame(difficulty.associations({"one": up, "two": -up}, found, 0.5))
    assert (
        set(rows) == {"measure", "source", "level", "agreement", "value", "low", "high", "p"}
        and len(rows) == 64
    )
    wide = rows.pivot_table("value", ["measure", "source"], "level")
    expected = {
        "ALSN": [1, 0, 0, -1],
        "losses alone": [-1, 1, 1, 1],
        "other pairs": [0, 1, 0, 0],
        "untrained ALSN": [0, 0, 1, 0],
    }
    for source, values in expected.items():
        assert wide.loc[("one", source), [*VISION]].tolist() == pytest.approx(values)
        assert wide.loc[("one", source), [*LANGUAGE]].tolist() == pytest.approx(values[::-1])
        assert wide.loc[("two", source), [*VISION]].tolist() == pytest.approx([-v for v in values])
    wanted = np.exp(-found.losses / 0.5) / np.exp(-found.losses / 0.5).sum(-1, keepdims=True)
    assert rows["agreement"].unique() == pytest.approx([np.abs(found.weights - wanted).mean()])


def test_curves_are_over_the_pairs_of_all_seeds():
    up = np.arange(20.0)
    flat = np.stack([np.full((20, 4), 0.25), np.tile([0.1, 0.2, 0.3, 0.4], (20, 1))], axis=1)
    weighed = [({"loss": up, "gap": -up}, flat), ({"loss": 100 * up, "gap": -up}, flat)]
    mean, band = difficulty.curves(weighed, "loss", LANGUAGE)
    assert mean.sizes == {"decile": 10, "level": 4} and mean["level"].values.tolist() == list(LANGUAGE)
    assert np.allclose(mean, [0.1, 0.2, 0.3, 0.4]) and band["bound"].values.tolist() == ["low", "high"]
    assert all(np.allclose(band.sel(bound=b), mean.transpose("decile", "level")) for b in ("low", "high"))
    sloped = np.stack([np.stack([up] * 4, axis=1)] * 2, axis=1)
    mean, band = difficulty.curves([({"loss": up}, sloped), ({"loss": -up}, sloped)], "loss", VISION)
    assert mean["level"].values.tolist() == list(VISION) and np.allclose(mean, 9.5)  # easy here, hard there
    assert (band.sel(bound="low") < mean).all() and (mean < band.sel(bound="high")).all()


def test_galleries_are_those_of_the_teacher_and_of_the_student_as_given():
    tiny, scenes = vlmlab.load("tiny", device="cpu"), shape_tasks.scenes(3)
    learner = vlmlab.registry.build("kd", {"student": tiny, "teacher": tiny})
    with torch.no_grad():
        for p in learner.student.parameters():
            p.zero_()
        pixels = torch.stack([tiny.preprocess(scenes.image(i)) for i in range(3)])
        unit = torch.nn.functional.normalize
        cosines = unit(tiny.encode_image(pixels), dim=1) @ unit(tiny.encode_text(list(scenes.texts)), dim=1).T
        wanted = (float(tiny.logit_scale) * cosines).numpy()
    for found in difficulty.galleries(learner, scenes):
        assert found == pytest.approx(wanted, abs=1e-3)


# ----------------------------------------------------------------------------- levels


def side(maps, language):
    vision = np.stack([m.mean((2, 3)) for m in maps], axis=1)
    return pyramids.Side(tuple(maps), vision, language, vision[:, -1], language[:, -1])


def unit(x):
    return x / np.linalg.norm(x)


def test_the_best_place_of_a_map_answers_a_text():
    rng = np.random.default_rng(4)
    maps = [rng.normal(size=(5, 3, n, n + 1)) for n in (3, 2, 2, 1)]
    of = side(maps, rng.normal(size=(5, 4, 3)))
    for count in (4, 200):
        found, n = pyramids.crossed(of, count), min(count, 5)
        for i, j in itertools.product(range(4), range(4)):
            z = []
            for a in range(n):
                places = [maps[i][a, :, r, c] for r, c in np.ndindex(maps[i].shape[2:])]
                s = [max(unit(p) @ unit(of.language[b, j]) for p in places) for b in range(n)]
                rest = np.delete(s, a)
                z.append((s[a] - rest.mean()) / rest.std(ddof=1))
            assert found[i, j] == pytest.approx(np.mean(z))
    scaled = pyramids.attention(of, 2, 7.0)
    places = maps[1][2].reshape(3, -1).T
    logits = [7 * max(unit(p) @ unit(of.language[2, j]) for p in places) for j in range(4)]
    assert scaled.sel(vision="P3").values == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    rows = pd.DataFrame(pyramids.crossed_rows(of, 4, seed=3))
    z = rows[rows["measure"] == "z"].pivot_table("value", "vision", "language")
    assert z.loc[[*VISION], [*LANGUAGE]].to_numpy() == pytest.approx(pyramids.crossed(of, 4))
    last = rows[rows["measure"] != "z"].set_index("measure")
    assert last["value"].to_dict() == dict(zip(("diagonal", "p"), pyramids.diagonal(pyramids.crossed(of, 4))))
    assert (
        (rows["seed"] == 3).all() and (last[["vision", "language"]] == "").all(axis=None) and len(rows) == 18
    )


def test_a_diagonal_is_compared_with_all_orders():
    z = np.array([[4.0, 1, 1, 1], [1, 3, 1, 1], [1, 1, 2, 1], [1, 1, 1, 1]])
    gain, p = pyramids.diagonal(z)
    assert gain == pytest.approx(10 / 4 - 1) and p == pytest.approx(1 / 24)
    assert pyramids.diagonal(np.ones((4, 4))) == (0, 1)
    assert pyramids.diagonal(z[:, [1, 0, 2, 3]])[1] > 2 / 24


def test_likeness_tells_the_student_from_the_teacher():
    rng = np.random.default_rng(5)
    student, teacher = rng.normal(size=(2, 24, 4, 6))
    teacher[:, 2] = 2 * student[:, 1]
    found = pyramids.alike(student, teacher)
    assert float(found["cka"].sel(student="P3", teacher="P4")) == pytest.approx(1, abs=1e-4)
    assert float(found["cka"].sel(student="P4", teacher="P3")) < 0.9 and found["cka"].dims == (
        "student",
        "teacher",
    )
    cosine = [np.mean([unit(a) @ unit(b) for a, b in zip(student[:, k], teacher[:, k])]) for k in range(4)]
    assert found["cosine"] == pytest.approx(cosine)
    near = []
    for x in (student[:, 0], teacher[:, 0]):
        s = np.array([[unit(a) @ unit(b) for b in x] for a in x]) - 9 * np.eye(24)
        near.append([{*np.argsort(-row)[:10]} for row in s])
    assert found["neighbours"][0] == pytest.approx(np.mean([len(a & b) / 10 for a, b in zip(*near)]))
    assert pyramids.mutual(student[:5, 0], teacher[:5, 0]) == 1  # all others are neighbours
    rows = pd.DataFrame(pyramids.evidence(student, teacher, seed=2))
    assert (rows["seed"] == 2).all() and rows.groupby("measure").size().to_dict() == {
        "CKA": 4,
        "CKA with another": 12,
        "cosine": 4,
        "neighbours": 4,
    }
    at = rows.set_index(["measure", "level", "other"])["value"]
    assert at["CKA with another", "P3", "P4"] == pytest.approx(1, abs=1e-4)
    assert at["CKA", "P2", "P2"] == pytest.approx(float(found["cka"].sel(student="P2", teacher="P2")))
    assert at["cosine", "P4", "P4"] == pytest.approx(cosine[2])


def test_levels_of_several_models_stand_below_each_other():
    a, b = np.arange(1, 25.0).reshape(2, 4, 3), np.arange(1, 13.0).reshape(1, 4, 3)
    found = pyramids.stacked({"one": a, "two": b})
    assert found.dims == ("sample", "feature") and found.sizes == {"sample": 12, "feature": 3}
    assert found["model"].values.tolist() == ["one"] * 8 + ["two"] * 4
    assert found["level"].values.tolist() == [k for k in VISION for _ in range(2)] + list(VISION)
    assert found.values[3] == pytest.approx(unit(a[1, 1])) and found.values[-1] == pytest.approx(
        unit(b[0, 3])
    )


def test_images_are_taken_evenly():
    test = pairs("abcde", [0, 1, 2, 3, 4])
    assert pyramids.some(test, 3).ids == ["0", "2", "4"] and pyramids.some(test, 9).ids == list("01234")


# ----------------------------------------------------------------------------- types of scenes

COUNTED = ("no", "one", "two", "three", "four")


def counted(*scenes):
    """Each: (area, number of shapes of this kind) of its kinds, on pictures of 100 pixels."""
    kinds = "circle square heart".split()
    shows, masks = [], {}
    for i, parts in enumerate(scenes):
        shows.append(tuple(f"{COUNTED[n]} red {kinds[k]}" for k, (_, n) in enumerate(parts)))
        masks[str(i)] = np.stack([np.arange(100).reshape(10, 10) < area for area, _ in parts])
    return pairs(
        [f"text {i}" for i in range(len(scenes))], range(len(scenes)), shows=tuple(shows), mask_of=masks.get
    )


RULED = [
    ((8, 1),),  # 0: aside
    ((8, 1),),  # 1: simple
    ((7, 1),),
    ((9, 2),),
    ((9, 2),),  # 4: aside
    ((3, 1), (9, 1)),  # 5: fine-grained
    ((4, 1), (9, 1)),
    ((9, 2), (3, 1)),  # 7: fine-grained
    ((9, 2), (9, 2)),  # 8: aside
    ((9, 2), (9, 1), (9, 1)),  # 9: complex
    ((9, 2), (9, 2)),
    ((3, 1),),
    ((9, 2), (9, 2)),  # 12: aside
    ((3, 1), (9, 1), (9, 1)),  # 13: fine-grained
    ((9, 1), (9, 1), (9, 1)),
]


def test_types_are_told_by_number_kinds_and_size():
    found = scene_types.chosen(counted(*RULED))
    assert {name: of.ids for name, of in found.items()} == {
        "simple": ["1"],
        "complex": ["9"],
        "fine-grained": ["5", "7", "13"],
        "abstract": ["0", "4", "8", "12"],
    }
    assert found["abstract"].texts == ("one shape", "two shapes", "four shapes", "four shapes")
    assert found["abstract"].image_of.tolist() == [0, 1, 2, 3] and found["simple"].texts == ("text 1",)
    for kind, at in (("simple", 1), ("complex", 9)):
        without = [parts for i, parts in enumerate(RULED) if i != at]
        if kind == "simple":
            without = [((2, 1),), ((2, 1),), *without[1:]]
        with pytest.raises(ValueError, match=rf"is {kind} \({scene_types.RULES[kind]}\); give more scenes"):
            scene_types.chosen(counted(*without[: 15 if kind == "simple" else 9]))
    test = counted(*RULED)
    for other in (pairs("ab", [0, 1]), counted(((8, 1),))):
        object.__setattr__(other, "shows", (("red circle",),) if other.mask_of else None)
        with pytest.raises(ValueError, match="use shapes/many"):
            scene_types.chosen(other)
    assert scene_types.RULES["simple"] == "one shape, on 8% of the picture or more" and len(test) == 15


def test_weights_as_rows_and_as_bands():
    weights = np.arange(16.0).reshape(2, 2, 4)
    rows = scene_types.long(weights, type="simple", seed=3)
    assert rows.iloc[5].to_dict() == {
        "type": "simple",
        "seed": 3,
        "sample": "simple 0",
        "level": "L2",
        "value": 5.0,
    }
    assert (
        len(rows) == 16
        and rows.iloc[8].to_dict()["sample"] == "simple 1"
        and rows["value"].tolist() == list(range(16))
    )
    values = {
        ("P2", "x"): [0, 0, 0, 100],
        ("P2", "y"): [1, 2, 3, 4],
        ("P3", "x"): [5, 5],
        ("P3", "y"): [7, 8],
    }
    values |= {("L1", "x"): [1], ("L1", "y"): [1]}
    rows = pd.DataFrame(
        [{"level": k, "type": t, "value": float(v)} for (k, t), vs in values.items() for v in vs]
    )
    mean, band = scene_types.bands(rows, ("P3", "P2"))
    assert mean.sel(level="P2").to_series().to_dict() == {"x": 25, "y": 2.5} and mean[
        "level"
    ].values.tolist() == ["P3", "P2"]
    assert mean["type"].values.tolist() == ["x", "y"] and band["bound"].values.tolist() == ["low", "high"]
    assert band.sel(level="P2", type="y").values.tolist() == [1.75, 3.25]
    assert band.sel(level="P2", type="x").values.tolist() == [0, 25]  # a band holds its mean


def test_differences_are_those_of_kruskal_and_wallis_with_holms_correction():
    rng = np.random.default_rng(6)
    values = {
        level: {t: rng.normal(size=12) + step * k for k, t in enumerate(("x", "y", "z"))}
        for level, step in (("P2", 0.2), ("P3", 2.0), ("P4", 1.0), ("P5", 0.9))
    }
    values["L1"] = {t: np.full(12, 0.25) for t in ("x", "y", "z")}
    rows = [
        {"level": k, "type": t, "value": v} for k, of in values.items() for t, vs in of.items() for v in vs
    ]
    found = scene_types.differences(pd.DataFrame(rows))
    assert found["level"].tolist() == list(values)
    exact = [scipy.stats.kruskal(*values[k].values()) for k in ("P2", "P3", "P4", "P5")]
    assert found["H"].tolist() == pytest.approx([*(e.statistic for e in exact), 0])
    p = [*(e.pvalue for e in exact), 1]
    assert found["p"].tolist() == pytest.approx(p)
    corrected = [
        max(min(1, sum(q >= p[j] for q in p) * p[j]) for j in range(5) if p[j] <= p[i]) for i in range(5)
    ]
    assert found["corrected"].tolist() == pytest.approx(corrected)
    assert scene_types.medoid(np.array([[[0.0], [1.0]], [[1.0], [1.0]], [[2.0], [1.0]], [[9.0], [9.0]]])) == 1
