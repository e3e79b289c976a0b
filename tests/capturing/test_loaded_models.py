"""Models that `load` gives and that have one tower: capture takes them as they are, with texts and pictures."""

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

import vlmlab
from vlmlab.models.load import load

WORDS = ["<unk>", "a", "red", "fox", "cat", "sun"]
TEXTS = ["a red fox", "sun", "a cat a red cat"]
SITES = ["text.resid.post", "text.attn.probs", "text.final"]


@pytest.fixture(scope="module")
def language():
    """A GPT-2 whose tokenizer, as the real one, has nothing to pad with."""
    torch.manual_seed(0)
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": len(WORDS), "n_positions": 16}
    module = hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, initializer_range=0.3))
    return load(module, tokenizer=tokenizer, name="little", device="cpu")


def test_texts_become_what_the_module_would_be_given(language):
    record = vlmlab.capture(language, TEXTS, SITES, batch_size=2, progress=False)
    inputs = language.tokenize(TEXTS)
    assert inputs["input_ids"].tolist()[1] == [5, 0, 0, 0, 0] and inputs["attention_mask"].sum() == 9
    plain = vlmlab.capture(language.module, inputs, SITES, batch_size=2, progress=False)
    for site in SITES:
        assert np.array_equal(record[site].values, plain[site].values, equal_nan=True)
    assert (
        record["id"].values.tolist() == TEXTS and record["role"].values[1].tolist() == ["eos"] + ["pad"] * 4
    )
    assert record.attrs["model"] == "little" and "package" not in record.attrs
    alone = vlmlab.capture(language, TEXTS[:1], SITES, progress=False)
    row = record["text.resid.post"].isel(sample=0, token=slice(0, 3))
    assert np.allclose(alone["text.resid.post"].isel(sample=0), row, atol=1e-5)


def test_a_part_of_the_texts_keeps_its_names(language):
    record = vlmlab.capture(language, TEXTS, "text.final", limit=2, progress=False)
    assert record["id"].values.tolist() == [TEXTS[0], TEXTS[2]]
    split = vlmlab.task("emoji/animals", protocol="zero_shot").tests["test"].select([0, 1])
    record = vlmlab.capture(language, split, "text.final", progress=False)
    assert record["id"].values.tolist() == list(split.prompts)
    assert record["label"].values.tolist() == list(range(len(split.prompts)))


def test_the_other_verbs_take_it_too(language):
    tokens = vlmlab.capture(language, TEXTS, ["text.resid.post[-1]", "text.final"], progress=False)
    read = vlmlab.capture.reader(language)(tokens["text.resid.post"].isel(layer=0, sample=2).values)
    assert np.allclose(read[4], tokens["text.final"].isel(sample=2, branch=0), atol=1e-4)
    with vlmlab.capture.edit(language, {"text.resid.post[2]": lambda x, table: 0 * x}):
        edited = vlmlab.capture(language, TEXTS, "text.resid.post[2]", progress=False)
    assert not edited["text.resid.post"].fillna(0).any()
    steps = vlmlab.capture(language, TEXTS[:1], "text.final", progress=False, generate={"max_new_tokens": 2})
    assert steps["text.final"].sizes["joint"] == 2


def test_it_runs_in_its_own_precision(language):
    half = load(language.module, tokenizer=language.tokenizer, precision="amp_bf16", device="cpu")
    record = vlmlab.capture(half, TEXTS, "text.final", progress=False)
    assert record.attrs["precision"] == "amp_bf16"
    x = record["text.final"].values
    assert np.array_equal(x, torch.from_numpy(x).bfloat16().float().numpy())


def test_a_record_on_disk_tells_models_apart(language, tmp_path):
    vlmlab.capture(language, TEXTS, "text.final", progress=False, out=tmp_path / "record")
    thawed = language.thaw("*ln_f*")
    with torch.no_grad():
        next(p for p in thawed.parameters() if p.requires_grad).add_(1)
    with pytest.raises(ValueError, match="weights"):
        vlmlab.capture(thawed.eval(), TEXTS, "text.final", progress=False, out=tmp_path / "record")
