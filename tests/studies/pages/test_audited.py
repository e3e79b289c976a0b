"""The audit of the survey on small systems after a step or two: what it finds is what their modules and logs hold."""

import dataclasses

import numpy as np
import pytest
import torch

import vlmlab
from vlmlab.studies.pages import audited

SMALL = {"width": 16, "patch": 16, "image_layers": 1, "text_layers": 2, "queue": 16, "vocabulary": 40}


@pytest.fixture(scope="module")
def task():
    whole = vlmlab.task("shapes/pairs", protocol="retrieval")
    tests = {name: images.select(range(4)) for name, images in whole.tests.items()}
    return dataclasses.replace(whole, train=whole.train.select(range(24)), val=None, tests=tests)


@pytest.fixture(scope="module")
def first(task, tmp_path_factory):
    """Row name -> (run, task), as the notebook opens them."""
    out, tiny = tmp_path_factory.mktemp("runs"), vlmlab.load("tiny", device="cpu")
    language = {"width": 32, "layers": 2, "hidden": 64, "vocabulary": 60}
    fit = lambda method, models, **settings: vlmlab.fit(method, models, task, out=out, batch=4, **settings)
    models = {"vlm": tiny, "language": fit("language", {}, steps=1, **language)}
    flamingo = {"latents": 3, "resampler_layers": 1, "heads": 2, "head": 8}
    runs = {
        "albef": fit("albef", {}, steps=1, **SMALL),
        "blip": fit("blip", {}, steps=1, relevance_layer=0, **SMALL),
        "flamingo": fit("flamingo", models, steps=2, **flamingo),
        "llava_instruct": fit("llava", models, steps=9, instruct_steps=1),
    }
    return {name: (run, task) for name, run in runs.items()}


@pytest.fixture(scope="module")
def found(first):
    state = torch.get_rng_state()
    found = audited.checks(first)
    torch.set_rng_state(state)
    return found


def test_terms_of_losses_need_no_model(found):
    assert found["moco_batch_negatives"] == (0, "of 16 images in a batch")  # the queue alone
    share, told = found["bert_masked_share"]
    assert share == pytest.approx(80, abs=1.5) and told == "% of the selected words become [MASK]"
    value, told = found["itm_takes_hardest"]
    assert 5 < value < 30 and told.startswith("% of the negatives")  # of 48, by how alike they are
    assert found["hard_weight"][0] == pytest.approx(0.6, abs=1e-4)  # of targets that are 0.4 soft


def test_albef_and_blip_are_as_they_are_built(first, found):
    albef, blip = first["albef"][0].model, first["blip"][0].model
    assert found["albef_terms"] == (3, "terms in one stage: itc, itm, mlm")
    assert found["albef_queue"][0] == 16 == len(albef.text_queue)
    moved, told = found["itm_distilled"]
    assert moved == 0 and told.startswith("is what alpha = 0.4 changes of matching; of contrast ")
    others = [float(part.split()[-1]) for part in told.split("; ")[1].split(",")]
    batch = dict(zip(("image", "text"), audited.two(first, albef)))
    losses = []
    for alpha in (0.0, 0.4):
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append(albef.losses(batch | {"alpha": alpha}))
    changed = [abs(float(losses[1][n] - losses[0][n])) for n in ("itc", "mlm")]
    assert others == pytest.approx(changed, rel=0.06) and min(changed) > 0
    both = [*zip(blip.online.text, blip.decoder.blocks)]
    assert all(a.mlp is b.mlp and a.attn is not b.attn for a, b in both) and len(both) == 2
    assert found["blip_shared_attention"] == (0, "of 2 blocks share self-attention; 2 share the MLP")
    assert found["blip_stages"] == (1, "stage")


def test_two_images_of_the_first_test_are_asked_about(first, task):
    pixels, texts = audited.two(first, first["albef"][0].model)
    test = next(iter(task.tests.values()))
    preprocess = first["albef"][0].model.preprocess
    assert torch.equal(pixels, torch.stack([preprocess(test.image(i)) for i in range(2)]))
    assert texts == list(test.select(range(2)).texts)


def test_flamingo_begins_as_its_language_model_and_keeps_its_latents_among_the_keys(found):
    assert found["flamingo_difference"][0] == pytest.approx(0, abs=1e-4)
    assert found["flamingo_other_gradient"][0] == 0
    assert found["resampler_keys"] == (0, f"latents are missing among {3 + 65} keys")


def test_llava_moves_what_its_stages_train(first, found):
    run = first["llava_instruct"][0]
    assert found["llava_tokens"] == (64, "tokens of an image of 64 pixels, one a patch; no resampling")
    own = dict(run.model.own())
    (head,) = (x for n, x in own.items() if n.endswith("lm_head.weight"))
    before = dict(run.model.language.llama.named_parameters())["lm_head.weight"]
    assert (
        found["llava_language_moves"][0] == pytest.approx(float((head - before).detach().abs().max()))
        and (head != before).any()
    )
    log = [row["lm"] for row in run.metrics.to_dict("records") if row["stage"] == "project"]
    size = len(log) // 4
    assert size > 1 and found["llava_projector_moves"][0] == pytest.approx(
        np.mean(log[-size:]) - np.mean(log[:size])
    )


def test_who_looks_at_later_words(first, found):
    value, told = found["clip_later_attention"]
    assert value == 0 and told.startswith("attention to later words in CLIP; ")
    albef = first["albef"][0].model
    inputs = albef.inputs(*audited.two(first, albef))
    fused = audited.later(albef, inputs)
    assert f"{fused:.2f} in ALBEF" in told
    probs = vlmlab.capture(albef, inputs, "text.attn.probs", progress=False)["text.attn.probs"]
    last = np.nan_to_num(probs.transpose("sample", "layer", "head", ...).values[0, -1]).mean(0)
    assert fused == pytest.approx(
        sum(last[i, j] for i in range(len(last)) for j in range(i + 1, len(last[0]))), rel=1e-4
    )
    assert 0.1 < fused < len(last)
