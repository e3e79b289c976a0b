"""What decoding refuses, each with its message, and the model as it was afterwards."""

import copy

import pytest
import torch
from torch import nn
from writers import NEW, STATIC, hooks, plain

from vlmlab.decode import Dola, LayerContrast, generate, layer_logits
from vlmlab.decode.language import Language, check_end
from vlmlab.models.families import FAMILIES, Family

transformers = pytest.importorskip("transformers")


def test_janus_drops_processors_and_the_guard_says_what_works(janus):
    """CANARY. It fails once transformers hands logits processors to its text mode: then take JanusForConditionalGeneration
    out of `DROPS` (decode/generation.py), and this test with it."""
    model, inputs = janus
    before = hooks(model)
    works = r"never called the logits processor.*GenerationMixin\.generate\(model.*vlmlab\.decode\.generate"
    with pytest.raises(ValueError, match=works), LayerContrast(model, STATIC) as dola:
        model.generate(**inputs, max_new_tokens=2, logits_processor=transformers.LogitsProcessorList([dola]))
    assert hooks(model) == before
    assert generate(model, inputs, STATIC, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2


def test_the_guard_is_silent_where_nothing_ran_and_where_another_error_came_first(llama):
    model, _ = llama
    with LayerContrast(model, STATIC):
        pass
    before = hooks(model)
    with pytest.raises(KeyError, match="mine"), LayerContrast(model, STATIC):
        model(input_ids=torch.ones(1, 3, dtype=torch.long))
        raise KeyError("mine")
    assert hooks(model) == before


def test_after_it_the_model_computes_the_same_bits(writer):
    model, inputs = writer
    before = plain(model, inputs, return_dict_in_generate=True, output_logits=True)
    generate(model, inputs, STATIC, max_new_tokens=NEW)
    after = plain(model, inputs, return_dict_in_generate=True, output_logits=True)
    assert torch.equal(torch.stack(before.logits), torch.stack(after.logits))


def test_assisted_decoding_is_refused(llama):
    model, inputs = llama
    one = {k: v[:1] for k, v in inputs.items()}
    with pytest.raises(ValueError, match=r"assistant_model= runs the model more or less than once"):
        generate(model, one, STATIC, assistant_model=copy.deepcopy(model), max_new_tokens=4)
    with pytest.raises(ValueError, match=r"prompt_lookup_num_tokens="):
        generate(model, one, STATIC, prompt_lookup_num_tokens=1, max_new_tokens=4)
    with (
        pytest.raises(ValueError, match=r"assisted and speculative decoding"),
        LayerContrast(model, STATIC) as dola,
    ):
        model.generate(
            **one, prompt_lookup_num_tokens=2, logits_processor=[dola], max_new_tokens=8, eos_token_id=2
        )


def test_guidance_is_refused(llama):
    model, inputs = llama
    with pytest.raises(ValueError, match=r"guidance_scale= runs"):
        generate(model, inputs, STATIC, guidance_scale=1.5, max_new_tokens=4)
    with (
        pytest.raises(ValueError, match=r"another processor changed them all \(guidance"),
        LayerContrast(model, STATIC) as dola,
    ):
        model.generate(**inputs, guidance_scale=1.5, logits_processor=[dola], max_new_tokens=4)


def test_a_forward_pass_in_between_is_noticed(llama):
    model, inputs = llama

    class Between(transformers.LogitsProcessor):
        def __call__(self, input_ids, scores):
            if input_ids.shape[1] > inputs["input_ids"].shape[1]:
                model(input_ids=input_ids[:, -1:])
            return scores

    with pytest.raises(ValueError, match=r"this generation ran 2 for the last one"):
        generate(model, inputs, STATIC, logits_processor=[Between()], max_new_tokens=4)


@pytest.mark.parametrize(
    ("dola", "message"),
    [
        (Dola(contrast_layer=3), "contrast_layer is 3, and the tower has 3 blocks: 3 is its last"),
        (Dola(contrast_layer=9), "9 it has not; expected is 0 to 2"),
        (Dola(layer_choice="published", layers=(0, 7)), "layers is 7"),
    ],
)
def test_layers_that_the_model_has_not(llama, dola, message):
    model, inputs = llama
    with pytest.raises(ValueError, match=message):
        generate(model, inputs, dola, max_new_tokens=2)


def test_wrong_inputs_are_one_clear_message(llama, janus):
    model, inputs = llama
    right = {**inputs, "attention_mask": inputs["attention_mask"].flip(1)}
    with pytest.raises(ValueError, match=r"1 of 2 texts are padded on the right.*padding_side"):
        generate(model, right, STATIC, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"1 of 2 texts are padded on the right"):
        layer_logits(model, right, (1,))
    with pytest.raises(ValueError, match=r"inputs is a Tensor; expected is a mapping"):
        generate(model, inputs["input_ids"], STATIC)
    with pytest.raises(ValueError, match=r"dola is a dict; expected is decode.Dola"):
        generate(model, inputs, {"contrast_layer": 2})
    with pytest.raises(ValueError, match=r"layers are \(4,\); LlamaForCausalLM has layers 0 to 3"):
        layer_logits(model, inputs, (4,))
    with pytest.raises(ValueError, match=r"writes images with another head"):
        generate(*janus, STATIC, generation_mode="image")


def test_a_head_that_caps_its_logits_is_refused(llama):
    model, inputs = llama
    capped = copy.deepcopy(model)
    capped.lm_head.register_forward_hook(lambda module, args, out: out * 4)
    inner = type(capped.lm_head)(capped.lm_head.in_features, capped.lm_head.out_features, bias=False)
    inner.weight = capped.lm_head.weight
    known = FAMILIES["HF LLaMA"]
    family = Family("base_model.layers", {}, norm=known.norm, head=lambda module: inner)
    with pytest.raises(ValueError, match=r"are not its final norm and head.*pass family="):
        generate(capped, inputs, STATIC, family=family, max_new_tokens=2)


def test_rounding_of_half_precision_is_no_other_head():
    """Logits far from zero, as GPT-2's, where a step of bfloat16 is larger than their spread allows."""
    head = lambda x: (x - 100).to(torch.bfloat16)
    language = Language("far", [nn.Identity()], nn.Identity(), head)
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    check_end(language, x, head(x) + torch.tensor([0.5, -0.5] * 25))
    with pytest.raises(ValueError, match="are not its final norm and head"):
        check_end(language, x.float(), 30 * torch.tanh((x.float() * 30) / 30))


def test_a_model_without_a_head_is_refused():
    bert = transformers.BertModel(
        transformers.BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    )
    with pytest.raises(ValueError, match=r"BertModel has no language model of which vlmlab knows the head"):
        LayerContrast(bert, STATIC)


def test_logits_that_are_not_finite_are_an_error(llama):
    model, inputs = llama
    spoiled = copy.deepcopy(model)
    with torch.no_grad():
        spoiled.lm_head.weight[:] = torch.nan
    with pytest.raises(
        ValueError, match=r"no word of row 0 has a finite score at token 1.*float32 or bfloat16"
    ):
        generate(spoiled, inputs, STATIC, max_new_tokens=2)


def test_only_rows_are_kept(llama):
    model, inputs = llama
    before = hooks(model)
    with LayerContrast(model, STATIC) as dola:
        model.generate(**inputs, logits_processor=[dola], max_new_tokens=NEW, use_cache=False)
        assert {layer: tuple(x.shape) for layer, x in dola.rows.rows.items()} == {2: (2, 32)}
        assert all(x.untyped_storage().nbytes() == 2 * 32 * 4 for x in dola.rows.rows.values())
        assert not dola.end.rows
        assert hooks(model) == before + 1  # that of the last block went after the first token
