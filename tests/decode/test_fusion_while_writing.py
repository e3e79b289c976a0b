"""What an image says of candidates, while models write."""

import pytest
import torch
from letters import NAMES, WIDTH, Letters, ids, tokens
from writers import NEW

from vlmlab.decode import Dola, Fusion, LayerContrast, generate
from vlmlab.decode.dual_tower import Candidates


def said(*rows, names=NAMES) -> Candidates:
    log_p = torch.tensor(rows).float().log()
    return Candidates(tuple(names), log_p, log_p, log_p, 1)


IMAGES = ((0.7, 0.1, 0.1, 0.1), (0.0, 1.0, 0.0, 0.0))


@pytest.mark.parametrize("rule", ["lift", "trie"])
def test_lambda_0_writes_and_scores_what_the_language_side_does(writer, rule):
    model, inputs = writer
    options = {"max_new_tokens": NEW, "return_dict_in_generate": True, "output_scores": True}
    zero = generate(
        model,
        inputs,
        Dola(contrast_layer=1, fusion_strength=0, fusion=rule),
        said(*IMAGES),
        tokenizer=Letters(),
        **options,
    )
    alone = generate(model, inputs, Dola(contrast_layer=1), **options)
    assert all(torch.equal(a, b) for a, b in zip(zero.scores, alone.scores))


def test_an_image_makes_its_candidates_likelier(writer):
    model, inputs = writer
    options = {
        "max_new_tokens": 1,
        "return_dict_in_generate": True,
        "output_scores": True,
        "tokenizer": Letters(),
    }
    dola = Dola(contrast_layer=1, apc_threshold=0.0, fusion_strength=1)
    (fused,) = generate(model, inputs, dola, said(*IMAGES), **options).scores
    options.pop("tokenizer")
    (alone,) = generate(model, inputs, dola, **options).scores
    gain = fused - alone
    d, x = ids("d")[0], ids("x")[0]
    assert torch.allclose(gain[1, d] - gain[1, x], torch.tensor(1.001 / 0.251).log(), atol=1e-3)
    assert gain[0, d] < gain[0, x]


def test_fusion_without_the_contrast_of_layers(llama):
    model, inputs = llama
    dola = Dola(language=False, fusion_strength=1.0)
    options = {
        "max_new_tokens": 1,
        "return_dict_in_generate": True,
        "output_scores": True,
        "tokenizer": Letters(),
    }
    (fused,) = generate(model, inputs, dola, said(*IMAGES), **options).scores
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1].log_softmax(-1)
    bias = Fusion(tokens(), torch.tensor(IMAGES), top=5).bias(torch.zeros(2, 0).long(), WIDTH)
    assert torch.allclose(fused, (logits + bias).log_softmax(-1), atol=1e-3)


def test_beams_keep_the_rows_of_their_image(llava):
    model, inputs = llava
    dola = Dola(contrast_layer=1, fusion_strength=2.0, fusion="trie")
    options = {"max_new_tokens": 5, "num_beams": 3, "tokenizer": Letters()}
    both = generate(model, inputs, dola, said(*IMAGES), **options)
    for row in range(2):
        one = generate(
            model, {k: v[row : row + 1] for k, v in inputs.items()}, dola, said(IMAGES[row]), **options
        )
        assert torch.equal(one[:, -5:], both[row : row + 1, -5:])


def test_what_the_head_left_out_is_counted(llama):
    model, inputs = llama
    fusion = Fusion(tokens(), torch.tensor(IMAGES), 1.0)
    with LayerContrast(model, Dola(contrast_layer=2, apc_threshold=1.0), fusion) as dola:
        model.generate(**inputs, logits_processor=[dola], max_new_tokens=2)
    assert all(step.kept.tolist() == [1, 1] for step in dola.steps)
    assert all(7 <= a <= 8 and 3 <= b <= 4 for a, b in (step.lost.tolist() for step in dola.steps))


@pytest.mark.parametrize(("rule", "strength"), [("literal_minus_inf", 1.0), ("literal_zero", 0.0)])
def test_a_literal_rule_that_leaves_nothing_is_an_error_that_names_it(llama, rule, strength):
    model, inputs = llama
    dola = Dola(contrast_layer=2, apc_threshold=1.0, fusion=rule, fusion_strength=strength)
    with pytest.raises(ValueError, match=rf"that is the fault of fusion='{rule}'.*use fusion=\"lift\""):
        generate(model, inputs, dola, said(*IMAGES), tokenizer=Letters(), max_new_tokens=2)


def test_what_does_not_fit_a_generation(llama):
    model, inputs = llama
    with pytest.raises(ValueError, match=r"pass tokenizer="):
        generate(model, inputs, Dola(), said(*IMAGES))
    with pytest.raises(ValueError, match=r"candidates are of 1 images, and 2 texts are decoded"):
        generate(model, inputs, Dola(), said(IMAGES[0]), tokenizer=Letters())
