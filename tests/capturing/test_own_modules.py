"""Modules of one's own, as small as they can be: what their blocks, features and generations may look like."""

import types

import numpy as np
import pytest
import torch
from family_models import CASES, FUSION, Fusion, built
from torch import nn

import vlmlab
from vlmlab import capture
from vlmlab.models.families import Family, Words

SITES = {"resid.pre": ("", "in"), "resid.post": ("", "out"), "mlp.out": ("probe", "out")}
IMAGE = Family("layers", SITES, "cls patch*", attention={"attn": "attn"})
TEXT = Family("layers", SITES, Words("sos word*", "last"), "text", attention={"attn": "attn"})


class Probe(nn.Module):
    """Hands on what `change` makes of its input."""

    change = staticmethod(lambda x: x.clone())

    def forward(self, x):
        return self.change(x)


class Block(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True, **settings)
        self.probe, self.spare = Probe(), nn.Identity()

    def forward(self, x, scale=1.0):
        self.probe(x)
        return scale * (x + self.attn(x, x, x, need_weights=False)[0])


class Pictures(nn.Module):
    """Sixteen patches behind a class token; returns all tokens."""

    def __init__(self, depth=1, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.cls = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(8))
        self.layers = nn.ModuleList(Block(**settings) for _ in range(depth))

    def embed(self, images):
        x = self.stem(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)

    def forward(self, images):
        x = self.embed(images)
        for layer in self.layers:
            x = layer(x)
        return x


class Reader(nn.Module):
    """Words into features; `read` makes them of the tokens behind the last block."""

    def __init__(self, read=lambda x: x[:, -1], depth=1):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.read = nn.Embedding(20, 8), read
        self.layers = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, input_ids, attention_mask=None):
        x = self.words(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.read(x)


def images(n=2, size=(32, 32)):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1))


def ids(n=3, length=5):
    return torch.randint(0, 20, (n, length), generator=torch.Generator().manual_seed(1))


def grab(model, data, sites, family=IMAGE, **options):
    return capture(model.eval().requires_grad_(False), data, sites, family=family, progress=False, **options)


# --- how blocks run -----------------------------------------------------------------------------


class ByName(Pictures):
    def forward(self, images):
        x = self.embed(images)
        for layer in self.layers:
            x = layer(x=x, scale=2.0)
        return x


def test_blocks_whose_input_comes_by_name_are_read_and_edited():
    model = ByName(depth=2)
    record = grab(model, images(), ["image.embed", "image.resid.*"])
    assert np.allclose(record["image.embed"], model.embed(images()), atol=1e-6)
    assert np.array_equal(record["image.resid.pre"].sel(layer=2), record["image.resid.post"].sel(layer=1))
    seen = []

    def nothing(x, table):
        seen.append(table.layer)
        return torch.zeros_like(x)

    bias = 2 * model.layers[1].attn(*[torch.zeros(1, 17, 8)] * 3)[0]  # of a block whose input is zero
    with capture.edit(model, {"image.resid.pre[2]": nothing}, family=IMAGE):
        assert torch.allclose(model(images()), bias.expand(2, -1, -1), atol=1e-6)
    assert seen == [2]


class InPlace(Pictures):
    """Writes over what goes into a block and over what came out of it."""

    def forward(self, images):
        x = self.embed(images)
        for layer in self.layers:
            y = layer(x)
            x.mul_(2)
            x = y + 0
            y.mul_(3)
        return x


def test_what_is_kept_was_there_when_the_block_ran():
    kept, plain = (grab(m(depth=2), images(), "image.resid.*") for m in (InPlace, Pictures))
    for site in ("image.resid.pre", "image.resid.post"):
        assert np.array_equal(kept[site], plain[site])


@pytest.mark.parametrize("numbers", [1e-4, 1.0, 1e4])
def test_the_checks_hold_for_numbers_of_any_size(numbers):
    model = Pictures(depth=2)
    with torch.no_grad():
        for weight in (model.stem.weight, model.stem.bias, model.cls):
            weight.mul_(numbers)
    x = grab(model, images(), "image.resid.post")["image.resid.post"]
    assert x["row"].values.tolist() == [-1] + [i // 4 for i in range(16)]


@pytest.mark.parametrize(("model", "family", "data"), [(Pictures, IMAGE, images), (Reader, TEXT, ids)])
def test_capture_draws_no_random_numbers_of_the_program(model, family, data):
    model = model()
    state = torch.get_rng_state()
    grab(model, data(), f"{family.kind}.resid.post", family)
    assert torch.equal(torch.get_rng_state(), state)


def test_attention_gets_its_input_in_memory_order_only_where_it_is_read(monkeypatch):
    model, seen = Pictures(), []
    plain = model.layers[0].attn.forward

    def look(q, k, v, **options):
        seen.append(q.transpose(0, 1).is_contiguous())
        return plain(q, k, v, **options)

    monkeypatch.setattr(model.layers[0].attn, "forward", look)
    grab(model, images(), "image.attn.probs")
    grab(model, images(), "image.resid.post")
    capture.attention_grads(model, images(), lambda x: x.sum(dim=1), family=IMAGE)
    assert seen == [
        False,
        False,
        True,
        False,
        False,
        False,
        False,
        False,
    ]  # checks and plain runs before each


# --- what is no site ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda x: x[:, 0, 0], r"\(2,\)"),
        (lambda x: x[:, :, 0], r"\(2, 17\)"),
        (lambda x: x[:, 1:], r"\(2, 16, 8\)"),
        (lambda x: torch.cat([x, x[:, :1]], dim=1), r"\(2, 18, 8\)"),
        (lambda x: torch.cat([x, x]), r"\(4, 17, 8\)"),
        (lambda x: x[:1], r"\(1, 17, 8\)"),
    ],
)
def test_a_site_of_another_shape_is_one_clear_error(change, shape, hooks_left):
    model = Pictures()
    model.layers[0].probe.change = change
    with pytest.raises(
        ValueError, match=rf"image\.mlp\.out of block 1 has shape {shape}; expected .*with the 17 tokens"
    ):
        grab(model, images(), "image.mlp.out")
    assert not hooks_left(model)


def test_keys_may_be_more_than_the_tokens():
    """As of a cache with room for more: here a key of zeros stands behind them."""
    model = Pictures(add_zero_attn=True)
    record = grab(model, images(), "image.attn.*")
    q, k, p = (record[f"image.attn.{part}"].isel(layer=0).values for part in ("q", "k", "probs"))
    assert k.shape == (2, 2, 17, 4) and p.shape == (2, 2, 17, 17)
    weights = np.exp(q @ k.swapaxes(-1, -2) / 2)
    assert np.abs(p - weights / (weights.sum(-1, keepdims=True) + 1)).max() < 1e-6  # exp(0) for the zeros


def test_a_submodule_that_does_not_run_is_named():
    family = Family("layers", {"resid.post": ("", "out"), "mlp.out": ("spare", "out")}, "cls patch*")
    message = r"image\.mlp\.out was never hit in blocks \[1\]: the block does not run that submodule"
    with pytest.raises(ValueError, match=f"{message}.*fired: nothing"):
        grab(Pictures(), images(), "image.mlp.out", family)
    with pytest.raises(ValueError, match=rf"{message}.*fired: image\.resid\.post\[1\]"):
        grab(Pictures(), images(), ["image.mlp.out", "image.resid.post"], family)


def test_the_submodules_of_the_block_that_was_hit_twice_are_listed():
    model = built(next(c for c in CASES if c.name == "own fusion module"))
    model.layers = model.layers[:2]
    model.layers[1].add_module("another", nn.Identity())
    one = Family("layers", {"resid.post": ("", "out")}, FUSION.tokens, "text")
    data = CASES[[c.name for c in CASES].index("own fusion module")].data("text")
    with pytest.raises(RuntimeError, match=r"it has self_attn, .*dropout3$"):
        capture(model, data, "text.attn.probs", family=one, progress=False)


# --- features -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "read"), [("cls patch*", lambda x: x[:, 0]), ("patch*", lambda x: x.mean(dim=1))]
)
def test_features_of_tokens_are_the_class_token_or_their_mean(tokens, read):
    model = Pictures()
    if tokens == "patch*":
        model.embed = lambda x: model.stem(x).flatten(2).transpose(1, 2)
    found = grab(model, images(), "image.final", Family("layers", SITES, tokens))["image.final"]
    assert np.abs(found.values[:, 0] - read(model(images())).numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda x: None, "Reader returned NoneType; expected features"),
        (lambda x: "words", "Reader returned str; expected features"),
        (lambda x: x[None, None], r"Reader returned shape \(1, 1, 2, 5, 8\); expected features \(batch"),
        (lambda x: x[0, 0], r"Reader returned shape \(8,\); expected features"),
    ],
)
def test_what_is_no_features_is_named(read, message):
    with pytest.raises(ValueError, match=message):
        grab(Reader(read), ids(), "text.final", TEXT)


@pytest.mark.parametrize("numbers", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize(("share", "fits"), [(0.3, False), (1e-6, True)])
def test_the_end_of_a_text_is_refuted_by_what_other_tokens_add(numbers, share, fits):
    model = Reader(lambda x: numbers * (x[:, -1] + share * x[:, 1:3].mean(dim=1)))
    if fits:
        roles = grab(model, ids(), "text.embed", TEXT)["text.embed"]["role"].values
        assert roles.tolist() == [["sos", "word", "word", "word", "eos"]] * 3
        return
    with pytest.raises(ValueError, match="token 4 of text 0 is called eos, but the features change"):
        grab(model, ids(), "text.embed", TEXT)


def test_features_that_are_a_mean_need_no_end():
    family = Family("layers", SITES, Words("word*", "mask"), "text")
    data = {"input_ids": ids(), "attention_mask": torch.ones(3, 5, dtype=torch.long)}
    model = Reader(lambda x: x.mean(dim=1))
    found = grab(model, data, ["text.final", "text.embed"], family)
    assert np.abs(found["text.final"].values[:, 0] - model(ids()).numpy()).max() < 1e-6
    assert found["text.embed"]["role"].values.tolist() == [["word"] * 4 + ["eos"]] * 3


@pytest.mark.parametrize("end", ["argmax", "last", "first"])
def test_a_text_of_one_token(end):
    family = Family("layers", SITES, Words("sos word*", end), "text")
    x = grab(Reader(), ids(2, 1), ["text.embed", "text.final"], family)["text.embed"]
    assert x["role"].values.tolist() == [["eos"], ["eos"]] and x.shape == (2, 1, 8)


class Anything(Reader):
    def forward(self, **inputs):
        self.given = sorted(inputs)
        return super().forward(inputs["input_ids"])


def test_a_module_that_names_no_arguments_is_given_all():
    model = Anything()
    data = {"input_ids": ids(), "more": torch.zeros(3)}
    grab(model, data, "text.final", TEXT)
    assert model.given == ["input_ids", "more"]


def test_roles_of_words_are_known_to_an_edit_inside_capture_only():
    model, seen = Reader(), []

    def look(x, table):
        seen.append((table.dims, table.axis.tokens, table.mask("eos", x).tolist(), sorted(table.roles)))
        return x

    with capture.edit(model, {"text.resid.post[1]": look}, family=TEXT):
        model(ids())
        capture(model.eval(), ids(), "text.final", family=TEXT, progress=False)
    words = tuple(("word", i) for i in range(5))
    assert seen[0] == (("sample", "token", "feature"), words, [[False] * 5], [])
    assert seen[-1] == (("sample", "token", "feature"), words, [[False] * 4 + [True]] * 3, ["token"])


# --- generation ---------------------------------------------------------------------------------


class Writer(Reader):
    """Writes without a cache: every step runs all words so far."""

    config = types.SimpleNamespace()

    def forward(self, input_ids):
        return super().forward(input_ids) @ self.words.weight.T

    def generate(self, input_ids, max_new_tokens, stop=None):
        for _ in range(max_new_tokens if stop is None else stop):
            input_ids = torch.cat([input_ids, self(input_ids).argmax(dim=1, keepdim=True)], dim=1)
        return input_ids


@pytest.mark.parametrize(
    "generate", [{"max_new_tokens": 1}, {"max_new_tokens": 3}, {"max_new_tokens": 4, "stop": 2}]
)
def test_a_generation_without_a_cache(generate):
    model, steps, ran = Writer(depth=2).eval(), generate["max_new_tokens"], generate.get("stop")
    ran = ran or steps
    sites = ["text.embed", "text.resid.pre", "text.resid.post", "text.attn.probs", "text.final"]
    record = grab(model, ids(), sites, TEXT, generate=generate, batch_size=2)
    out = model.generate(ids(), ran)
    assert record["text.final"].values[:, 0, :ran].tolist() == out[:, 5:].tolist()
    assert (record["text.final"].values[:, 0, ran:] == -1).all() and record["step"].size == steps
    x = record["text.resid.post"]
    assert x["role"].values[0].tolist() == ["sos"] + ["word"] * 3 + ["eos"] + ["new"] * (steps - 1)
    for step in range(ran):
        expected = grab(Reader(depth=2), out[:, : 5 + step], "text.resid.post", TEXT)["text.resid.post"]
        here = x.sel(step=step)
        assert np.allclose(here.isel(token=slice(5 + step)), expected, atol=1e-6)
        assert here.isel(token=slice(5 + step, None)).isnull().all()
    assert all(record[site].sel(step=slice(ran, None)).isnull().all() for site in sites[:4])
    embed, first = (np.nan_to_num(x.values) for x in (record["text.embed"], record["text.resid.pre"]))
    assert np.array_equal(embed, first[0]) and record["text.embed"].dims[1] == "step"


@pytest.mark.parametrize("number", [0, -1, 2.0, None, "3"])
def test_the_number_of_new_tokens_is_a_whole_one(number):
    with pytest.raises(ValueError, match="needs max_new_tokens, a whole number of at least 1"):
        grab(Writer(), ids(), "text.final", TEXT, generate={"max_new_tokens": number})


# --- two attentions, gradients ------------------------------------------------------------------


class Scaled(Fusion):
    def forward(self, input_ids, pixel_values, attention_mask, scale, boxes, other=None):
        return super().forward(input_ids, pixel_values, attention_mask)


@pytest.mark.parametrize("pictures", [1, 2])
def test_keys_have_the_grid_of_the_one_picture(pictures):
    torch.manual_seed(0)
    data = {"input_ids": ids(), "attention_mask": torch.ones(3, 5, dtype=torch.long), "scale": torch.ones(3)}
    data |= {"boxes": torch.ones(3, 1, 1, 4, dtype=torch.long), "pixel_values": images(3, (32, 64))}
    data |= {"other": images(3)} if pictures == 2 else {}
    keep = {"*.cross.k": capture.roles("patch"), "*.attn.k": None}
    record = grab(Scaled(), data, ["text.attn.k", "text.cross.k"], FUSION, keep=keep)
    assert "row" not in record["text.attn.k"].coords
    keys = record["text.cross.k"]
    assert keys["role"].values.tolist() == ["patch"] * 32
    assert ("row" in keys.coords) == (pictures == 1) == ("cross_grid" in record.attrs)
    if pictures == 1:
        assert record.attrs["cross_grid"] == [4, 8]
        assert keys["row"].values.tolist() == [i // 8 for i in range(32)]


class Early(Pictures):
    """Its last block runs, and nothing is read behind it."""

    def forward(self, images):
        x = self.layers[0](self.embed(images))
        self.layers[1](x)
        return x[:, 0]


def test_a_block_that_the_score_does_not_depend_on_has_gradient_zero():
    found = capture.attention_grads(Early(depth=2).eval(), images(), lambda x: x.sum(dim=1), family=IMAGE)
    grads = found["image.attn.grads"]
    assert (
        grads["layer"].values.tolist() == [1, 2] and grads.sel(layer=1).any() and not grads.sel(layer=2).any()
    )
    assert np.abs(found["image.attn.probs"].sum("token") - 1).max() < 1e-6
    assert found.attrs["each_layer"] == "False" and found.attrs["grid"] == [4, 4]
    assert found["image.attn.grads"]["query_row"].values.tolist() == [-1] + [i // 4 for i in range(16)]


def test_other_libraries_modules_are_told_by_their_names_in_errors():
    with pytest.raises(ValueError, match="Pictures has a read-out of its own"):
        capture.attention_grads(
            Pictures().eval(), images(), lambda x: x.sum(1), each_layer=True, family=IMAGE
        )
    with pytest.raises(ValueError, match="family= is for modules of other libraries"):
        capture(vlmlab.load("tiny", device="cpu"), images(2, (64, 64)), "image.final", family=IMAGE)
