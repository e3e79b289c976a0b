"""A language model from elsewhere beneath Flamingo, BLIP-2 and LLaVA: the same words, the same numbers."""

import pytest
import torch

import vlmlab
from vlmlab.models.huggingface import LanguageModel
from vlmlab.systems.elsewhere import Elsewhere
from vlmlab.systems.words import CLS, IMG, SEP, SPECIAL
from vlmlab.train.run import Run

transformers = pytest.importorskip("transformers")
TEXTS = ["a small Red circle", "a large blue heart left of a small Red circle"]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(" ".join(TEXTS).split())]
SETTINGS = {
    "flamingo": {"latents": 4, "resampler_layers": 1, "heads": 2, "head": 8, "steps": 3},
    "blip2": {"width": 16, "heads": 2, "layers": 2, "queries": 3, "joint": 8, "steps": 2, "write_steps": 2},
    "llava": {"steps": 2, "instruct_steps": 2},
}


def opened(kind="Llama", **sizes):
    from tokenizers import Tokenizer, models, pre_tokenizers

    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **names)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, vocab_size=len(WORDS) + 3)
    module = getattr(transformers, "LlamaForCausalLM" if kind == "Llama" else "GPT2LMHeadModel")(config)
    return LanguageModel(module, tokenizer, "other", torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def other():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return opened(**sizes, tie_word_embeddings=True, initializer_range=0.3)


def test_its_words_are_its_own_behind_the_special_ones(other):
    words = Elsewhere(other).words
    ids = words.ids(TEXTS[0])
    own = other.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert ids == [i + len(SPECIAL) for i in own]
    assert words.ids(f"[IMG]{TEXTS[0]}") == [IMG, *ids]
    rows, real = words.batch(TEXTS, 8)
    assert rows[0].tolist() == [CLS, *ids, SEP, 0, 0] and real.sum(1).tolist() == [6, 8]
    assert words.text([CLS, *ids, SEP, ids[0]]) == TEXTS[0]
    assert words.all[ids[2]] == "Red" and len(words) == len(SPECIAL) + len(WORDS) + 3


@torch.no_grad()
def test_it_says_what_the_model_says(other):
    model = Elsewhere(other)
    ids, real = model.words.batch(TEXTS[:1], 16, end=False)
    own = torch.tensor([other.tokenizer(f"<s> {TEXTS[0]}", add_special_tokens=False)["input_ids"]])
    wanted = other.module(own).logits
    found = model.write(ids, real)
    assert torch.allclose(found[..., len(SPECIAL) :], wanted, atol=1e-6)
    assert torch.allclose(found[..., SEP], wanted[..., 2], atol=1e-6)  # its own mark of an end
    assert other.module.config.vocab_size == len(WORDS) + 3  # the model itself stays as it is


@pytest.mark.parametrize("method", SETTINGS)
def test_systems_train_on_it_and_write(other, tiny, handful, tmp_path, method):
    settings = {"batch": 4, "out": tmp_path, **SETTINGS[method]}
    before = {name: p.clone() for name, p in other.named_parameters()}
    run = vlmlab.fit(method, {"vlm": tiny, "language": other}, handful, **settings)
    assert all(torch.equal(before[name], p) for name, p in other.named_parameters())
    assert run.metrics["lm"].notna().any()
    again = Run(run.path).attach({"vlm": tiny, "language": other}, handful)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(
            again.model(**run.model.inputs(images, TEXTS)), run.model(**run.model.inputs(images, TEXTS))
        )
        sums, counts = run.model.log_likelihood(images, TEXTS)
        written = run.model.generate(images, ["a"] * 2, how="greedy", length=3)
    assert counts.tolist() == [5, 11] and (sums < 0).all()
    assert all(text.startswith("a") for text in written)
    if method == "flamingo":  # at closed gates the model itself
        with torch.no_grad():
            for block in run.model.gated:
                block.cross_gate.zero_(), block.mlp_gate.zero_()
            given = run.model.inputs(images, TEXTS)
            plain = run.model.language.write(given["input_ids"], given["attention_mask"])
            assert torch.equal(run.model(**given), plain)


def test_what_is_not_built_like_llama_is_named(tiny, handful, tmp_path):
    gpt = opened("GPT2", n_embd=16, n_layer=2, n_head=2, n_positions=32)
    with pytest.raises(
        ValueError, match="other is a GPT2LMHeadModel; expected is a language model built like LLaMA"
    ):
        vlmlab.fit("llava", {"vlm": tiny, "language": gpt}, handful, out=tmp_path, steps=1)
