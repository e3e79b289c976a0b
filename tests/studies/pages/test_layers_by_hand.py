"""What dola_static measures of layers, settings and texts, on logits and rows made by hand."""

import dataclasses
import itertools
import types

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from test_pair import WORDS, small

from vlmlab import decode
from vlmlab.models.huggingface import LanguageModel
from vlmlab.models.vlm import VLM
from vlmlab.studies.pages import choosing, identities, language_lens, lens, written
from vlmlab.studies.pages import pair as pairs
from vlmlab.tasks.shapes import facts, scenes


def logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def softmax(row):
    row = np.asarray(row, dtype=float)
    return np.exp(row - row.max()) / np.exp(row - row.max()).sum()


def contrasted(final, early, alpha):
    """log p of the contrast by its definition."""
    q, p = softmax(final), softmax(early)
    ratio = np.where(q >= alpha * q.max() * (1 - 1e-6), np.log(q / p), -np.inf)
    return ratio - np.log(np.exp(ratio).sum())


def divergence(a, b):
    p, q = softmax(a), softmax(b)
    m = (p + q) / 2
    return (sum(p * np.log(p / m)) + sum(q * np.log(q / m))) / 2


X = logits(4, 6, 5) * 2  # (layer, position, word)
TRUE = torch.tensor([0, 1, 2, 3, 4, 0])
RIGHT = lambda chosen: chosen == TRUE


def test_numbers_of_layers_are_those_of_their_definitions():
    found, x = lens.numbers(X, RIGHT, 0.3), X.numpy()
    assert found["layer"].values.tolist() == [0, 1, 2]
    for layer, i in np.ndindex(3, 6):
        at = found.isel(layer=layer, position=i)
        choice = int(contrasted(x[3, i], x[layer, i], 0.3).argmax())
        p = softmax(x[layer, i])
        assert at["read"] == (p.argmax() == TRUE[i]) and at["contrasted"] == (choice == TRUE[i])
        assert at["changed"] == (choice != x[3, i].argmax())
        assert float(at["entropy"]) == pytest.approx(-sum(p * np.log(p)), abs=1e-4)
        assert float(at["divergence"]) == pytest.approx(divergence(x[3, i], x[layer, i]), abs=1e-4)
        q = softmax(x[3, i])
        assert at["kept"] == sum(q >= 0.3 * q.max()) and at["final"] == (q.argmax() == TRUE[i])
        assert float(at["final_entropy"]) == pytest.approx(-sum(q * np.log(q)), abs=1e-4)
    usual, plan = lens.numbers(X, RIGHT), lens.numbers(X, RIGHT, 0.1)
    assert usual.equals(plan) and not usual.equals(found)


def test_shares_by_threshold_and_layer():
    found, x = lens.strengths(X, RIGHT, (0, 0.3, 1.0)), X.numpy()
    assert found.dims == ("alpha", "layer") and found["alpha"].values.tolist() == [0, 0.3, 1.0]
    for alpha, layer in itertools.product((0, 0.3, 1.0), range(3)):
        hits = [contrasted(x[3, i], x[layer, i], alpha).argmax() == TRUE[i] for i in range(6)]
        assert float(found.sel(alpha=alpha, layer=layer)) == pytest.approx(100 * np.mean(hits))


def about(n=6):
    kinds = (["colour", "shape", "other"] * n)[:n]
    return pd.DataFrame(
        {"concept": list("aabbcc")[:n], "step": range(n), "id": TRUE[:n].tolist(), "kind": kinds}
    )


def test_positions_of_batches_stand_behind_each_other():
    batches = [(X[:, :4], about(4)), (X[:, 4:], about().iloc[4:].reset_index(drop=True))]
    found = lens.of_words(batches, 0.3)
    whole = lens.numbers(X, RIGHT, 0.3)
    assert all(np.allclose(found[name], whole[name], atol=1e-6) for name in whole)
    assert (
        found["concept"].values.tolist() == list("aabbcc")
        and found["kind"].values.tolist() == about()["kind"].tolist()
    )
    left = lens.kept(batches, (0.3, 1.0))
    assert [*left] == ["concept", "step", "kind", "alpha", "value"] and [*left.index] == list(range(12))
    assert left[left["alpha"] == 0.3]["value"].tolist() == whole["kept"].values.tolist()
    assert (left[left["alpha"] == 1.0]["value"] == 1).all()
    rows = lens.curves(
        found, "language", "pairs", ["read", "contrasted", "changed", "final", "entropy", "kept"]
    )
    at = rows.set_index(["metric", "layer", "concept"])["value"]
    for name, scale in (("read", 100), ("contrasted", 100), ("changed", 100), ("entropy", 1)):
        mean = whole[name].values[1, 2:4].mean()
        assert at[name, 1, "b"] == pytest.approx(scale * mean)
    assert at["final", 3, "a"] == pytest.approx(100 * whole["final"].values[:2].mean())
    assert at["kept", 3, "c"] == pytest.approx(whole["kept"].values[4:].mean())
    assert set(rows["tower"]) == {"language"} and set(rows["task"]) == {"pairs"} and len(rows) == 4 * 9 + 6
    assert [*rows] == ["layer", "concept", "value", "metric", "tower", "task"] and [*rows.index] == list(
        range(42)
    )


@pytest.mark.parametrize(
    ("word", "kind"),
    [(" Red", "colour"), ("circle", "shape"), ("circles", "shape"), ("two ", "number"), ("small", "size"), ("and", "other"), ("", "other")],
)  # fmt: skip
def test_kinds_of_words(word, kind):
    assert lens.kind(word) == kind


def test_candidates_that_are_left_at_a_scale():
    cosines = torch.tensor([[0.3, 0.2, 0.0], [0.1, 0.1, 0.1]])
    found = lens.left_at(cosines, [1.0, 20.0], 0.5)
    assert found.to_numpy().tolist() == [[1.0, 3.0], [20.0, 2.0]]  # exp(-2) is below a half
    assert lens.left_at(cosines, [20.0])["value"].tolist() == [2.5]  # and above a tenth


def test_prompts_of_one_length_run_together_and_end_at_their_answers():
    table = pd.DataFrame(
        {
            "prompt": ["a red", "a small red", "what is", "is there"],
            "answer": ["circle", "heart two", "there", "a"],
        }
    )
    found = list(lens.prompts(small().model, table.assign(kind=list("wxyz")), size=2))
    assert [about["prompt"].tolist() for _, about in found] == [
        ["a red", "what is"],
        ["is there"],
        ["a small red"],
    ]
    assert [x.shape[:2] for x, _ in found] == [(4, 2), (4, 1), (4, 1)]
    first = found[0][1]
    assert [*first] == ["prompt", "answer", "kind", "id", "concept", "step"] and [*found[1][1].index] == [0]
    assert (
        first["id"].tolist() == [WORDS.index("circle"), WORDS.index("there")] and (first["step"] == 0).all()
    )
    assert first["concept"].tolist() == first["prompt"].tolist()


def test_rows_of_captions_say_what_is_read_where():
    pair, found = small(), scenes(3, 11, "pairs", "test")
    images = [found.image(i) for i in range(3)]
    parts = list(lens.captions(pair, found, images, size=2))
    assert [about["concept"].nunique() for _, about in parts] == [2, 1]
    for i, id in enumerate(found.ids):
        rows = parts[i // 2][1]
        own = rows[rows["concept"] == id]
        assert own["step"].tolist() == list(range(len(own)))
        assert [WORDS[k] for k in own["id"]] == own["word"].tolist()
    cut = dataclasses.replace(pair)
    wide = lambda *args, **more: torch.zeros(4, 2, 3, len(WORDS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "layer_logits", wide)
        with pytest.raises(ValueError, match=r"small reads 3 positions of \d+ tokens"):
            next(iter(lens.captions(cut, found, images, size=2)))


# ----------------------------------------------------------------------------- both models


@pytest.fixture
def halves(monkeypatch):
    """Batches of two, where there are as many as 64."""
    monkeypatch.setattr(pairs, "BATCH", 2)


def test_scenes_of_each_side_are_seen_by_the_dual_tower():
    looked = []
    pair = types.SimpleNamespace(look=lambda images: looked.append(len(images)) or f"seen {len(looked)}")
    for side, seed in (("val", 12), ("test", 11)):
        found = pairs.scenes_of(pair, side, 3)
        assert [*found] == ["pairs", "many"]
        for kind, of in found.items():
            wanted = scenes(3, seed, kind, side)
            assert of.found.ids == wanted.ids and len(of) == 3
            assert all(np.array_equal(of.images[i], wanted.image(i)) for i in range(3))
    assert looked == [3] * 4 and of.seen == "seen 4"


def test_batches_change_nothing(halves):
    pair, found = small(), scenes(3, 11, "pairs", "test")
    images = [found.image(i) for i in range(3)]
    seen = pair.look(images)
    layers = range(pair.dual.image.depth + 1)
    whole = decode.candidate_logits(pair.dual, images, pairs.OBJECTS, layers, pair.template)
    assert seen.shape == (13, 3, 24) and torch.allclose(seen, whole, atol=1e-3)
    dola = decode.Dola(contrast_layer=1)
    texts = pair.write(images, dola, seen, max_new_tokens=4)
    assert texts == [
        pair.write([image], dola, seen[:, [i]], max_new_tokens=4)[0] for i, image in enumerate(images)
    ]
    assert all(len(text.split()) <= 4 and text == text.strip() for text in texts) and pair.depths == (3, 12)


@pytest.mark.parametrize(("pad", "end"), [(7, 7), (None, 2)])
def test_what_ends_a_caption(pad, end):
    tokenizer = types.SimpleNamespace(pad_token_id=pad, eos_token_id=2)
    pair = pairs.Pair(types.SimpleNamespace(tokenizer=tokenizer), None, "", "")
    assert pair.ends == {"do_sample": False, "max_new_tokens": 32, "pad_token_id": end}


def test_both_models_are_opened_by_name(monkeypatch):
    language, dual, asked = object.__new__(LanguageModel), object.__new__(VLM), []
    for made in (language, dual):
        torch.nn.Module.__init__(made)
    language.processor = types.SimpleNamespace(tokenizer=1)
    opened = {"writes": language, "sees": dual}
    monkeypatch.setattr(pairs, "load", lambda *args, **more: asked.append((args, more)) or opened[args[0]])
    found = pairs.open_pair("writes", "sees", question="what", template="the {}")
    assert (found.model, found.dual, found.question, found.template) == (language, dual, "what", "the {}")
    assert pairs.open_pair("writes", "sees", "w").template == "a {}"
    full = {"precision": "fp32"}
    assert asked == [(("writes",), full), (("sees", None), full), (("writes",), full), (("sees", "w"), full)]
    with pytest.raises(ValueError, match="model='sees' is no vision-language model"):
        pairs.open_pair("sees", "sees")
    with pytest.raises(ValueError, match="dual='writes' is no dual tower"):
        pairs.open_pair("writes", "writes")
    language.processor = None
    with pytest.raises(ValueError, match="model='writes' is no vision-language model"):
        pairs.open_pair("writes", "sees")


def test_new_tokens_begin_behind_the_prompt():
    inputs = {"input_ids": torch.tensor([[1, 2], [3, 4]])}
    whole, new = torch.tensor([[1, 2, 5], [3, 4, 6]]), torch.tensor([[5], [6]])
    assert pairs.new_tokens(whole, inputs).tolist() == [[5], [6]] == pairs.new_tokens(new, inputs).tolist()
    assert pairs.new_tokens(whole[:, :2], inputs).shape == (2, 0)
    assert pairs.new_tokens(whole + 1, inputs).tolist() == (whole + 1).tolist()


def test_the_layer_that_is_contrasted_is_that_of_the_settings():
    seen = logits(5, 2, len(pairs.OBJECTS), seed=1)
    for dola, layer, early in (
        (decode.Dola(image_contrast_layer=2, image_apc_threshold=0.3), 2, 2),
        (decode.Dola(), 3, 3),
        (decode.Dola(image=False), None, 0),
    ):
        found = pairs.candidates(seen, dola)
        assert found.layer == layer and found.names == pairs.OBJECTS
        assert torch.allclose(found.final.exp(), seen[-1].softmax(-1), atol=1e-5)
        if layer is not None:
            wanted = [contrasted(seen[-1, i], seen[early, i], dola.image_apc_threshold) for i in range(2)]
            assert found.log_p.numpy() == pytest.approx(np.array(wanted), abs=1e-4)


# ----------------------------------------------------------------------------- choices


def test_ways_of_decoding_differ_by_what_their_names_say():
    own = {
        "dola_vision": decode.Dola(language=False, fusion_strength=0.35, image_contrast_layer=3),
        "dola_language": decode.Dola(fusion_strength=0, contrast_layer=2, apc_threshold=0.05),
        "dola_joint": decode.Dola(contrast_layer=1, fusion_strength=1.0),
    }
    choices = {name: types.SimpleNamespace(of={"pairs": dola}.get) for name, dola in own.items()}
    dynamic = {"fusion_strength": 0, "apc_threshold": 0.05}
    assert choosing.variants(choices, "pairs") == own | {
        "greedy": decode.Dola(language=False, image=False, fusion_strength=0),
        "fusion_plain": decode.Dola(
            language=False, image=False, fusion_strength=0.35, image_contrast_layer=3
        ),
        "dola_joint_trie": decode.Dola(contrast_layer=1, fusion_strength=1.0, fusion="trie"),
        "dola_joint_plan": decode.Dola(),
        "dola_raw": decode.Dola(fusion_strength=0, contrast_layer=2, apc_threshold=0.05, readout="raw"),
        "dola_published": decode.Dola(**dynamic, layer_choice="published"),
        "dola_jsd": decode.Dola(**dynamic, layer_choice="jensen_shannon"),
    }


def test_each_family_varies_its_own_settings_above_no_fusion(tmp_path, monkeypatch):
    grids = {}

    def choose(score, val, grid, blocks, base):
        grids[len(grids)] = (grid, blocks, base)
        return decode.Choices(blocks=blocks, domains={"pairs": base}), pd.DataFrame({"score": [1.0]})

    monkeypatch.setattr(choosing, "scenes_of", lambda pair, side, count: (side, count))
    monkeypatch.setattr(decode, "choose", choose)
    monkeypatch.setattr(choosing, "key", lambda pair, count: f"key {count}")
    pair = types.SimpleNamespace(depths=(30, 24))
    choices, tried, file = choosing.chosen(pair, tmp_path, 4)
    layers, image = [22, 24, 26], [16, 18, 20, 22]
    alpha, strengths = [0.05, 0.1, 0.2], [0.35, 0.7, 1.0]
    both = {
        "contrast_layer": layers,
        "image_contrast_layer": image,
        "apc_threshold": alpha,
        "fusion_strength": strengths,
    }
    assert grids == {
        0: ({"image_contrast_layer": image, "fusion_strength": strengths}, 30, decode.Dola(language=False)),
        1: ({"contrast_layer": layers, "apc_threshold": alpha}, 30, decode.Dola(fusion_strength=0)),
        2: (both, 30, decode.Dola()),
    }
    assert tried["family"].tolist() == [*choices] == ["dola_vision", "dola_language", "dola_joint"]
    assert file == tmp_path / "dola_static/key 4/dola_joint.json" and [*tried] == ["score", "family"]


def test_choices_are_kept_apart_by_models_question_and_number():
    models = lambda name: types.SimpleNamespace(fingerprint=lambda: name)
    pair = pairs.Pair(models("m"), models("d"), "q", "t")
    others = [
        dataclasses.replace(pair, **{k: v})
        for k, v in (("model", models("x")), ("dual", models("x")), ("question", "x"), ("template", "x"))
    ]
    keys = [choosing.key(p, 4) for p in (pair, *others)] + [choosing.key(pair, 5)]
    assert len({*keys}) == 6 and choosing.key(pair, 4) == keys[0]


def test_a_sweep_has_a_row_for_every_value():
    asked = []
    write = lambda images, dola, seen: asked.append(dola) or ["a red circle"] * 2
    of = types.SimpleNamespace(images=[1, 2], seen=3, found=scenes(2, 0, "one", "test"))
    found = choosing.sweep(
        types.SimpleNamespace(write=write), of, decode.Dola(), "apc_threshold", [0.5, 0], "many"
    )
    assert asked == [decode.Dola(apc_threshold=0.5), decode.Dola(apc_threshold=0)]
    assert {*found} == {"concept", "metric", "value", "task", "setting", "x"} and {*found["task"]} == {"many"}
    assert (
        found["x"].unique().tolist() == [0.5, 0.0]
        and {*found["setting"]} == {"apc_threshold"}
        and len(found) == 32
    )
    assert [*found.index] == list(range(32))


def test_layers_at_the_same_share_and_those_outside_of_all_buckets():
    rows = [
        (t, m, v)
        for t, k in (("language", 1), ("vision", 2))
        for m, v in (("depth", 12 * k), ("bucket_1", 4 * k), ("bucket_2", 8 * k), ("bucket_3", 12 * k))
    ]
    plan = pd.DataFrame(rows, columns=["tower", "metric", "mean"])
    assert choosing.buckets(plan, "language", 6) == [(1, 2), (3, 4), (5, 5)]
    towers = pd.DataFrame(
        {"tower": ["language"] * 4 + ["vision"] * 3 + ["other"], "layer": [0, 2, 5, 6, 1, 3, 11, 1]}
    )
    found = choosing.in_buckets(towers, plan, {"language": 6, "vision": 3})
    assert found["bucket"].tolist() == [0, 1, 3, 0, 1, 0, 0, 0]


# ----------------------------------------------------------------------------- texts of scenes


def test_rates_and_f1_by_hand():
    rows = pd.DataFrame(
        [
            ("s", "objects", 2, 4, 1),
            ("t", "objects", 0, 2, 0),
            ("s", "counts", 3, 3, 3),
            ("t", "counts", 1, 1, 0),
        ],
        columns=["concept", "fact", "said", "shown", "right"],
    )
    found = written.rates(rows)
    assert [*found] == ["concept", "metric", "value"] and [*found.index] == list(range(8))
    assert found.to_numpy().tolist() == [
        ["s", "objects accuracy", 25.0],
        ["t", "objects accuracy", 0.0],
        ["s", "counts accuracy", 100.0],
        ["t", "counts accuracy", 0.0],
        ["s", "objects hallucinated", 50.0],
        ["t", "objects hallucinated", 0.0],
        ["s", "counts hallucinated", 0.0],
        ["t", "counts hallucinated", 100.0],
    ]
    assert written.f1(rows) == pytest.approx((200 * 1 / 8 + 200 * 3 / 8) / 2)


def test_facts_of_each_scene():
    found = scenes(2, 3, "many", "test")
    said = ["two red circles and a blue heart", found.texts[1]]
    rows = written.told(said, found)
    assert rows["fact"].tolist() == ["objects", "colours", "shapes", "counts"] * 2
    assert rows["concept"].tolist() == [found.ids[0]] * 4 + [found.ids[1]] * 4
    true = facts(found.texts[0])
    for row in rows[:4].itertuples():
        mine = facts(said[0])[row.fact]
        assert (row.said, row.shown, row.right) == (
            len(mine),
            len(true[row.fact]),
            len(mine & true[row.fact]),
        )


@pytest.mark.parametrize(
    ("effect", "low", "high", "lower", "words"),
    [
        (1, 0.5, 2, False, "helps"),
        (1, 0.5, 2, True, "hurts"),
        (-1, -2, -0.5, True, "helps"),
        (-1, -2, -0.5, False, "hurts"),
        (1, 0, 2, False, "neither"),
        (-1, -2, 0, True, "neither"),
    ],
)
def test_what_an_interval_shows(effect, low, high, lower, words):
    assert written.verdict(effect, low, high, lower).startswith(words)


def test_means_over_tasks_count_each_task_alike():
    rng = np.random.default_rng(0)
    large, little = rng.normal(0, 1, 200), rng.normal(10, 1, 50)
    rows = pd.DataFrame(
        {"task": ["l"] * 200 + ["m"] * 50, "concept": [*map(str, range(250))], "value": [*large, *little]}
    )
    found = written.drawn(rows)
    assert found["effect"] == pytest.approx((large.mean() + little.mean()) / 2)
    half = 1.96 * np.sqrt(large.var(ddof=1) / 200 + little.var(ddof=1) / 50) / 2
    assert (
        found["high"] - found["low"] == pytest.approx(2 * half, rel=0.15)
        and found["low"] < found["effect"] < found["high"]
    )
    both = pd.concat([rows.assign(method="a", x=1), rows.assign(method="b", x=1, value=rows["value"] - 2)])
    table = written.intervals(both, ["x", "method"])
    assert [*table] == ["x", "method", "effect", "low", "high"] and table["method"].tolist() == ["a", "b"]
    assert table.iloc[0, 2:].tolist() == pytest.approx([*found.values()])
    found = written.compared(both.drop(columns="x"), "a", "b")
    assert [*found.values()] == pytest.approx([2, 2, 2]) and written.compared(both, "b", "a")[
        "effect"
    ] == pytest.approx(-2)
    mean, spread = written.banded(both, "x", "method")
    assert mean.dims == ("x", "method") and spread.sel(
        {"bound": "high", "x": 1, "method": "b"}
    ).item() == pytest.approx(table["high"][1])
    assert spread.sel({"bound": "low", "x": 1, "method": "a"}).item() == pytest.approx(table["low"][0])


# ----------------------------------------------------------------------------- ways back, and what stands in


def test_distributions_that_must_be_equal_by_hand():
    x = X.numpy()
    found = identities.distributions(X, decode.Dola(contrast_layer=1, apc_threshold=0.2))
    own = np.array([softmax(row) for row in x[3]])
    assert found["uniform_early"] < 1e-5 and found["beam_scores"] < 1e-5
    assert found["own_early"] == pytest.approx(np.abs(0.2 - own).max(), abs=1e-5)  # uniform over five words
    kept = own >= 0.2 * own.max(1, keepdims=True)
    early = np.array([softmax(row) for row in x[1]])
    assert found["unnormalised"] == pytest.approx(np.mean(np.log((kept * own / early).sum(1))), abs=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "count"), [([[1, 2]], [[1, 2]], 0), ([[1, 2]], [[1, 3]], 1), ([[1, 2], [3, 4]], [[1], [4]], 3), ([[1]], [[1, 5, 6]], 2)]
)  # fmt: skip
def test_tokens_that_differ(a, b, count):
    assert identities.differ(torch.tensor(a), torch.tensor(b)) == count


def test_what_must_not_be_there_is_counted():
    pair, of = small(), logits(13, 2, len(pairs.OBJECTS), seed=2)
    x = logits(4, 2, len(WORDS), seed=3)
    assert identities.structure(pair, x, of) == {"pooling_heads": 0, "not_finite": 0}
    PoolingHead = type("PoolingHead", (torch.nn.Module,), {})
    TextTransformer = type("OwnTextTransformer", (torch.nn.Module,), {})
    own = torch.nn.ModuleList([PoolingHead(), TextTransformer(), torch.nn.Linear(1, 1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identities, "module_of", lambda model: own)
        assert identities.structure(pair, x, of)["pooling_heads"] == 2
    broken = x.clone()
    broken[1, 0] = torch.nan
    # five thresholds, each of its own contrast and in four strengths of the fusion, of one layer and row
    assert identities.structure(pair, broken, of)["not_finite"] == 5 * (1 + 4) * len(WORDS)


def test_shares_are_weighed_by_the_size_of_their_batches():
    batches = [(X[:, :5], about(5)), (X[:, 5:], about().iloc[5:].reset_index(drop=True))]
    raw = [(x[:, :, torch.arange(4, -1, -1)], rows) for x, rows in batches]
    found = language_lens.Found("n", 3, "told", lambda readout: batches if readout == "normed" else raw)
    normed, other, grid, kept = language_lens.measured(found, 0.3, (0.0, 0.3))
    assert grid.values == pytest.approx(lens.strengths(X, RIGHT, (0.0, 0.3)).values)
    assert normed.equals(lens.of_words(batches, 0.3)) and other.equals(lens.of_words(raw, 0.3))
    assert kept["alpha"].tolist() == [0.0] * 5 + [0.3] * 5 + [0.0, 0.3] and [*kept.index] == list(range(12))


def test_a_real_model_reads_sentences_and_another_stands_in(monkeypatch):
    model = types.SimpleNamespace(package="p 1.0", language=[1, 2, 3])
    monkeypatch.setattr(language_lens, "load", lambda name: model)
    monkeypatch.setattr(lens, "prompts", lambda *given: given)
    monkeypatch.setattr(language_lens, "PACKAGES", {"there": types.SimpleNamespace(lacking=[])})
    for name in ("there", "own"):
        found = language_lens.opened(name, "m", "d", "", "q", 5)
        assert (found.name, found.depth) == (name, 3) and found.told.startswith(
            f"{name} is installed (p 1.0): 5 sentences"
        )
        real, table, readout = found.batches("raw")
        assert real is model and readout == "raw" and len(table) == 5 and table["prompt"].is_unique
    model.package = ""
    assert "(a model of your own)" in language_lens.opened("own", "m", "d", "", "q", 5).told
    monkeypatch.setattr(language_lens, "PACKAGES", {"away": types.SimpleNamespace(lacking=["p", "q"])})
    monkeypatch.setattr(language_lens, "open_pair", lambda *given: given)
    monkeypatch.setattr(language_lens, "of_scenes", lambda *given: given)
    assert language_lens.opened("away", "m", "d", "w", "q", 5) == (
        "away",
        ["p", "q"],
        ("m", "d", "w", "q"),
        5,
    )


def test_captions_that_stand_in_have_words_of_scenes_alone(monkeypatch):
    pair, counts = types.SimpleNamespace(model=types.SimpleNamespace(name="small"), depths=(3, 12)), []
    scenes = type("S", (), {"found": "f", "images": "i", "__len__": lambda self: 2})()
    monkeypatch.setattr(
        language_lens,
        "scenes_of",
        lambda pair, side, count: counts.append((side, count)) or {"pairs": scenes},
    )
    monkeypatch.setattr(
        lens, "captions", lambda *given: [(X, about())] if given == (pair, "f", "i", "raw") else []
    )
    found, _ = (language_lens.of_scenes("big", ["p", "q"], pair, count) for count in (8, 3))
    assert counts == [("test", 2), ("test", 1)] and (found.name, found.depth) == ("small", 3)
    assert found.told.startswith("big needs p, q, not installed; small reads captions of 2 scenes")
    ((x, rows),) = found.batches("raw")
    assert (
        torch.equal(x, X[:, [0, 1, 3, 4]])
        and rows["kind"].tolist() == ["colour", "shape"] * 2
        and [*rows.index] == [0, 1, 2, 3]
    )


def test_an_object_is_right_where_the_scene_has_it():
    found = scenes(4, 11, "many", "test")
    seen = logits(3, 4, len(pairs.OBJECTS), seed=5)
    of = pairs.Scenes(found, [None] * 4, seen)
    wanted = xr.zeros_like(lens.of_candidates(of)["read"])
    for layer, i in np.ndindex(2, 4):
        name = pairs.OBJECTS[int(seen[layer, i].argmax())]
        wanted[layer, i] = float(name in facts(found.texts[i])["objects"])
    got = lens.of_candidates(of, 0.2)
    assert (got["read"] == wanted).all() and got["concept"].values.tolist() == found.ids
    kept = [sum(softmax(row) >= 0.2 * softmax(row).max()) for row in seen[-1]]
    assert got["kept"].values.tolist() == kept
