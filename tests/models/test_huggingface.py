"""Language models of Hugging Face: opened from a folder or an object, scored as their own loss, thawed."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from vlmlab.models.huggingface import LanguageModel
from vlmlab.models.load import load

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "a",
    "red",
    "fox",
    "cat",
    "sun",
    "is",
    "it",
    "yes",
    "no",
    ".",
]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = SIZES | {"vocab_size": 24, "num_key_value_heads": 1, "pad_token_id": 0, "initializer_range": 0.3}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TEXTS = ["yes", "a red fox .", "it is a cat"]
PROMPTS = ["is it a fox", "a", "is it a red red sun no"]


def tokenizer(begins=True):
    """A word a token; texts begin with <s>."""
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begins:
        plain.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    names["model_input_names"] = ["input_ids", "attention_mask"]  # GPT-2 embeds a type of tokens, too
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=plain, **names, additional_special_tokens=["<image>"], padding_side="left"
    )


def gpt2():
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 24}
    return hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, **IDS, initializer_range=0.3))


def llama(tied=True):
    return hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, tie_word_embeddings=tied))


def clip_vision():
    return hf.CLIPVisionConfig(**SIZES, image_size=32, patch_size=16, initializer_range=0.3)


def llava():
    config = hf.LlavaConfig(
        vision_config=clip_vision(), text_config=hf.LlamaConfig(**LLAMA), image_token_index=4
    )
    return hf.LlavaForConditionalGeneration(config)


def blip2():
    vision = hf.Blip2VisionConfig(**SIZES, image_size=32, patch_size=16)
    reader = hf.Blip2QFormerConfig(**SIZES, encoder_hidden_size=16, vocab_size=24)
    text = {
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 24,
    }
    text = hf.OPTConfig(**text, **IDS, word_embed_proj_dim=16, max_position_embeddings=64)
    parts = {"vision_config": vision, "qformer_config": reader, "text_config": text}
    parts = {name: config.to_dict() for name, config in parts.items()}
    config = hf.Blip2Config(**parts, num_query_tokens=4, image_token_index=4)
    return hf.Blip2ForConditionalGeneration(config)


def llava_processor():
    size = {"height": 32, "width": 32}
    pixels = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    return hf.LlavaProcessor(
        pixels,
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def blip2_processor():
    pixels = hf.BlipImageProcessor(size={"height": 32, "width": 32})
    return hf.Blip2Processor(pixels, tokenizer(), num_query_tokens=4)


def pictures(n=3):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(n)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def own_loss(module, inputs, prompt_length):
    """Minus the summed loss that transformers computes of what stands behind a prompt."""
    labels = inputs["input_ids"].clone()
    labels[:, :prompt_length] = -100
    with torch.no_grad():
        return -module(**inputs, labels=labels).loss * (labels != -100).sum()


@pytest.mark.parametrize("make", [gpt2, llama])
def test_log_likelihood_is_the_loss_of_the_library(make):
    language = load(make(), tokenizer=tokenizer(), device="cpu")
    with torch.no_grad():
        out = language.log_likelihood(TEXTS, prompts=PROMPTS)
    assert out.tokens.shape == out.ids.shape == out.scored.shape == (3, 4)
    assert out.scored.sum(dim=1).tolist() == [1, 4, 4]
    assert (out.tokens[~out.scored] == 0).all() and torch.equal(out.total, out.tokens.sum(dim=1))
    for i, (prompt, text) in enumerate(zip(PROMPTS, TEXTS)):
        ids = tokenizer()(f"{prompt} {text}", return_tensors="pt")
        ids = {k: ids[k] for k in ("input_ids", "attention_mask")}
        expected = own_loss(language.module, ids, 1 + len(prompt.split()))
        assert out.total[i].item() == pytest.approx(expected.item(), abs=1e-4)


def test_probabilities_of_all_next_words_sum_to_one():
    language = load(llama(), tokenizer=tokenizer(), device="cpu")
    words = language.tokenizer.convert_ids_to_tokens([5, 6, 7])
    some = language.log_likelihood(words, prompts=["it is"] * 3).total.exp().sum()
    with torch.no_grad():
        ids = tokenizer()("it is", return_tensors="pt")["input_ids"]
        expected = language.module(ids).logits[0, -1].softmax(-1)[5:8].sum()
    assert some.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("begins", "scored"), [(True, 4), (False, 3)])
def test_without_prompt_the_first_token_needs_something_before_it(begins, scored):
    language = load(gpt2(), tokenizer=tokenizer(begins), device="cpu")
    out = language.log_likelihood(["a red fox ."])
    assert out.scored.sum() == scored and out.scored[0, 0] == begins
    ids = tokenizer(begins)("a red fox .", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = -language.module(ids, labels=ids).loss * (ids.shape[1] - 1)
    assert out.total.item() == pytest.approx(expected.item(), abs=1e-4)


def test_an_empty_prompt_has_whole_numbers_where_there_are_types_of_tokens_too():
    types = tokenizer(begins=False)
    types.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    out = load(gpt2(), tokenizer=types, device="cpu").log_likelihood(["a red fox ."])
    assert out.scored.tolist() == [[False, True, True, True]] and (out.tokens[0, 1:] < 0).all()


@pytest.mark.parametrize(
    ("make", "processor", "mark"), [(llava, llava_processor(), "<image> "), (blip2, blip2_processor(), "")]
)
def test_images_go_with_their_texts(make, processor, mark):
    language = load(make(), tokenizer=processor, device="cpu")
    prompts, images = [mark + p for p in PROMPTS], pictures()
    with torch.no_grad():
        out = language.log_likelihood(TEXTS, images=images, prompts=prompts)
        swapped = language.log_likelihood(TEXTS, images=images[::-1], prompts=prompts)
    assert (out.total[[0, 2]] - swapped.total[[0, 2]]).abs().min() > 1e-3
    assert out.total[1].item() == pytest.approx(swapped.total[1].item(), abs=1e-5)
    for i, (prompt, text, image) in enumerate(zip(prompts, TEXTS, images)):
        inputs = processor(images=image, text=f"{prompt} {text}", return_tensors="pt")
        inputs = {k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask", "pixel_values")}
        own = inputs["input_ids"].shape[1] - len(text.split())
        assert out.total[i].item() == pytest.approx(own_loss(language.module, inputs, own).item(), abs=1e-4)


@pytest.mark.parametrize("make", [gpt2, llama, llava])
def test_a_language_model_is_a_model(make):
    module = make()
    language = load(module, tokenizer=tokenizer(), name="little", device="cpu")
    assert type(language) is LanguageModel and language.module is module
    assert (language.name, language.source, language.precision) == ("little", None, "fp32")
    assert not language.training and not any(p.requires_grad for p in language.parameters())
    assert len(language.language) == 2 and len(language.fingerprint()) == 64
    ids = language.tokenizer(["it is"], return_tensors="pt")["input_ids"]
    out = language.generate(input_ids=ids, max_new_tokens=3, do_sample=False, eos_token_id=99)
    assert torch.equal(out[:, : ids.shape[1]], ids) and out.shape[1] == ids.shape[1] + 3


def test_a_language_model_thaws():
    language = load(llama(tied=True), tokenizer=tokenizer(), device="cpu")
    before, digest = language.log_likelihood(TEXTS).total, language.fingerprint()
    thawed = language.thaw("lm_head.weight", "*layernorm*").train()
    assert thawed.module.lm_head.weight is thawed.module.model.embed_tokens.weight
    assert thawed.module.get_decoder().layers is thawed.language and thawed.language is not language.language
    assert thawed.language[0].self_attn is language.language[0].self_attn
    thawed.log_likelihood(TEXTS).total.sum().backward()
    with torch.no_grad():
        for p in thawed.parameters():
            if p.requires_grad:
                p += 0.1 * p.grad
    assert language.fingerprint() == digest != thawed.fingerprint()
    assert torch.equal(language.log_likelihood(TEXTS).total, before)
    assert (thawed.log_likelihood(TEXTS).total > before).all()


@pytest.mark.parametrize("make", [gpt2, llava, blip2])
def test_everything_thaws_and_trains(make):
    processor = blip2_processor() if make is blip2 else tokenizer()
    language = load(make(), tokenizer=processor, device="cpu")
    thawed = language.thaw("*").train()
    images = pictures() if make is blip2 else None
    thawed.log_likelihood(TEXTS, images=images).total.sum().backward()
    of_text = {n: p for n, p in thawed.language.named_parameters()}
    assert of_text and all(p.grad is not None for p in of_text.values())
    assert all(p.grad is None for p in language.parameters())
    shared = set(map(id, language.parameters())) & set(map(id, thawed.parameters()))
    assert not shared


# folders


def test_a_folder_comes_back_as_it_was_saved(tmp_path):
    module = llava().eval()
    module.save_pretrained(tmp_path)
    llava_processor().save_pretrained(tmp_path)
    language = load(tmp_path, device="cpu")
    assert type(language.module) is hf.LlavaForConditionalGeneration
    assert language.source == {"name": str(tmp_path.resolve()), "pretrained": None, "precision": "fp32"}
    own = load(module, tokenizer=llava_processor(), device="cpu")
    prompts = ["<image> it is"] * 3
    with torch.no_grad():
        a, b = (m.log_likelihood(TEXTS, images=pictures(), prompts=prompts) for m in (language, own))
    assert torch.equal(a.total, b.total) and language.fingerprint() == own.fingerprint()
    assert load(**language.source, device="cpu").fingerprint() == own.fingerprint()


def test_half_precision_weights_are_read_as_float32(tmp_path):
    gpt2().half().save_pretrained(tmp_path)
    language = load(tmp_path, device="cpu", precision="amp_bf16")
    assert language.module.dtype == torch.float32 and language.precision == "amp_bf16"
    with pytest.raises(ValueError, match="came without a tokenizer; pass load"):
        language.log_likelihood(["a"])
    assert load(tmp_path, tokenizer=tokenizer(), device="cpu").log_likelihood(["a"]).total < 0


def test_names_are_not_fetched():
    parts = (
        r"unknown model 'llava-hf/llava-1.5-7b-hf'.*nothing is fetched.*`hf download llava-hf/llava-1.5-7b-hf"
    )
    with pytest.raises(ValueError, match=parts) as e:
        load("llava-hf/llava-1.5-7b-hf", device="cpu")
    assert "\n" not in str(e.value)


def test_folders_that_do_not_open(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(ValueError, match="describes no model of transformers"):
        load(tmp_path, device="cpu")
    hf.BertModel(hf.BertConfig(**SIZES, vocab_size=24)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"\['BertModel'\], which does not write"):
        load(tmp_path / "bert", device="cpu")
    gpt2().save_pretrained(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").unlink()
    torch.save(gpt2().state_dict(), tmp_path / "gpt2" / "pytorch_model.bin")  # never unpickled
    with pytest.raises(ValueError, match=r"cannot be opened .*weights in \.safetensors") as e:
        load(tmp_path / "gpt2", device="cpu")
    assert "\n" not in str(e.value)


def test_without_transformers(tmp_path, monkeypatch):
    gpt2().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="is a Hugging Face model: pip install transformers"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": "a cat"}, "must be lists"),
        ({"texts": []}, "must be lists"),
        ({"texts": ["a"], "prompts": ["a", "b"]}, r"\{'texts': 1, 'prompts': 2\}"),
        ({"texts": ["a"], "images": pictures(2)}, "'images': 2"),
        ({"texts": ["a"], "images": pictures(1)}, "no processor that takes images"),
        ({"texts": ["a", ""]}, "the text '' has no tokens"),
    ],
)
def test_what_cannot_be_scored(options, message):
    language = load(gpt2(), tokenizer=tokenizer(), device="cpu")
    with pytest.raises(ValueError, match=message):
        language.log_likelihood(**options)


def test_encoders_are_not_scored():
    config = hf.T5Config(d_model=16, d_ff=32, num_layers=2, num_heads=2, d_kv=8, vocab_size=24)
    language = load(hf.T5ForConditionalGeneration(config), tokenizer=tokenizer(), device="cpu")
    assert len(language.language) == 2
    with pytest.raises(ValueError, match="reads prompts by an encoder"):
        language.log_likelihood(["a"])


def test_modules_that_are_no_models():
    with pytest.raises(ValueError, match="Linear is no model that load knows"):
        load(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="has its weights; leave out pretrained='openai'"):
        load(gpt2(), "openai")
