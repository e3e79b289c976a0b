"""Blocks with two attentions: sites by submodule, keys of another side, labels of both."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_models import CASES, ENCODER, FUSION, MIXED, TEXT, Fusion, built, need_kernel
from torch import nn

import vlmlab
from vlmlab.models.families import FAMILIES, Family, Words
from vlmlab.token_labels import parse_layout, tokens_of

KERNEL = F.scaled_dot_product_attention
CASE = next(c for c in CASES if c.name == "own fusion module")


def grab(model, sites, family=FUSION, **options):
    return vlmlab.capture(model, CASE.data("text"), sites, family=family, progress=False, **options)


def roles_of(layouts):
    return [[role for role, _ in tokens_of(parse_layout(text, 12))] for text in layouts]


def test_both_attentions_equal_softmax_by_hand():
    model, data = built(CASE), CASE.data("text")
    record = grab(model, "text.*", batch_size=2)
    patches = model.image(model.stem(data["pixel_values"]).flatten(2).transpose(1, 2))
    for number, layer in enumerate(model.layers, start=1):
        x = torch.tensor(record["text.resid.pre"].sel(layer=number).values)
        hidden = data["attention_mask"] == 0
        by_hand(record, number, "attn", layer.self_attn, x, x, hidden)
        looking = layer.norm1(x + torch.tensor(record["text.attn.out"].sel(layer=number).values))
        by_hand(record, number, "cross", layer.multihead_attn, looking, patches, None)


def by_hand(record, number, name, module, x, keys, hidden):
    """Probabilities and output of one attention, from its weights."""
    weights = [w.detach() for w in module.in_proj_weight.chunk(3)]
    q, k, v = (
        (y @ w.T + b).unflatten(-1, (4, 8)).transpose(1, 2).detach()
        for y, w, b in zip((x, keys, keys), weights, module.in_proj_bias.detach().chunk(3))
    )
    scores = q @ k.transpose(-1, -2) / 8**0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
    probs = scores.softmax(dim=-1)
    site = {part: record[f"text.{name}.{part}"].sel(layer=number).values for part in ("q", "k", "v", "probs")}
    for part, expected in (("q", q), ("k", k), ("v", v)):
        assert np.abs(site[part] - expected.numpy()).max() < 1e-5
    assert np.abs(site["probs"] - probs.numpy()).max() < 1e-6 and probs.std() > 1e-3
    out = (probs @ v).transpose(1, 2).flatten(2) @ module.out_proj.weight.T + module.out_proj.bias
    assert np.abs(record[f"text.{name}.out"].sel(layer=number).values - out.detach().numpy()).max() < 1e-5


def test_queries_are_words_and_keys_are_patches():
    record = grab(built(CASE), ["text.cross.*", "text.attn.probs"], batch_size=2)
    cross, own = record["text.cross.probs"], record["text.attn.probs"]
    assert cross.dims == own.dims == ("layer", "sample", "head", "query", "token")
    assert cross["query_role"].values.tolist() == own["role"].values.tolist() == roles_of(MIXED)
    assert cross["role"].values.tolist() == ["patch"] * 16
    assert cross["row"].values.tolist() == [i // 4 for i in range(16)]
    assert record["text.cross.k"]["role"].values.tolist() == ["patch"] * 16
    assert record["text.cross.q"]["role"].values.tolist() == roles_of(MIXED)


def test_the_keys_are_what_the_image_tower_hands_on():
    model = built(CASE)
    image = vlmlab.capture(
        model, CASE.data("text")["pixel_values"], "image.resid.post", family=CASE.family, progress=False
    )
    last = torch.tensor(image["image.resid.post"].sel(layer=3).values)
    keys = grab(model, "text.cross.k")["text.cross.k"]
    for number, layer in enumerate(model.layers, start=1):
        w, b = (
            p.chunk(3)[1] for p in (layer.multihead_attn.in_proj_weight, layer.multihead_attn.in_proj_bias)
        )
        expected = (last @ w.T + b).unflatten(-1, (4, 8)).transpose(1, 2).detach().numpy()
        assert np.abs(keys.sel(layer=number).values - expected).max() < 1e-5
    assert keys["role"].values.tolist() == image["image.resid.post"]["role"].values.tolist()


def test_keys_may_be_words_of_another_text():
    case = next(c for c in CASES if c.name == "HF T5")
    model, sites = built(case), ["decoder.cross.probs", "decoder.cross.k", "decoder.attn.k"]
    need_kernel(model, "decoder")
    record = vlmlab.capture(model, case.data("decoder"), sites, batch_size=2, progress=False)
    cross = record["decoder.cross.probs"]
    assert cross["role"].values.tolist() == roles_of(ENCODER)
    assert cross["query_role"].values.tolist() == [["sos", "word", "word", "word", "eos"]] * 3
    assert cross.notnull().all()
    assert not cross.where(cross["role"] == "pad").fillna(0).any()
    assert record["decoder.cross.k"].sizes["token"] == 12 and record["decoder.attn.k"].sizes["token"] == 5


def test_only_blocks_that_have_it():
    case = next(c for c in CASES if c.name == "HF BLIP-2 without language")
    model, data = built(case), case.data("qformer")
    need_kernel(model, "qformer")
    record = vlmlab.capture(model, data, ["qformer.cross.probs", "qformer.attn.probs[2:]"], progress=False)
    assert record["qformer.cross.probs"]["layer"].values.tolist() == [1, 3]
    assert record["qformer.cross.probs"]["query_role"].values.tolist() == ["latent"] * 4
    assert record["qformer.cross.probs"]["role"].values.tolist() == ["cls"] + ["patch"] * 16
    with pytest.raises(ValueError, match=r"blocks \[2\] have no cross.probs; those that have are \[1, 3\]"):
        vlmlab.capture(model, data, "qformer.cross.probs[2]", progress=False)


def test_reducers_choose_queries_and_keep_the_labels_of_keys():
    capture, model = vlmlab.capture, built(CASE)
    full = grab(model, "text.cross.probs")["text.cross.probs"]
    row = grab(model, "text.cross.probs", keep=capture.row("eos"))["text.cross.probs"]
    assert row["role"].values.tolist() == ["patch"] * 16
    for sample, end in enumerate((11, 11, 8)):
        assert np.allclose(row.values[:, sample], full.values[:, sample, :, end], atol=1e-6)
    some = grab(model, ["text.cross.probs", "text.resid.post"], keep=capture.roles("sos", "word"))
    kept = some["text.resid.post"]
    assert kept["role"].values.tolist() == ["sos"] + ["word"] * 12
    assert kept.isel(token=0).notnull().all() and kept.sel(layer=1).isel(sample=1)[1:5].isnull().all()


def test_an_attention_that_the_family_does_not_name_is_told_from_a_tower_that_runs_twice():
    """Before, a block with two attentions ended in "the model runs its tower more than once"."""
    one = dataclasses.replace(FUSION, attention={"attn": ""})
    with pytest.raises(
        RuntimeError, match=r"kernel more than once inside 'attn'; name the submodules.*multihead_attn"
    ):
        grab(built(CASE), "text.attn.probs", family=one)
    twice = Twice().eval()
    with pytest.raises(RuntimeError, match="the model runs its tower more than once"):
        grab(twice, "text.attn.probs")
    assert F.scaled_dot_product_attention is KERNEL


class Twice(Fusion):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) + super().forward(*args, **kwargs)


def test_keys_without_a_layout_are_one_clear_error(hooks_left):
    model = built(CASE)
    with pytest.raises(
        ValueError, match=r"cross-attention .* looks at 16 tokens of another side; say .*keys="
    ):
        grab(model, "text.cross.k", family=dataclasses.replace(FUSION, keys={}))
    assert not hooks_left(model) and F.scaled_dot_product_attention is KERNEL


def test_hooks_are_gone_after_an_exception(hooks_left):
    def broken(x, table):
        raise KeyError("mine")

    model = built(CASE)
    with pytest.raises(KeyError, match="mine"):
        grab(model, ["text.cross.probs", "text.resid.post"], keep=broken)
    assert not hooks_left(model) and F.scaled_dot_product_attention is KERNEL


def test_what_cross_attention_adds_can_be_edited(hooks_left):
    model, capture = built(CASE), vlmlab.capture
    with capture.edit(model, {"text.cross.out": capture.ablate(values="zero")}, family=FUSION):
        record = grab(model, "text.cross.out")
    assert not record["text.cross.out"].any() and not hooks_left(model)


def test_a_decoder_does_not_know_what_it_looks_at():
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**TEXT, is_decoder=True, add_cross_attention=True)
    model = transformers.BertLMHeadModel(config).eval().requires_grad_(False)
    data = {
        "input_ids": torch.randint(3, 90, (2, 5)),
        "attention_mask": torch.ones(2, 5, dtype=torch.long),
        "encoder_hidden_states": torch.randn(2, 17, 32),
    }
    with pytest.raises(ValueError, match="looks at 17 tokens of another side"):
        vlmlab.capture(model, data, "text.cross.probs", progress=False)
    family = dataclasses.replace(FAMILIES["HF BERT"], keys={"cross": "cls patch*"})
    record = vlmlab.capture(model, data, "text.*", family=family, progress=False)
    assert record["text.cross.probs"]["role"].values.tolist() == ["cls"] + ["patch"] * 16
    assert record["text.attn.probs"].sizes["token"] == 5


class Gated(nn.Module):
    """A block in the manner of Flamingo: words look at an image through a gate, then at each other."""

    def __init__(self, width=32):
        super().__init__()
        self.gate = nn.Parameter(torch.tensor(0.5))
        self.image_attn = nn.MultiheadAttention(width, 4, batch_first=True)
        self.decoder = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True)

    def forward(self, x, media):
        x = x + self.gate.tanh() * self.image_attn(x, media, media, need_weights=False)[0]
        return self.decoder(x)


class Flamingo(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.words, self.media = nn.Embedding(99, width), nn.Parameter(torch.randn(6, width))
        self.layers = nn.ModuleList([Gated(), Gated()])

    def forward(self, input_ids, scale):
        x = self.words(input_ids)
        for layer in self.layers:
            x = layer(x, scale[:, None, None] * self.media)
        return x


def test_a_gated_block_with_its_cross_attention_first():
    family = Family(
        "layers",
        {"resid.pre": ("", "in"), "cross.out": ("image_attn", "out"), "resid.post": ("", "out")},
        Words("word*", "last"),
        "text",
        attention={"attn": "decoder.self_attn", "cross": "image_attn"},
        keys={"cross": "latent*"},
    )
    torch.manual_seed(0)
    model = Flamingo().eval().requires_grad_(False)
    data = {"input_ids": torch.randint(0, 99, (3, 5)), "scale": torch.tensor([1.0, 2.0, 3.0])}
    record = vlmlab.capture(model, data, "text.*", family=family, progress=False)
    cross = record["text.cross.probs"]
    assert cross["role"].values.tolist() == ["latent"] * 6
    x = torch.tensor(record["text.resid.pre"].sel(layer=2).values)
    media = data["scale"][:, None, None] * model.media
    _, expected = model.layers[1].image_attn(x, media, media, average_attn_weights=False)
    assert np.abs(cross.sel(layer=2).values - expected.detach().numpy()).max() < 1e-6
    assert record["text.attn.probs"].sizes["token"] == 5
