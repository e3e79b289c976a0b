"""Settings with their limits, and the choice of layers and strengths offline, by domain, in a file."""

import json

import numpy as np
import pytest
import torch

from vlmlab.decode import Choices, Dola, choose, contrast, generate, layer_logits, usual_grid

GRID = {"contrast_layer": [0, 1, 2], "apc_threshold": [0.05, 0.3], "fusion_strength": [0.0, 0.7]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"apc_threshold": 1.5}, r"apc_threshold must be a number from 0 to 1; it is 1.5"),
        ({"image_apc_threshold": "0.1"}, r"image_apc_threshold must be a number from 0 to 1; it is '0.1'"),
        ({"contrast_layer": -1}, r"contrast_layer must be a whole number from 0"),
        ({"fusion_strength": float("nan")}, r"fusion_strength must be a number from 0 to 100; it is nan"),
        ({"readout": "norm"}, r"readout must be one of normed, raw, uniform; it is 'norm'"),
        ({"fusion": "sum"}, r"fusion must be one of lift, trie"),
        ({"top_candidates": 0}, r"top_candidates must be a whole number above 0"),
        ({"language": 1}, r"language must be true or false; it is 1"),
        ({"layers": (1, 2)}, r"layers are for layer_choice="),
        (
            {"layers": (), "layer_choice": "published"},
            r"layers must be a list of whole numbers from 0, not empty",
        ),
        ({"contrast_layer": 2, "layer_choice": "published"}, r"contrast_layer is for layer_choice="),
    ],
)
def test_settings_have_limits(given, message):
    with pytest.raises(ValueError, match=message):
        Dola(**given)


def test_defaults_are_the_plans():
    dola = Dola()
    assert (dola.language, dola.image, dola.apc_threshold, dola.image_apc_threshold) == (True, True, 0.1, 0.1)
    assert (dola.fusion_strength, dola.top_candidates, dola.readout) == (0.7, 5, "normed")
    assert dola.language_layers(30) == (24,) and dola.image_layer(24) == 20
    assert dola.language_layers(2) == (1,) and dola.language_layers(1) == (0,) and dola.image_layer(1) == 0
    assert Dola(layer_choice="published").language_layers(32) == tuple(range(16, 32, 2))
    assert Dola(contrast_layer=np.int64(3), apc_threshold=np.float32(0.25)).contrast_layer == 3
    with pytest.raises(AttributeError):
        dola.apc_threshold = 0.3


def test_the_best_of_the_grid_is_kept_for_each_domain_and_read_back(tmp_path, llama):
    def score(dola, samples):
        return samples["right"] == dola.contrast_layer, dola.apc_threshold, -dola.fusion_strength

    weigh = lambda dola, samples: sum(w * float(x) for w, x in zip((10, 1, 0.1), score(dola, samples)))
    domains = {"animals": {"right": 1}, "food": {"right": 2}}
    chosen, table = choose(weigh, domains, GRID, blocks=3, base=Dola(readout="raw"))
    assert chosen.of("animals") == Dola(
        contrast_layer=1, apc_threshold=0.3, fusion_strength=0.0, readout="raw"
    )
    assert chosen.of("food").contrast_layer == 2
    assert len(table) == 24 and list(table.columns) == ["domain", *GRID, "score", "chosen"]
    assert table[table["chosen"]]["score"].tolist() == [10.3, 10.3] and not table["score"].isna().any()
    path = tmp_path / "new" / "choices.json"
    chosen.save(path)
    assert Choices.load(path) == chosen and path.stat().st_size < 2000
    model, inputs = llama
    out = generate(model, inputs, path, domain="food", max_new_tokens=4)
    assert torch.equal(out, generate(model, inputs, chosen.of("food"), max_new_tokens=4))
    with pytest.raises(
        ValueError,
        match=r"there is no domain 'foods'; did you mean food\?; the choices are for animals, food",
    ):
        generate(model, inputs, path, domain="foods")
    with pytest.raises(ValueError, match=r"no domain is named; the choices are for animals, food"):
        generate(model, inputs, str(path))


def test_a_grid_of_layers_from_one_pass(llama):
    """The choice that needs no generation: log p of known answers, from the logits of all layers."""
    model, inputs = llama
    samples = layer_logits(model, inputs, range(4)), torch.tensor([5, 7])

    def score(dola, samples):
        logits, answers = samples
        log_p = contrast(logits[-1], logits[dola.contrast_layer], dola.apc_threshold)
        return log_p.gather(1, answers[:, None]).clamp_min(-20).mean()

    chosen, table = choose(
        score, {"all": samples}, {"contrast_layer": [0, 1, 2], "apc_threshold": [0, 0.1]}, blocks=3
    )
    best = table.loc[table["score"].idxmax()]
    assert (
        chosen.of().contrast_layer == best["contrast_layer"]
        and chosen.of().apc_threshold == best["apc_threshold"]
    )


def test_the_usual_grid_is_the_plans_at_any_depth():
    grid = usual_grid(30, 24)
    assert grid["contrast_layer"] == [22, 24, 26] and grid["image_contrast_layer"] == [16, 18, 20, 22]
    small = usual_grid(12, 12)
    assert small["contrast_layer"] == [9, 10] and small["image_contrast_layer"] == [8, 9, 10, 11]
    _, table = choose(lambda dola, samples: dola.fusion_strength, {"one": None}, small, blocks=12)
    assert len(table) == 2 * 4 * 3 * 4


def test_of_equal_scores_the_first_is_kept():
    chosen, table = choose(lambda dola, samples: 1, {"one": None}, GRID, blocks=3)
    assert chosen.of("one") == Dola(contrast_layer=0, apc_threshold=0.05, fusion_strength=0.0)
    assert table["chosen"].sum() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"grid": {"contrast_leyer": [1]}},
            r"the grid names 'contrast_leyer'; did you mean contrast_layer\?",
        ),
        ({"grid": {"contrast_layer": []}}, r"the grid has no values for 'contrast_layer'"),
        ({"grid": {"contrast_layer": [1, 3]}}, r"contrast_layer is 3, and the tower has 3 blocks"),
        ({"grid": {"apc_threshold": [2]}}, r"apc_threshold must be a number from 0 to 1"),
        ({"domains": {}}, r"no domain is given"),
        ({"score": lambda dola, samples: float("nan")}, r"the score of .* in 'one' is nan"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_tried(change, message):
    def never(dola, samples):
        raise AssertionError("tried")

    with pytest.raises(ValueError, match=message):
        choose(**{"score": never, "domains": {"one": None}, "grid": GRID, "blocks": 3} | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"choices.json is damaged: it is not JSON"),
        ("[]", r"choices.json, the whole: must be a table with the fields blocks, domains"),
        ('{"blocks": 3}', r"choices.json, domains: is missing"),
        ('{"blocks": 3, "domains": {}}', r"choices.json, domains: must be a table of settings"),
        ('{"blocks": 0, "domains": {"a": {}}}', r"choices.json, blocks: must be a whole number above 0"),
        ('{"blocks": 3, "domains": {"a": {"alpha": 1}}}', r"choices.json, domains: .*alpha"),
        ('{"blocks": 3, "domains": {"a": {"apc_threshold": 3}}}', r"choices.json, .*apc_threshold"),
        ('{"blocks": 3, "domains": {"a": {}}, "x": 1}', r"choices.json, x: unknown field"),
    ],
)
def test_a_damaged_file_is_refused_by_its_field(tmp_path, text, message):
    path = tmp_path / "choices.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Choices.load(path)


def test_files_of_another_model_or_none(tmp_path, llama):
    model, inputs = llama
    path = tmp_path / "choices.json"
    path.write_text(json.dumps({"blocks": 30, "domains": {"a": {"contrast_layer": 24}}}))
    with pytest.raises(ValueError, match=r"made for a model of 30 blocks, and this one has 3"):
        generate(model, inputs, path)
    with pytest.raises(FileNotFoundError, match=r"there is no file of choices .*none.json"):
        generate(model, inputs, tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"domain 'a' is a part of a file of choices"):
        generate(model, inputs, Dola(), domain="a")
