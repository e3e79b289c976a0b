"""Generation with a key-value cache: one step for the prompt, one for each new token."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_models import CASES, built, made_eager, need_kernel

import vlmlab
from vlmlab import measures
from vlmlab.token_labels import parse_layout, tokens_of

KERNEL = F.scaled_dot_product_attention
STEPS = 4
CONTEXT = {
    "HF GPT-2, padded on both sides": "pad:3 word:8 eos",
    "HF LLaMA, padded on both sides": "pad:3 sos word:7 eos",
    "HF LLaVA": "pad:2 sos word:3 patch:16 word eos",
    "HF BLIP-2": "pad:3 patch:4 word:4 eos",
}


def prompt(case):
    """Two samples, whole and padded on the left, as generation needs it."""
    return {name: x[:2] for name, x in case.data("text").items()}


def case_of(name):
    return next(c for c in CASES if c.name == name)


def settings(model, **more):
    return {"max_new_tokens": STEPS, "pad_token_id": 0, "eos_token_id": None, **more}


def grab(model, data, sites, generate=None, **options):
    generate = settings(model) if generate is None else generate
    return vlmlab.capture(model, data, sites, generate=generate, progress=False, **options)


@pytest.mark.parametrize("name", CONTEXT)
def test_labels_and_attention_of_every_step(name):
    case = case_of(name)
    data, tokens = prompt(case), len(case.data("text")["input_ids"][0])
    record = grab(built(case), data, ["text.attn.*", "text.resid.post"], batch_size=2)
    p = record["text.attn.probs"]
    assert p.dims == ("layer", "sample", "step", "head", "query", "token")
    assert p["step"].values.tolist() == [0, 1, 2, 3]
    expected = [role for role, _ in tokens_of(parse_layout(CONTEXT[name], tokens))] + ["new"] * (STEPS - 1)
    assert p["role"].values[1].tolist() == p["query_role"].values[1].tolist() == expected
    eager = made_eager(built(case))
    out = eager.generate(**data, **settings(eager), output_attentions=True, return_dict_in_generate=True)
    shown = np.array(expected) != "pad"
    for step, layers in enumerate(out.attentions):
        found = torch.stack(layers).numpy()  # (layer, sample, head, query, token)
        keys = tokens + step
        queries = slice(0, tokens) if step == 0 else slice(keys - 1, keys)
        here = p.values[:, :, step]
        looks = shown[queries]
        near = np.abs(here[:, :, :, queries, :keys] - found)
        assert near[:, 0].max() < 1e-6 and near[:, 1][:, :, looks].max() < 1e-6
        assert np.isnan(here[..., keys:]).all()
        assert np.isnan(np.delete(here, np.arange(len(expected))[queries], axis=3)).all()
    x = record["text.resid.post"].sel(step=2)
    assert np.flatnonzero(x.notnull().any(["layer", "sample", "feature"])).tolist() == [tokens + 1]
    assert (
        record["text.attn.k"].sel(step=2).notnull().all(["layer", "sample", "head", "head_feature"]).sum()
        == tokens + 2
    )


def test_attention_weighs_values_in_every_step():
    case = case_of("HF LLaMA, padded on both sides")  # its queries are grouped
    record = grab(built(case), prompt(case), "text.attn.*")
    v, z, p = (np.nan_to_num(record[f"text.attn.{part}"].values) for part in ("v", "z", "probs"))
    assert (
        np.abs(p @ v - z).max() < 1e-5
        and (np.abs(z).max(axis=(0, 1, 3, 5)).astype(bool).sum(axis=1) >= [12, 1, 1, 1]).all()
    )


@pytest.mark.parametrize("name", CONTEXT)
def test_what_is_generated_stays_what_it_was(name, hooks_left):
    case = case_of(name)
    model, data = built(case), prompt(case)
    plain = model.generate(**data, **settings(model))[:, -STEPS:]
    before = len(hooks_left(model))
    record = grab(model, data, ["text.resid.post", "text.attn.probs", "text.final"], batch_size=1)
    assert record["text.final"].values[:, 0].tolist() == plain.tolist()
    assert len(hooks_left(model)) == before and F.scaled_dot_product_attention is KERNEL
    assert record.attrs["difference"] == 0


def test_a_step_equals_the_forward_of_all_tokens_so_far():
    case = case_of("HF LLaMA, padded on both sides")
    model, data = built(case), prompt(case)
    record = grab(model, data, ["text.resid.post", "text.final"])
    new = torch.tensor(record["text.final"].values[:, 0, :2]).long()
    longer = {
        "input_ids": torch.cat([data["input_ids"], new], dim=1),
        "attention_mask": torch.cat([data["attention_mask"], torch.ones(2, 2, dtype=torch.long)], dim=1),
    }
    forward = vlmlab.capture(model, longer, "text.resid.post", progress=False)["text.resid.post"]
    steps = record["text.resid.post"]
    assert np.abs(steps.sel(step=2).isel(token=13) - forward.isel(token=13).values).max() < 1e-5
    assert forward["role"].values[1].tolist() == ["pad"] * 3 + ["sos"] + ["word"] * 9 + ["eos"]


def test_reducers_and_texts_that_end_early():
    case = case_of("HF GPT-2, padded on both sides")
    model, data = built(case), prompt(case)
    ids = grab(model, data, "text.final")["text.final"].values[:, 0]
    one = {name: x[:1] for name, x in data.items()}
    ends = settings(model, eos_token_id=int(ids[0, 0]))  # the first new token of sample 0 ends it
    early = grab(model, one, ["text.resid.post", "text.attn.probs", "text.final"], generate=ends)
    x = early["text.resid.post"]
    assert x.sizes["step"] == STEPS and x["role"].values[0].tolist()[-3:] == ["new"] * 3
    assert x.sel(step=0).isel(token=slice(0, 12)).notnull().all() and x.sel(step=[1, 2, 3]).isnull().all()
    assert early["text.final"].values[0, 0].tolist() == [ids[0, 0], -1, -1, -1]
    norms = grab(model, data, "text.resid.post", keep=vlmlab.capture.norms)["text.resid.post"]
    assert norms.dims == ("layer", "sample", "step", "token")
    some = grab(model, data, ["text.resid.post", "text.attn.probs"], keep=vlmlab.capture.roles("eos", "new"))
    assert some["text.resid.post"]["role"].values.tolist() == ["eos"] + ["new"] * 3
    there = some["text.resid.post"].notnull().all(["layer", "sample", "feature"]).values
    assert there.tolist() == np.eye(4, dtype=bool).tolist()
    row = grab(model, data, "text.attn.probs", keep=vlmlab.capture.row("new"))["text.attn.probs"]
    assert row.sel(step=0).isnull().all() and row.sel(step=3).notnull().all()


def test_encoder_decoder_looks_at_the_same_words_in_every_step():
    case = case_of("HF T5")
    model, data = built(case), {name: x[:2] for name, x in case.data("text").items()}
    need_kernel(model, "decoder")
    model.generation_config.decoder_start_token_id = 0
    record = grab(model, data, ["decoder.cross.probs", "decoder.attn.probs", "decoder.final"])
    eager = made_eager(built(case))
    eager.generation_config.decoder_start_token_id = 0
    out = eager.generate(**data, **settings(eager), output_attentions=True, return_dict_in_generate=True)
    cross, own = record["decoder.cross.probs"], record["decoder.attn.probs"]
    assert own["query_role"].values.tolist() == [["sos", "new", "new", "new"]] * 2
    assert cross["role"].values.tolist()[1] == ["pad"] * 3 + ["word"] * 8 + ["eos"]
    for step in range(STEPS):
        for found, x in ((out.cross_attentions, cross), (out.decoder_attentions, own)):
            expected = torch.stack(found[step]).numpy()[..., 0, :]
            here = x.sel(step=step).isel(query=step).values[..., : expected.shape[-1]]
            assert np.abs(here - expected).max() < 1e-6
    assert record["decoder.final"].values[:, 0].tolist() == out.sequences[:, 1:].tolist()


def test_a_generation_on_disk_is_the_one_in_memory(tmp_path):
    case = case_of("HF GPT-2, padded on both sides")
    model, data, sites = built(case), prompt(case), ["text.attn.probs", "text.final"]
    memory = grab(model, data, sites, batch_size=1)
    disk = grab(model, data, sites, batch_size=1, out=tmp_path / "run")
    again = vlmlab.capture.open_run(tmp_path / "run")
    for record in (disk, again):
        assert record["text.attn.probs"].identical(memory["text.attn.probs"])
    assert "generate" in json.loads((tmp_path / "run" / "record.json").read_text())["key"]["method"]
    with pytest.raises(ValueError, match="another run"):
        grab(model, data, sites, generate=settings(model, repetition_penalty=2.0), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        ({}, "needs max_new_tokens"),
        ({"max_new_tokens": 3, "num_return_sequences": 2, "num_beams": 2}, "one text of each sample"),
    ],
)
def test_one_clear_error_each(generate, message, hooks_left):
    case = case_of("HF GPT-2, padded on both sides")
    model = built(case)
    with pytest.raises(ValueError, match=message):
        grab(model, prompt(case), "text.resid.post", generate={"pad_token_id": 0, **generate})
    assert not hooks_left(model) and F.scaled_dot_product_attention is KERNEL


def test_models_without_generation(vlm, images):
    with pytest.raises(ValueError, match="has no method generate"):
        grab(vlm, images, "image.resid.post")


def test_a_generation_inside_an_edit_is_refused():
    case = case_of("HF GPT-2, padded on both sides")
    model = built(case)
    message = "cannot be captured inside `edit`"
    with (
        pytest.raises(ValueError, match=message),
        vlmlab.capture.edit(model, {"text.resid.post[1]": lambda x, t: x}),
    ):
        grab(model, prompt(case), "text.resid.post")


# --- the lens of language models ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "text") for name in CONTEXT),
        ("HF T5", "decoder"),
        ("HF BLIP-2", "text"),
        ("HF Qwen2-VL", "text"),
    ],
)
def test_the_last_layer_of_the_lens_gives_the_logits_of_the_model(name, kind):
    case = case_of(name)
    model, data = built(case), case.data(kind)
    record = vlmlab.capture(model, data, [f"{kind}.resid.post", f"{kind}.final"], progress=False)
    x = record[f"{kind}.resid.post"]
    logits = measures.lens_logits(x, vlmlab.capture.reader(model, kind))
    assert logits.dims == ("layer", "sample", "class") and logits.attrs["role"] == "eos"
    own = record[f"{kind}.final"].values[:, 0]  # the logits behind the last word
    assert np.abs(logits.sel(layer=3) - own).max() < 1e-4 * np.abs(own).max()
    some = measures.lens_logits(x, vlmlab.capture.reader(model, kind, words=[7, 3]))
    assert np.array_equal(some.values, logits.values[..., [7, 3]])
    assert np.array_equal(measures.predictions(logits).sel(layer=3), own.argmax(-1))


def test_readers_say_what_is_missing(vlm):
    case = case_of("HF ViT")
    with pytest.raises(ValueError, match="has no text tower; it has image"):
        vlmlab.capture.reader(built(case))
    with pytest.raises(ValueError, match="names no norm and head"):
        vlmlab.capture.reader(built(case), "image")
