"""What the rooms of capture share, each by a table: what goes in and what comes out."""

import collections
import contextlib
import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

from vlmlab import capture
from vlmlab.capturing.attention_tap import Attention
from vlmlab.capturing.changes import mask_of
from vlmlab.capturing.check_layout import grid_of, noise_like
from vlmlab.capturing.finite import shown
from vlmlab.capturing.module_tower import first, names_of, swapped, unwrapped
from vlmlab.capturing.patches import grids_of, of_patches
from vlmlab.capturing.reducers import Axis, Table
from vlmlab.capturing.running import in_memory_order
from vlmlab.capturing.store_key import describe
from vlmlab.capturing.store_key import short as shortened
from vlmlab.capturing.text_roles import of_ends, of_words
from vlmlab.models.families import Patches, Words
from vlmlab.token_labels import SampleRoles, tokens_of

META = torch.device("meta")  # a device that holds no data: what is made on another one is an error


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# --- what modules take and return ---------------------------------------------------------------


def test_the_first_value_of_what_a_module_takes_or_returns():
    x, y = draw(3, 2), draw(5, 2)
    words = {"pixel_values": y, "input_ids": x}
    for given in (x, [x, y], (x, y), {"a": x, "b": y}, words, ([{"a": (x, y)}], y), [words]):
        assert first(given) is x and unwrapped((given, y), {"z": y}) is x
        assert unwrapped((), {"hidden": given, "other": y}) is x
    assert first("text") == "text" and first(None) is None


def test_the_rest_stays_when_the_first_value_is_swapped():
    x, new = draw(2, 3, 4), draw(6, 4)
    out = swapped(x, new)
    assert out.shape == x.shape and torch.equal(out.reshape(6, 4), new)
    for kind in (list, tuple):
        out = swapped(kind([x, "mask", 5]), new)
        assert type(out) is kind and out[0] is new and list(out[1:]) == ["mask", 5]
    out = swapped(collections.OrderedDict(hidden=x, cache=5), new)
    assert type(out) is collections.OrderedDict and list(out) == ["hidden", "cache"]
    assert out["hidden"] is new and out["cache"] == 5


def test_the_names_of_arguments():
    class Module(nn.Module):
        def forward(self, input_ids, mask=None, *more, scale=1, **rest): ...

    assert names_of(Module()) == names_of(Module().forward) == ("input_ids", "mask", "scale")
    assert names_of(lambda *a, **k: 0) is None and names_of(lambda: 0) is None
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(dict)
    assert names_of(dict) is None


def test_an_attention_that_looks_at_itself_is_stored_token_first():
    module, x, y = nn.Identity(), draw(4, 6, 8), draw(4, 6, 8)
    q, k, v, mask = in_memory_order(module, (x, x, x, "mask"))
    assert q is k is v and mask == "mask" and torch.equal(q, x) and q.transpose(0, 1).is_contiguous()
    assert len(in_memory_order(module, (x, x, x))) == 3
    for other in ((y, x, x), (x, y, x), (x, x, y), (x, x), (x[0],) * 3, (x[None],) * 3):
        assert in_memory_order(module, other) is None


# --- attention ----------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [2, 3])
def test_grouped_queries_of_one_token_are_put_apart(groups):
    """Two heads of keys, `groups` queries of each: side by side as tokens, or as heads of their own."""
    q, k, v = draw(5, 2, groups, 8), draw(5, 2, 7, 8), draw(5, 2, 7, 4)
    scores = torch.einsum("bhgw,bhtw->bhgt", q, k) / math.sqrt(8)
    weights = scores.softmax(dim=-1).reshape(5, 2 * groups, 1, 7)
    heads = [h for h in range(2) for _ in range(groups)]
    z = draw(5, 2, groups, 4)
    beside = Attention(q, k, v, None, False, None, z)
    apart = Attention(q.reshape(5, 2 * groups, 1, 8), k, v, None, False, None, z.reshape(5, -1, 1, 4))
    for call, queries in ((beside, 1), (apart, 1), (apart, None)):
        assert torch.allclose(call.part("probs", queries), weights, atol=1e-6)
        assert torch.equal(call.part("k", queries), k[:, heads])
        assert torch.equal(call.part("v", queries), v[:, heads])
        assert torch.equal(call.part("q", queries), q.reshape(5, 2 * groups, 1, 8))
        assert torch.equal(call.part("z", queries), z.reshape(5, 2 * groups, 1, 4))
    for queries in (None, groups, 4):  # several tokens look: nothing is side by side
        assert torch.equal(beside.part("q", queries), q) and torch.equal(beside.part("k", queries), k)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_probabilities_do_not_follow_autocast(kind):
    q, k = draw(2, 3, 5, 8).to(kind), draw(2, 3, 5, 8).to(kind)
    expected = (q.double() @ k.double().transpose(-1, -2) / math.sqrt(8)).softmax(dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Attention(q, k, k, None, False, None).probs
    assert found.dtype == kind and (found - expected).abs().max() < (1e-14 if kind == torch.float64 else 1e-6)


# --- checks with noise --------------------------------------------------------------------------


def test_noise_has_two_images_and_the_first_with_another_edge():
    batch = {
        "pixels": draw(5, 3, 4, 6).double(),
        "patches": draw(5, 7, 2),
        "mask": torch.arange(10).view(5, 2),
    }
    batch["places"], batch["scale"] = torch.arange(40).view(5, 4, 2), draw(5)
    noise = noise_like(batch)
    pixels, patches = noise["pixels"], noise["patches"]
    assert pixels.shape == (4, 3, 4, 6) and pixels.dtype == torch.float64 and patches.shape == (4, 7, 2)
    assert (pixels[0] != pixels[1]).all() and (patches[0] != patches[1]).all()
    assert 0.5 < pixels.std() < 1.5 and 0.5 < patches.std() < 2
    row, column = (pixels[0] != pixels[i] for i in (2, 3))
    assert row[:, 0].all() and not row[:, 1:].any()
    assert column[:, :, 0].all() and not column[:, :, 1:].any()
    assert torch.equal(patches[0], patches[2]) and torch.equal(patches[0], patches[3])
    for name in ("mask", "places", "scale"):
        assert torch.equal(noise[name], torch.stack([batch[name][0]] * 4))
    assert torch.equal(noise_like(batch["pixels"]), pixels)  # the same each time


@pytest.mark.parametrize("broad", [1, 2])
@pytest.mark.parametrize(("rows", "cols"), [(4, 9), (9, 4), (3, 3), (6, 5), (1, 5), (5, 1), (1, 1)])
def test_whole_edges_tell_the_grid(rows, cols, broad):
    number = np.arange(rows * cols)
    found = grid_of(number[number // cols < broad], number[number % cols < broad], rows * cols)
    assert found == (rows, cols) and all(type(n) is int for n in found)


@pytest.mark.parametrize(
    ("first_row", "first_col", "patches"),
    [
        ([], [], 0),
        ([], [0, 3], 6),
        ([0, 1, 2], [0, 3, 6], 7),
        ([0, 1], [0, 3], 6),
        ([1, 2, 3], [0, 3], 6),
        ([0, 1, 3], [0, 3], 6),
        ([0, 1, 2], [0, 3, 4], 6),
        ([0, 1, 2], [0, 2, 5], 6),
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], 6),
    ],
)
def test_edges_that_are_no_whole_ones_tell_nothing(first_row, first_col, patches):
    assert grid_of(np.array(first_row, int), np.array(first_col, int), patches) is None


# --- labels -------------------------------------------------------------------------------------


def table(*dims, tokens=(("sos", 0), ("word", 0), ("word", 1), ("word", 2)), codes=None, names=("sos", "word", "eos", "pad")):  # fmt: skip
    axes = {dim: Axis(tuple(tokens), whole=True) for dim in dims if dim in ("token", "query")}
    known = (
        {} if codes is None else {dim: SampleRoles(tuple(tokens), names, torch.tensor(codes)) for dim in axes}
    )
    return Table("text.x", 1, dims, axes, known)


CODES = [[0, 1, 2, 3], [0, 1, 1, 1], [0, 2, 3, 3]]  # the second text has no end


@pytest.mark.parametrize("dims", [("sample", "token", "feature"), ("sample", "head", "query", "token")])
def test_a_role_that_a_sample_lacks_is_nan(dims):
    about = table(*dims, codes=CODES)
    x = draw(3, 4, 5) if len(dims) == 3 else draw(3, 2, 4, 4)
    axis = dims.index("query" if "query" in dims else "token")
    kept = capture.roles("eos", "word", "prompt")(x, about)
    assert kept.dims == dims and kept.axes[dims[axis]].tokens == (
        ("eos", 0),
        *(("word", i) for i in range(3)),
    )
    values, rows = kept.values.movedim(axis, 1), x.movedim(axis, 1)
    for sample, (end, words) in enumerate(((2, [1]), (None, [1, 2, 3]), (1, []))):
        eos = values[sample, 0]
        assert eos.isnan().all() if end is None else torch.equal(eos, rows[sample, end])
        for place in (1, 2, 3):
            word = values[sample, place]
            assert torch.equal(word, rows[sample, place]) if place in words else word.isnan().all()
    assert table(*dims, codes=CODES).eos.tolist() == [2, 0, 1]
    assert table(*dims).eos is None and table(*dims, codes=[[0] * 4], names=("word",)).eos is None
    assert about.mask("pad", x).tolist() == [[c == 3 for c in row] for row in CODES]
    assert table(*dims).mask("word", x).tolist() == [[False, True, True, True]]
    assert about.mask("cls", x).tolist() == [[False] * 4]
    assert about.positions("word") == [1, 2, 3] and about.positions("eos") == []


def test_numbers_of_padding_may_be_none():
    x = draw(3, 2, 4, 4)
    x[0, :, :, 3] = x[2, 1, 2] = torch.inf
    hidden = torch.tensor(CODES) == 3
    about = table("sample", "head", "query", "token", codes=CODES)
    expected = x.isfinite() | hidden[:, None, :, None] | hidden[:, None, None, :]
    assert torch.equal(shown(x, about), expected) and expected.all()
    x[1, 0, 3, 2] = torch.nan
    assert shown(x, about).logical_not().nonzero().tolist() == [[1, 0, 3, 2]]
    assert torch.equal(shown(x, table("sample", "head", "query", "token")), x.isfinite())
    no_pad = table("sample", "head", "query", "token", codes=[[0] * 4] * 3, names=("word",))
    assert torch.equal(shown(x, no_pad), x.isfinite())


def test_means_and_reducers_of_ones_own():
    x, about = draw(3, 4, 5), table("sample", "token", "feature")
    kept = capture.mean("word", "sos")(x, about)
    assert kept.axes["token"].tokens == (("word", 0), ("sos", 0))
    assert torch.allclose(kept.values, torch.stack([x[:, 1:].mean(dim=1), x[:, 0]], dim=1))
    none = capture.mean("cls")(x, about)
    assert none.values.shape == (3, 0, 5) and none.axes["token"].tokens == ()
    assert repr(capture.roles("cls", "sos")) == "Reducer(name='roles(cls, sos)', roles=('cls', 'sos'))"
    assert [r.name for r in (capture.cls_row, capture.norms, capture.row("eos"), capture.mean("patch"))] == [
        "cls_row",
        "norms",
        "row(eos)",
        "mean(patch)",
    ]


def test_text_ends_and_what_stands_behind():
    found = of_ends(torch.tensor([2, 0, 3]), 4)
    assert found.tokens == tuple(("word", i) for i in range(4)) and found.names == ("word", "eos", "pad")
    assert found.text().tolist() == [
        ["word", "word", "eos", "pad"],
        ["eos", "pad", "pad", "pad"],
        ["word", "word", "word", "eos"],
    ]


IDS = torch.tensor([[5, 9, 9, 2], [4, 9, 3, 7]])
SHOWN = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("words", "batch", "expected"),
    [
        (Words("word*", "mask"), IDS, ["word word word eos"] * 2),
        (Words("sos word*", "mask"), IDS, ["sos word word eos"] * 2),
        (
            Words("sos word*", "mask"),
            {"input_ids": IDS, "attention_mask": SHOWN},
            ["pad sos eos pad", "sos word word eos"],
        ),
        (Words("word*", "mask"), {"attention_mask": SHOWN}, ["pad word eos pad", "word word word eos"]),
        (Words("sos word*", "argmax"), IDS, ["sos eos pad pad", "sos eos pad pad"]),
        (Words("word*", "eos", eos_id=9), IDS, ["word eos pad pad", "word eos pad pad"]),
        (Words("cls word*", "first"), IDS, ["eos pad pad pad"] * 2),
        (Words("word*", "last"), IDS, ["word word word eos"] * 2),
        (Words("sos prompt word*", ""), IDS, ["sos prompt word word"] * 2),
        (Words("sos word*", ""), {"other": IDS}, ["sos word word word"] * 2),
        (Words("word* prompt:2", "argmax"), IDS, ["word eos prompt prompt"] * 2),
        (Words("word*", "mask", image="config.image"), IDS, ["word patch patch eos", "word patch word eos"]),
        (Words("sos word*", "mask", mask="shown"), {"input_ids": IDS, "shown": SHOWN}, ["pad sos eos pad", "sos word word eos"]),
    ],
)  # fmt: skip
def test_words_by_what_a_family_says(words, batch, expected):
    module = nn.Identity()
    module.config = nn.Identity()
    module.config.image = 9
    found = of_words(words, module, batch, 4)
    assert found.text().tolist() == [text.split() for text in expected]


def test_masks_of_another_length_are_named():
    with pytest.raises(
        ValueError, match=r"attention_mask has shape \(2, 4\); expected \(sample, 5\), one for each"
    ):
        of_words(Words("word*", "mask"), nn.Identity(), {"input_ids": IDS, "attention_mask": SHOWN}, 5)
    about, layout = Patches("cls patch*", "mask", "sizes", "places"), (("cls", 1), ("patch", 4))
    for mask in (SHOWN[:, :3], SHOWN[..., None]):
        with pytest.raises(
            ValueError, match=r"mask has shape .*; expected \(sample, 4\), one for each patch"
        ):
            of_patches(about, {"mask": mask}, layout)
    found = of_patches(about, {"mask": SHOWN}, layout)
    assert found.tokens == tokens_of(layout)
    assert found.text().tolist() == [["cls", "pad", "patch", "patch", "pad"], ["cls"] + ["patch"] * 4]


def test_grids_of_images_of_different_sizes():
    about = Patches("patch*", "mask", "sizes", "places")
    sizes = torch.tensor([[2, 3], [1, 4]])
    found = grids_of(about, {"sizes": sizes})
    assert {name: x.tolist() for name, x in found.items()} == {"rows": [2, 1], "cols": [3, 4]}
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2], dtype=torch.bool)
    places = torch.tensor([[[i // 3, i % 3] for i in range(6)], [[0, i] for i in range(4)] + [[9, 9]] * 2])
    found = grids_of(about, {"mask": mask, "places": places})
    assert {name: x.tolist() for name, x in found.items()} == {"rows": [2, 1], "cols": [3, 4]}
    for other in (places.flip(-1), places[:, torch.tensor([1, 0, 2, 3, 4, 5])], places * 2):
        assert grids_of(about, {"mask": mask, "places": other}) == {}
    assert grids_of(about, {"mask": mask}) == {}


# --- devices ------------------------------------------------------------------------------------


def test_what_is_made_beside_a_tensor_is_on_its_device(monkeypatch):
    """With a device that holds no data, where any other one is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())  # knows no such device
    x, q = torch.empty(3, 4, 5, device=META), torch.empty(3, 2, 4, 8, device=META)
    ids = torch.zeros(3, 4, dtype=torch.long, device=META)
    plain, known = table("sample", "token", "feature"), table("sample", "token", "feature", codes=CODES)
    made = [
        Attention(q, q, q, None, True, None).probs,
        of_ends(torch.zeros(3, dtype=torch.long, device=META), 4).codes,
        of_words(Words("sos word*", "last"), nn.Identity(), ids, 4).codes,
        of_words(Words("sos word*", "mask"), nn.Identity(), ids, 4).codes,
        of_words(Words("word*", "mask"), nn.Identity(), {"input_ids": ids, "attention_mask": ids}, 4).codes,
        *(about.mask(role, x) for about in (plain, known) for role in ("sos", "eos", "cls")),
        mask_of(plain, x, ()),
        mask_of(plain, x, ("word",)),
        capture.roles("eos", "word")(x, known).values,
        of_patches(
            Patches("patch*", "mask"),
            {"mask": torch.ones(3, 4, dtype=torch.bool, device=META)},
            (("patch", 4),),
        ).codes,
    ]  # fmt: skip
    assert [m.device for m in made] == [META] * len(made)


# --- reducers in words --------------------------------------------------------------------------


class Callable:
    def __call__(self, x, table):
        return x


def with_default(x, table, n=3):
    return x[:, :n]


def with_keyword(x, table, *, n=3):
    return x[:, :n]


@pytest.mark.parametrize("reducer", [Callable(), with_default, with_keyword])
def test_reducers_that_hold_values_need_a_description(reducer):
    with pytest.raises(ValueError, match=r"holds values that out= cannot see"):
        describe(reducer)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "none"),
        ("", "none"),
        ("x", "x"),
        ("a" * 40 + "b" * 40, "a" * 40 + "b" * 40),
        ("a" * 41 + "b" * 40, "a" * 40 + "…" + "b" * 12),
    ],
)
def test_long_parts_of_a_key_are_cut(value, expected):
    assert shortened(value) == expected
