"""What is read off runs of cmapkd: similarity across modalities, difficulty, types of scenes, shares of the gradient."""

import numpy as np
import pandas as pd
import pytest

import vlmlab
from vlmlab.studies.pages import difficulty, distilled, pyramids, scene_types
from vlmlab.tasks import shapes
from vlmlab.tasks.captions import Captions
from vlmlab.tasks.shapes import tasks as shape_tasks


def side(vision, language):
    """A `Side` whose maps have one place."""
    maps = tuple(vision[:, k, :, None, None] for k in range(4))
    return pyramids.Side(maps, vision, language, vision[:, -1], language[:, -1])


def test_levels_that_hold_the_same_answer_each_other():
    rng = np.random.default_rng(0)
    vision = rng.normal(size=(60, 4, 16))
    z = pyramids.crossed(side(vision, vision + 0.1 * rng.normal(size=vision.shape)))
    gain, p = pyramids.diagonal(z)
    assert z.shape == (4, 4) and gain > 2 and p == pytest.approx(1 / 24)
    swapped = pyramids.crossed(side(vision, vision[:, [1, 0, 3, 2]]))
    assert np.argmax(swapped, axis=1).tolist() == [1, 0, 3, 2] and pyramids.diagonal(swapped)[0] < 0
    null = pyramids.crossed(side(vision, rng.normal(size=vision.shape)))
    assert abs(null).max() < 1


def test_the_z_score_is_that_of_the_definition():
    rng = np.random.default_rng(1)
    of = side(rng.normal(size=(6, 4, 5)), rng.normal(size=(6, 4, 5)))
    unit = lambda x: x / np.linalg.norm(x)
    found = []
    for i in range(6):
        s = [unit(of.vision[i, 1]) @ unit(of.language[j, 2]) for j in range(6)]
        rest = np.delete(s, i)
        found.append((s[i] - rest.mean()) / rest.std(ddof=1))
    assert pyramids.crossed(of)[1, 2] == pytest.approx(np.mean(found))


def test_alike_is_one_for_equal_and_less_for_others():
    x = np.random.default_rng(2).normal(size=(40, 4, 8))
    same = pyramids.alike(x, x)
    assert np.allclose(np.diag(same["cka"]), 1, atol=1e-4)
    assert np.allclose(same["neighbours"], 1) and np.allclose(same["cosine"], 1)
    other = pyramids.alike(x, np.random.default_rng(3).normal(size=x.shape))
    assert (other["neighbours"] < 0.5).all() and (np.abs(other["cosine"]) < 0.3).all()


def pairs(texts, **about):
    reading = {"read": lambda id, rng=None: None, "content": str.encode}
    return Captions(
        [str(i) for i in range(len(texts))], tuple(texts), np.arange(len(texts)), **reading, **about
    )


def test_difficulties_of_a_perfect_teacher_and_of_one_that_mixes_two_up():
    masks = {"0": [[[1, 0]]], "1": [[[1, 1]]], "2": [[[1, 0]], [[0, 1]]]}
    test = pairs(
        ["a", "b", "c"],
        shows=(("x",), ("x",), ("x", "y")),
        mask_of=lambda id: np.array(masks[id], dtype=bool),
    )
    sure = 50 * np.eye(3)
    mixed = sure[[0, 2, 1]]
    easy, hard = (difficulty.difficulties(test, x, sure) for x in (sure, mixed))
    assert np.allclose(easy["loss"], 0) and np.allclose(easy["rank"], 0) and np.allclose(easy["gap"], 0)
    assert hard["loss"][0] == pytest.approx(0) and (hard["loss"][1:] > 10).all()
    assert hard["rank"][0] == 0 and (hard["rank"][1:] > 0.9).all() and (hard["gap"][1:] > 10).all()
    assert np.argsort(easy["scene"]).tolist() == [1, 0, 2]


def test_equal_texts_are_each_others_right_ones():
    test = pairs(["a", "a", "b"])
    test = Captions(
        test.ids, test.texts, test.image_of, read=lambda id, rng=None: picture(), content=str.encode
    )
    found = difficulty.difficulties(
        test, 50 * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]), np.zeros((3, 3))
    )
    assert np.allclose(found["loss"], 0, atol=1e-6) and np.allclose(found["rank"], 0)


def picture():
    from PIL import Image

    return Image.new("RGB", (8, 8))


def test_spearman_is_scipys_and_shuffling_finds_nothing():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(4)
    x = rng.normal(size=80)
    y = x + rng.normal(size=80)
    found = difficulty.spearman(x, y)
    assert found["rho"] == pytest.approx(spearmanr(x, y).statistic) and found["p"] < 0.01
    assert found["low"] < found["rho"] < found["high"] and found["low"] > 0
    assert difficulty.spearman(np.ones(80), y) == {"rho": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert difficulty.spearman(rng.permutation(x), y)["p"] > 0.01


def test_weights_by_losses_alone_and_by_tenths():
    losses = np.array([[[0.1, 0.2, 0.3, 0.4]] * 2])
    w = difficulty.predicted(losses, 0.1)
    assert np.allclose(w, np.exp(-losses / 0.1) / np.exp(-losses / 0.1).sum(-1, keepdims=True))
    hard = np.arange(100.0)
    weights = np.stack([hard / 100, 1 - hard / 100], axis=1)
    found = difficulty.deciles(hard, weights)
    first = found[found["level"] == 0]
    assert first["decile"].tolist() == list(range(1, 11)) and first["mean"].is_monotonic_increasing
    assert (found["low"] <= found["mean"]).all() and (found["mean"] <= found["high"]).all()


def test_types_are_told_by_what_is_there():
    test = shape_tasks.scenes(200, 2, "many", "test")
    found = scene_types.chosen(test)
    ids = [id for of in found.values() for id in of.ids]
    assert [*found] == [*scene_types.RULES] and len(ids) == len({*ids})
    assert all(len(of) > 5 for of in found.values())
    assert all(len(shapes.composition.scene(id).things) == 1 for id in found["simple"].ids)
    assert all(len(shapes.composition.scene(id).things) == 4 for id in found["complex"].ids)
    for id, text in zip(found["abstract"].ids, found["abstract"].texts, strict=True):
        n = len(shapes.composition.scene(id).things)
        assert text == f"{shapes.texts.NUMBERS[n]} shape{'s' * (n > 1)}"
    with pytest.raises(ValueError, match="use shapes/many"):
        scene_types.chosen(pairs(["a"]))


def test_differences_of_types_are_corrected_by_holm():
    rng = np.random.default_rng(5)
    rows = [
        {"level": level, "type": kind, "value": rng.normal() + (level == "P2") * 5 * (kind == "simple")}
        for level in ("P2", "P3", "P4")
        for kind in ("simple", "complex")
        for _ in range(20)
    ]
    found = scene_types.differences(pd.DataFrame(rows)).set_index("level")
    assert found.loc["P2", "corrected"] == pytest.approx(3 * found.loc["P2", "p"])
    assert found.loc["P2", "corrected"] < 0.001
    assert (found["corrected"] >= found["p"]).all()
    assert scene_types.medoid(np.array([[0.0], [1.0], [1.1], [5.0]])) in (1, 2)


def test_shares_of_a_log():
    log = pd.DataFrame(
        {
            "method": "cmapkd",
            "seed": 1,
            "stage": ["a"] * 3 + ["b"] * 6,
            "loss": [9.0, 9, 9, 4, 4, 3, 3, 2, 2],
            "share_task": [None, None, 0.5, None, None, 0.2, None, None, None],
            "share_alsn": [None, None, 0.0, None, None, 0.0, None, None, None],
        }
    )
    found = distilled.shares(log)
    assert found[["step", "term", "value"]].values.tolist() == [[2, "task", 0.5], [5, "task", 0.2]]
    with pytest.raises(ValueError, match="watch=10"):
        distilled.shares(log[["method", "seed", "stage", "loss"]])


@pytest.mark.parametrize("method", ["finetune", "cmapkd"])
def test_a_loss_is_asked_again_on_the_pairs_of_then(tmp_path, method):
    tiny, task = vlmlab.load("tiny", device="cpu"), vlmlab.task("emoji/scenes", protocol="retrieval", seed=1)
    sizes = {"channels": 8, "sizes": [8, 4, 2, 1], "prefit": 5} if method == "cmapkd" else {}
    models = {"student": tiny, "teacher": tiny} if method == "cmapkd" else {"student": tiny}
    given = {"batch_size": 4, "max_steps": 6, "out": tmp_path, "seed": 1} | sizes
    still = vlmlab.fit(method, models, task, lr=1e-12, **given)
    stage = distilled.change(still, task)["stage"]
    log = still.metrics.query("stage == @stage")["loss"].to_numpy()
    assert distilled.again(still, task, stage, len(log)) == pytest.approx(log, rel=2e-3)
    moved = distilled.change(vlmlab.fit(method, models, task, lr=1e-4, **given), task, method=method)
    assert moved["value"] < -0.5 and moved["method"] == method


def test_sizes_and_arithmetic_of_what_is_deployed():
    tiny = vlmlab.load("tiny", device="cpu")
    learner = vlmlab.registry.build("untrained", {"student": tiny})
    found = distilled.sizes(learner)
    assert found["training_million"] == 0
    whole = sum(p.numel() for p in tiny.parameters()) / 1e6
    assert found["deployed_million"] == pytest.approx(whole, rel=1e-3)
    scenes = shape_tasks.scenes(2)
    calls, pixels = distilled.deployed(learner, scenes, 2)
    formula = distilled.closed_form(tiny)
    for kind, (one, _) in calls.items():
        counted = vlmlab.measures.flops(one).sum().item() / 1e9
        assert counted == pytest.approx(formula[f"{kind}_gflop"], rel=0.02)
    assert pixels.shape == (2, 3, 64, 64)
