"""Contrast of layers while models write: every small family, every strategy, and the model as it was afterwards."""

import copy

import pytest
import torch
from uncached import end_of, greedy, states
from writers import NEW, STATIC, TEXTS, hooks, pixels, plain, two

from vlmlab.decode import Dola, LayerContrast, contrast, generate, layer_logits
from vlmlab.decode.language import language_of
from vlmlab.models.families import Family

MARKS = [94, 95, 97]  # that stand for images
transformers = pytest.importorskip("transformers")


def written(out: torch.Tensor) -> torch.Tensor:
    """The new tokens of what generate returns."""
    return out[:, -NEW:]


def test_layers_read_as_transformers_hidden_states_do(writer):
    model, inputs = writer
    norm, head = end_of(model)
    with torch.no_grad():
        logits, hidden = states(model, inputs, torch.zeros(2, 0, dtype=torch.long))
        depth = len(hidden) - 1
        encodes = getattr(model.config, "is_encoder_decoder", False)
        start = {"decoder_input_ids": torch.zeros(2, 1, dtype=torch.long)} if encodes else {}
        if type(model).__name__ == "GPT2LMHeadModel":
            start = {"position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)}
        for readout in ("normed", "raw"):
            found = layer_logits(model, {**inputs, **start}, range(depth + 1), readout)
            assert found.shape == (depth + 1, 2, logits.shape[-1]) and language_of(model).depth == depth
            assert torch.allclose(found[depth], logits, atol=1e-4)  # the last is normed once
            for layer in range(1, depth):
                x = hidden[layer][:, -1]
                expected = head(norm(x) if readout == "normed" else x)
                assert torch.allclose(found[layer], expected, atol=1e-4), (readout, layer)


def test_all_positions_read_as_the_last_ones_do(llama):
    model, inputs = llama
    whole = layer_logits(model, inputs, (3, 0, 1, 3), last=False)
    assert whole.shape == (4, 2, 8, 99)
    for end in (4, 8):
        part = {k: v[:1, :end] for k, v in inputs.items()}
        assert torch.allclose(layer_logits(model, part, (3, 0, 1, 3)), whole[:, :1, end - 1], atol=1e-4)


@pytest.mark.parametrize("readout", ["normed", "raw"])
def test_with_a_cache_it_writes_what_a_loop_without_one_does(writer, readout):
    model, inputs = writer
    dola = Dola(contrast_layer=1, readout=readout, apc_threshold=0.3)
    out = generate(model, inputs, dola, max_new_tokens=NEW, suppress_tokens=MARKS)
    assert torch.equal(written(out), greedy(model, inputs, 1, 0.3, readout == "raw", NEW, MARKS))


def test_contrast_chooses_otherwise_than_the_model(llava):
    model, inputs = llava
    out = generate(model, inputs, STATIC, max_new_tokens=NEW)
    assert not torch.equal(written(out), written(plain(model, inputs)))


def test_the_processor_is_asked_once_for_every_token(writer):
    model, inputs = writer
    before = hooks(model)
    with LayerContrast(model, STATIC) as dola:
        plain(model, inputs, logits_processor=transformers.LogitsProcessorList([dola]))
    assert len(dola.steps) == NEW
    assert all(step.layer.tolist() == [2, 2] and bool((step.kept >= 1).all()) for step in dola.steps)
    assert hooks(model) == before and not dola.rows.rows


def test_with_all_switches_off_it_is_plain_generation(writer):
    model, inputs = writer
    drawn = []
    for dola in (Dola(language=False, image=False), None):
        torch.manual_seed(3)
        drawn.append(generate(model, inputs, dola, max_new_tokens=NEW, do_sample=True))
    torch.manual_seed(3)
    plainly = model.generate(**inputs, max_new_tokens=NEW, do_sample=True)
    assert torch.equal(drawn[0], plainly) and torch.equal(drawn[1], plainly)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_a_uniform_early_layer_restores_the_greedy_choice(writer, alpha):
    model, inputs = writer
    dola = Dola(contrast_layer=1, readout="uniform", apc_threshold=alpha)
    assert torch.equal(generate(model, inputs, dola, max_new_tokens=NEW), plain(model, inputs))


def test_a_model_that_vlmlab_does_not_know_is_described():
    """BLIP, whose text decoder is a BERT with norms behind its blocks."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {**small, "vocab_size": 99, "encoder_hidden_size": 32, "bos_token_id": 1, "sep_token_id": 2}
    about = transformers.BlipConfig(
        text_config=text,
        vision_config={**small, "image_size": 32, "patch_size": 8},
        image_text_hidden_size=32,
    )
    torch.manual_seed(0)
    model = transformers.BlipForConditionalGeneration(about).eval()
    inputs = {**two(TEXTS), "pixel_values": pixels()[:2]}
    with pytest.raises(ValueError, match=r"BlipForConditionalGeneration has no language model.*pass family="):
        LayerContrast(model, STATIC)
    blip = Family("text_decoder.bert.encoder.layer", {}, head="text_decoder.cls", kind="text")
    with LayerContrast(model, STATIC, family=blip) as dola:
        out = model.generate(**inputs, logits_processor=[dola], max_new_tokens=NEW, min_new_tokens=NEW)
    assert len(dola.steps) == NEW
    assert torch.equal(
        out, generate(model, inputs, STATIC, family=blip, max_new_tokens=NEW, min_new_tokens=NEW)
    )


@pytest.mark.parametrize("choice", ["published", "jensen_shannon"])
@pytest.mark.parametrize("readout", ["normed", "raw"])
def test_dynamic_choices(llama, choice, readout):
    model, inputs = llama
    dola = Dola(layer_choice=choice, layers=(0, 1, 2), readout=readout)
    with LayerContrast(model, dola) as found:
        model.generate(**inputs, logits_processor=[found], max_new_tokens=NEW)
    picked = torch.stack([step.layer for step in found.steps])
    assert set(picked.flatten().tolist()) <= {0, 1, 2}
    if choice == "published":
        assert torch.equal(picked[:, 0], picked[:, 1])
    one = generate(model, inputs, Dola(layer_choice=choice, layers=(2,), readout=readout), max_new_tokens=NEW)
    assert torch.equal(
        one, generate(model, inputs, Dola(contrast_layer=2, readout=readout), max_new_tokens=NEW)
    )


def test_left_padding_changes_no_word(writer):
    """The second text alone, without its padding."""
    model, inputs = writer
    both = written(generate(model, inputs, STATIC, max_new_tokens=NEW))
    shown = inputs["attention_mask"][1].bool()
    alone = {k: v[1:] for k, v in inputs.items() if k != "pixel_values"}
    alone = {k: v[:, shown] if v.shape[:2] == (1, len(shown)) else v for k, v in alone.items()}
    if "pixel_values" in inputs:
        pixels = inputs["pixel_values"]
        alone["pixel_values"] = pixels[1:] if len(pixels) == 2 else pixels[len(pixels) // 2 :]
    assert torch.equal(written(generate(model, alone, STATIC, max_new_tokens=NEW)), both[1:])


@pytest.mark.parametrize("cache", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_no_cache_and_one_of_fixed_size(llama, llava, cache):
    for model, inputs in (llama, llava):
        expected = generate(model, inputs, STATIC, max_new_tokens=NEW)
        assert torch.equal(generate(model, inputs, STATIC, max_new_tokens=NEW, **cache), expected)


def test_embeddings_may_stand_for_the_prompt(llama):
    """As DeepSeek's own package runs the language model of Janus: the processor sees no ids of the prompt."""
    model, inputs = llama
    embedded = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    embedded["attention_mask"] = inputs["attention_mask"]
    for penalty in (None, 1.3):
        new = generate(model, embedded, STATIC, max_new_tokens=NEW, repetition_penalty=penalty)
        assert new.shape == (2, NEW)
    expected = generate(model, inputs, STATIC, max_new_tokens=NEW)
    assert torch.equal(generate(model, embedded, STATIC, max_new_tokens=NEW), written(expected))


def test_beams_add_up_normalised_scores(llama):
    model, inputs = llama
    out = generate(
        model,
        inputs,
        STATIC,
        max_new_tokens=4,
        num_beams=3,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    norm, head = end_of(model)
    new, total = out.sequences[:, -4:], torch.zeros(2)
    for step in range(4):
        with torch.no_grad():
            logits, hidden = states(model, inputs, new[:, :step])
            log_p = contrast(logits, head(norm(hidden[2][:, -1])))
        total += log_p.gather(1, new[:, step : step + 1])[:, 0]
    assert torch.allclose(out.sequences_scores, total, atol=1e-3)
    greedy = generate(model, inputs, STATIC, max_new_tokens=4, num_beams=1)
    wide = generate(model, inputs, STATIC, max_new_tokens=4, num_beams=4)
    assert not torch.equal(wide, greedy)


def test_beams_of_a_vision_language_model_follow_their_rows(llava):
    model, inputs = llava
    both = written(generate(model, inputs, STATIC, max_new_tokens=NEW, num_beams=3))
    first = {k: v[:1] for k, v in inputs.items()}
    assert torch.equal(written(generate(model, first, STATIC, max_new_tokens=NEW, num_beams=3)), both[:1])


def test_sampling_draws_from_the_contrast_and_never_outside_its_head(llama):
    model, inputs = llama
    one = {k: v[:1].expand(400, -1) for k, v in inputs.items()}
    logits = layer_logits(model, {k: v[:1] for k, v in inputs.items()}, (2, 3))
    log_p = contrast(logits[1], logits[0], 0.3)[0]
    torch.manual_seed(0)
    drawn = generate(
        model, one, Dola(contrast_layer=2, apc_threshold=0.3), max_new_tokens=1, do_sample=True, top_k=0
    )
    share = torch.bincount(drawn[:, -1], minlength=len(log_p)) / 400
    assert bool((share[log_p == -torch.inf] == 0).all())
    assert float((share - log_p.exp()).abs().max()) < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(writer, dtype):
    model, inputs = writer
    half = copy.deepcopy(model).to(dtype)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    with LayerContrast(half, STATIC) as dola:
        out = plain(half, inputs, logits_processor=[dola], return_dict_in_generate=True, output_scores=True)
    scores = torch.stack(out.scores)
    assert scores.dtype == torch.float32 and not scores.isnan().any() and len(dola.steps) == NEW


def test_the_repetition_penalty_is_behind_the_contrast_and_bans_before_it(llama):
    model, inputs = llama
    options = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
    plain = generate(model, inputs, STATIC, **options).scores[0]
    seen = torch.zeros_like(plain, dtype=torch.bool).scatter(1, inputs["input_ids"], True)
    penalised = generate(model, inputs, STATIC, repetition_penalty=1.5, **options).scores[0]
    expected = torch.where(seen, plain * 1.5, plain)
    assert torch.allclose(penalised, expected, atol=1e-5)
    best = plain.argmax(-1).tolist()
    banned = generate(model, inputs, STATIC, bad_words_ids=[[i] for i in best], **options).scores[0]
    logits = layer_logits(model, inputs, (2, 3))
    logits[1][:, best] = -torch.inf
    assert torch.allclose(banned, contrast(logits[1], logits[0]), atol=1e-4)
