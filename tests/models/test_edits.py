"""Edits, layouts, ends and blocks on tokens that can be counted by hand."""

import copy
from types import SimpleNamespace

import pytest
import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

from vlmlab.models import edits, partial_blocks, shared_text, towers
from vlmlab.models.check_towers import check_images, check_text, check_visual
from vlmlab.models.ends import ends, own_tokens
from vlmlab.models.partial_blocks import can_run_in_parts
from vlmlab.models.tokens import Observer, Tokens, leading, span

LAYOUT = ("sos", 1), ("prompt", 2), ("word", 3)


def tokens(layout=LAYOUT, eos=(4, 1, 2)) -> Tokens:
    """Two samples more than one, the number of a token in both of its features; the second sample is 100 higher."""
    count = sum(n for _, n in layout)
    x = torch.arange(float(count))[None, :, None] + 100 * torch.arange(3.0)[:, None, None]
    return Tokens(x.expand(3, count, 2).clone(), tuple(layout), None if eos is None else torch.tensor(eos))


def numbers(x: Tokens) -> list[float]:
    """Of the second sample, without its hundred where it has one."""
    assert torch.equal(x.x[..., 0], x.x[..., 1])
    return [n - 100 if n >= 100 else n for n in x.x[1, :, 0].tolist()]


def values(*numbers) -> torch.Tensor:
    return torch.tensor([[float(n), float(n)] for n in numbers])


@pytest.mark.parametrize(
    ("role", "after", "found", "layout", "eos", "reach"),
    [
        ("new", "sos", [0, -1, -2, 1, 2, 3, 4, 5], (("sos", 1), ("new", 2), *LAYOUT[1:]), [6, 3, 4], 1),
        ("new", "prompt", [0, 1, 2, -1, -2, 3, 4, 5], (*LAYOUT[:2], ("new", 2), LAYOUT[2]), [6, 1, 2], 3),
        ("prompt", "prompt", [0, 1, 2, -1, -2, 3, 4, 5], (LAYOUT[0], ("prompt", 4), LAYOUT[2]), [6, 1, 2], 3),
        ("prompt", "word", [0, 1, 2, 3, 4, 5, -1, -2], (*LAYOUT, ("prompt", 2)), [4, 1, 2], 6),
    ],
)
def test_insert(role, after, found, layout, eos, reach):
    edit = edits.insert(role, values(-1, -2), after)
    new = edit(tokens())
    assert numbers(new) == found and new.layout == layout and new.eos.tolist() == eos
    assert edit(tokens(eos=None)).eos is None and edit.reach(LAYOUT) == reach


@pytest.mark.parametrize(
    ("count", "of", "found", "layout"),
    [
        (1, "word", [0, 1, 2, -1, 4, 5], (*LAYOUT[:2], ("own", 1), ("word", 2))),
        (3, "word", [0, 1, 2, -1, -2, -3], (*LAYOUT[:2], ("own", 3), ("word", 0))),
        (1, "prompt", [0, -1, 2, 3, 4, 5], (LAYOUT[0], ("own", 1), ("prompt", 1), LAYOUT[2])),
    ],
)
def test_overwrite(count, of, found, layout):
    new = values(-1, -2, -3)[:count]
    for given in (new, new.expand(3, -1, -1)):
        edit = edits.overwrite("own", given, of)
        after = edit(tokens())
        assert numbers(after) == found and after.layout == layout and after.eos.tolist() == [4, 1, 2]
        assert hasattr(edit, "reach") == (given.ndim == 2)  # others differ from sample to sample
    assert edits.overwrite("own", new, of).reach(LAYOUT) == span(LAYOUT, of).start + count
    with pytest.raises(ValueError, match="4 values for 3 'word' tokens"):
        edits.overwrite("own", values(1, 2, 3, 4), "word")(tokens())


@pytest.mark.parametrize(("weight", "found"), [(1, [-1, -2]), (0.75, [24.5, 24]), (0, [101, 102])])
def test_mix(weight, found):
    edit = edits.mix("prompt", values(-1, -2), weight)
    after = edit(tokens())
    assert after.x[1, :, 0].tolist() == [100, *found, 103, 104, 105] and after.layout == LAYOUT
    assert after.eos.tolist() == [4, 1, 2] and edit.reach(LAYOUT) == 3
    with pytest.raises(ValueError, match="3 values for 2 'prompt' tokens"):
        edits.mix("prompt", values(1, 2, 3), weight)(tokens())


@pytest.mark.parametrize(
    ("count", "found"),
    [
        (0, ()),
        (1, (("sos", 1),)),
        (2, (("sos", 1), ("prompt", 1))),
        (3, LAYOUT[:2]),
        (4, (*LAYOUT[:2], ("word", 1))),
        (9, LAYOUT),
    ],
)
def test_the_first_tokens_of_a_layout(count, found):
    assert leading(LAYOUT, count) == found


def test_where_a_role_stands():
    assert [span(LAYOUT, r) for r in ("sos", "prompt", "word")] == [slice(0, 1), slice(1, 3), slice(3, 6)]
    assert span((("word", 2), ("word", 3)), "word") == slice(0, 2)  # the first run
    assert not Observer.keeps_graph


@pytest.mark.parametrize(
    ("read", "found"), [("argmax", [2, 3]), ("eos", [1, 3]), ("first", [0, 0]), ("last", [4, 4])]
)
def test_where_texts_are_read(read, found):
    ids = torch.tensor([[5, 7, 9, 7, 0], [5, 1, 2, 7, 7]])
    if read == "argmax":
        ids[1, 3] = 8
    assert ends(ids, read, 8 if read == "argmax" else 7).tolist() == found


@pytest.mark.parametrize(
    ("layout", "found"),
    [
        ((("cls", 1), ("register", 2), ("patch", 3)), [0, 1, 2, 3, 4, 5]),
        ((("cls", 1), ("prompt", 2), ("patch", 3)), [0, 3, 4, 5]),
        ((("cls", 1), ("register", 1), ("prompt", 1), ("patch", 2), ("late", 1)), [0, 1, 3, 4]),
        ((("prompt", 2), ("patch", 4)), [2, 3, 4, 5]),
    ],
)
def test_tokens_of_an_image_without_those_inserted(layout, found):
    given = tokens(layout, None)
    assert own_tokens(given)[1, :, 0].tolist() == [100.0 + n for n in found]
    with pytest.raises(ValueError, match="no 'patch' tokens"):
        own_tokens(tokens(layout[:-1] if layout[-1][0] == "patch" else (("cls", 1),), None))


# blocks


def attention(**how):
    return nn.MultiheadAttention(16, 4, **({"batch_first": True} | how))


OTHERS = {
    "sequence first": attention(batch_first=False),
    "keys of its own": attention(add_bias_kv=True),
    "keys of another width": attention(kdim=8, vdim=8),
    "no bias": attention(bias=False),
    "another class": type("Other", (nn.MultiheadAttention,), {})(16, 4, batch_first=True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_attention_that_is_not_the_usual_one_runs_whole(name):
    block = ResidualAttentionBlock(16, 4).eval()
    assert can_run_in_parts(block)
    block.attn = OTHERS[name].eval()
    assert not can_run_in_parts(block)


def test_a_block_that_looks_at_something_else_runs_whole():
    assert not can_run_in_parts(ResidualAttentionBlock(16, 4, is_cross_attention=True).eval())


def test_of_the_last_block_only_what_is_read_is_computed(tiny, monkeypatch):
    """Queries, output and MLP of the class token alone, and of the ends of texts."""
    rows = {"image": [], "text": []}
    for kind, module in (("image", partial_blocks), ("text", shared_text)):
        plain = module.finish

        def spy(block, x, attended, kind=kind, plain=plain):
            rows[kind].append(tuple(x.shape[:-1]))
            return plain(block, x, attended)

        monkeypatch.setattr(module, "finish", spy)
    tiny.encode_image(torch.randn(2, 3, tiny.image_size, tiny.image_size))
    assert rows["image"] == [(2, 1)]
    tiny.encode_text(["a cat", "a red fox", "a sun"])
    assert rows["text"] == [(9,)] * (tiny.text.depth - 1) + [(3,)]  # "a" stands once


def test_the_mask_of_a_causal_tower_is_of_the_type_of_its_tokens():
    for dtype in (torch.float32, torch.bfloat16):
        mask = towers.causal_mask(torch.zeros(5, 3, 2, dtype=dtype))
        assert mask.dtype == dtype and mask.tolist() == [
            [0, -torch.inf, -torch.inf],
            [0, 0, -torch.inf],
            [0, 0, 0],
        ]


# what towers take


@pytest.fixture
def clip():
    torch.manual_seed(0)
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8}
    return CLIP(8, vision, {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2})


def put(module, **change):
    for name, value in change.items():
        setattr(module, name, value)
    return module


TEXTS = {
    "pooling 'mean'": {"text_pool_type": "mean", "pool_type": "mean"},
    "pooling None": {"text_pool_type": None, "pool_type": None},
    "appends a class token or masks padding": {"cls_emb": nn.Parameter(torch.zeros(16))},
    "masks padding .CoCa": {"use_pad_mask": True},
}


@pytest.mark.parametrize("said", TEXTS)
def test_texts_that_towers_do_not_run(clip, said):
    check_text(clip)
    with pytest.raises(ValueError, match=said):
        check_text(put(clip, **TEXTS[said]))


def test_a_text_tower_has_words_and_blocks_with_the_batch_first(clip):
    for text in (SimpleNamespace(pool_type="argmax"), SimpleNamespace(pool_type="x", token_embedding=1)):
        with pytest.raises(ValueError, match="is not open_clip's TextTransformer read at one token"):
            check_text(text)
    clip.transformer.batch_first = clip.visual.transformer.batch_first = False
    for check, part in ((check_text, clip), (check_visual, clip.visual)):
        with pytest.raises(ValueError, match="the blocks are sequence-first"):
            check(part)


PARTS = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post", "proj")


@pytest.mark.parametrize("part", PARTS)
def test_an_image_tower_has_these_parts(clip, part):
    check_visual(clip.visual)
    delattr(clip.visual, part)
    with pytest.raises(ValueError, match=rf"VisionTransformer has no {part};"):
        check_visual(clip.visual)


def test_images_are_of_the_model_s_size():
    check_images(torch.zeros(2, 3, 16, 24), (16, 24))
    for shape in ((2, 3, 24, 16), (3, 16, 24), (1, 2, 3, 16, 24), (2, 4, 16, 24), (2, 1, 16, 24)):
        with pytest.raises(ValueError, match=r"expected \(batch, 3, 16, 24\); use vlm.preprocess"):
            check_images(torch.zeros(shape), (16, 24))


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_tower_without_a_projection_gives_its_own_width(clip, tower):
    from vlmlab.models.load import load

    clip = copy.deepcopy(clip)
    clip.visual.proj = clip.text_projection = None
    vlm = load(clip, tokenizer=lambda texts: torch.tensor([[1, 5, 19, 0, 0, 0]] * len(texts)), device="cpu")
    with torch.no_grad():
        if tower == "image":
            images = torch.randn(2, 3, 16, 16)
            found, expected = vlm.encode_image(images), clip.visual(images)
        else:
            found, expected = vlm.encode_text(["a", "b"]), clip.encode_text(vlm.tokenize(["a", "b"]))
    assert found.shape == (2, 16) and torch.allclose(found, expected, atol=1e-6)
