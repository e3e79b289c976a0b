"""What texts share is computed once and changes no feature, no gradient and no note of the tower."""

import pytest
import torch

from vlmlab.capturing.attention_tap import attention_tap
from vlmlab.models import edits
from vlmlab.models.partial_blocks import all_tokens, can_run_in_parts, first_tokens
from vlmlab.models.shared_text import SharedText, arrange
from vlmlab.models.towers import Tokens, causal_mask

TEXTS = {
    "template": ["a cat.", "a red fox.", "a sun.", "a red fox on a hill."],
    "one text": ["a red fox."],
    "the same twice": ["a cat.", "a dog.", "a cat."],
    "nothing but SOS": ["a cat", "two dogs", "sun"],
    "one begins the others": ["a red", "a red fox", "a red fox on a hill"],
}


def assert_close(a, b, tolerance=1e-5):
    worst = (a - b).abs().max() / b.abs().max()
    assert worst <= tolerance, f"largest difference is {worst:.1e} of the largest entry"


def values(vlm, *shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, vlm.text.width, generator=g).requires_grad_()


def one_by_one(edit):
    """The same edit, without a word on how far it reaches."""
    return lambda tokens: edit(tokens)


def tables(vlm, texts):
    """Edits by name, with the leaves that they train."""
    two, mixed, each = values(vlm, 2), values(vlm, 2, seed=1), values(vlm, texts, 1, seed=2)
    insert, mix = edits.insert("prompt", two, after="sos"), edits.mix("prompt", mixed, 0.3)
    return {
        "none": ({}, []),
        "inserted and mixed": ({1: insert, 2: mix}, [two, mixed]),
        "over the embedding": ({0: edits.overwrite("prompt", values(vlm, 1), of="word")}, []),
        "over words that differ": ({1: edits.overwrite("prompt", two, of="word")}, [two]),
        "behind the words": ({1: edits.insert("prompt", two, after="word")}, []),
        "another per text": ({1: insert, 2: edits.overwrite("own", each, of="word")}, [two, each]),
        "another per text at the embedding": ({0: edits.overwrite("own", each, of="word")}, [each]),
        "of unknown reach": ({1: insert, 2: one_by_one(mix)}, [two, mixed]),
    }


TABLES = [
    "none",
    "inserted and mixed",
    "over the embedding",
    "over words that differ",
    "behind the words",
    "another per text",
    "another per text at the embedding",
    "of unknown reach",
]


@pytest.mark.parametrize(
    "texts,table",
    [*(("template", t) for t in TABLES), *((t, "inserted and mixed") for t in TEXTS if t != "template")],
)
def test_features_gradients_and_notes_are_those_of_whole_texts(vlm, texts, table):
    tower, ids, out = vlm.text, vlm.tokenize(TEXTS[texts]), {}
    for on in (False, True):
        vlm.shortcuts = on
        table_, leaves = tables(vlm, len(ids))[table]
        features = tower(ids, table_)
        weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
        grads = torch.autograd.grad((features * weights).sum(), leaves) if leaves else ()
        roles = {layer: [role for role, _ in layout] for layer, layout in tower.layouts.items()}
        out[on] = features, grads, roles
    assert_close(out[True][0], out[False][0])
    for ours, exact in zip(out[True][1], out[False][1]):
        assert exact.abs().max() > 0
        assert_close(ours, exact)
    assert out[True][2] == out[False][2]


@pytest.mark.parametrize("texts", TEXTS)
def test_layouts_are_those_of_texts_cut_at_the_longest(vlm, texts):
    ids, table = vlm.tokenize(TEXTS[texts]), {2: edits.insert("prompt", values(vlm, 3), after="sos")}
    vlm.text(ids, table)
    noted = dict(vlm.text.layouts)
    vlm.text.run(vlm.text.embed(ids), table)
    assert noted == vlm.text.layouts


def test_shared_tokens_stand_once_and_nothing_is_padded(vlm):
    ids = vlm.tokenize(TEXTS["template"])
    texts, eos = vlm.text.shared(ids), ids.argmax(dim=1)
    assert isinstance(texts, SharedText) and texts.layout == (("sos", 1), ("word", 1))
    assert len(texts.x) == 2 + int((eos + 1 - 2).sum())
    insert = edits.insert("prompt", values(vlm, 3), after="sos")
    after = texts.edited(insert)
    assert after.layout == (("sos", 1), ("prompt", 3), ("word", 1)) and len(after.x) == len(texts.x) + 3
    assert torch.equal(after.eos, eos + 3)
    assert texts.edited(edits.overwrite("prompt", values(vlm, 1), of="word")) is not None
    assert texts.edited(edits.overwrite("prompt", values(vlm, 2), of="word")) is None


def test_side_by_side_they_are_the_embedded_texts(vlm):
    ids = vlm.tokenize(TEXTS["template"])
    ours, whole = vlm.text.shared(ids).side_by_side(), vlm.text.embed(ids)
    assert ours.layout == whole.layout and torch.equal(ours.eos, whole.eos)
    for a, b, end in zip(ours.x, whole.x, whole.eos + 1):
        assert torch.equal(a[:end], b[:end]) and not a[end:].any()


def test_texts_that_do_not_begin_alike_run_whole(vlm):
    ids = vlm.tokenize(["a cat", "sun"])
    ids[1, 0] = 5
    assert arrange(ids) is None and isinstance(vlm.text.shared(ids), Tokens)
    ours = vlm.text(ids)
    vlm.shortcuts = False
    assert_close(ours, vlm.text(ids))


def test_wrong_edits_are_named_as_for_whole_texts(vlm):
    ids, two = vlm.tokenize(TEXTS["template"]), values(vlm, 2)
    for table, message in [
        ({1: edits.mix("prompt", two, 1.0)}, "no 'prompt' tokens; the layout is"),
        ({1: edits.overwrite("prompt", values(vlm, 90), of="word")}, "90 values for"),
        ({40: edits.mix("prompt", two, 1.0)}, "edits before blocks \\[40\\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            vlm.text(ids, table)


# who looks at blocks sees whole ones


def test_hooks_see_all_tokens_also_when_set_on_a_run_in_progress(vlm):
    ids, seen = vlm.tokenize(TEXTS["template"]), []
    texts, before = vlm.text.shared(ids, before=2), vlm.text(ids)
    hook = vlm.text.blocks[-1].mlp.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    try:
        assert_close(vlm.text.read(texts, start=2), before)
        assert_close(vlm.text(ids), before)
    finally:
        hook.remove()
    assert seen == [(len(ids), int(ids.argmax(dim=1).max()) + 1, vlm.text.width)] * 2


def test_only_blocks_that_are_known_run_in_parts(small):
    block = small.text.blocks[0]
    assert can_run_in_parts(block)
    for register in (
        block.attn.register_forward_hook,
        block.mlp.register_forward_pre_hook,
        block.register_full_backward_hook,
        torch.nn.modules.module.register_module_forward_hook,
    ):
        hook = register(lambda *_: None)
        assert not can_run_in_parts(block)
        hook.remove()
    with attention_tap(lambda call: None):
        assert not can_run_in_parts(block)
    block.train()
    assert not can_run_in_parts(block)
    block.eval()
    assert can_run_in_parts(block) and not can_run_in_parts(torch.nn.Identity())
    other = type("Other", (type(block),), {})(48, 4)
    assert not can_run_in_parts(other.eval())


# image blocks


def test_masked_tokens_of_a_block_lie_in_the_order_that_attention_projects_at_once(vlm):
    block, g = vlm.text.blocks[0], torch.Generator().manual_seed(0)
    x, seen = torch.randn(2, 5, vlm.text.width, generator=g, requires_grad=True), []
    exact = block(x, attn_mask=causal_mask(x))
    hook = block.attn.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    try:
        ours = all_tokens(block, x, causal_mask(x))
    finally:
        hook.remove()
    assert_close(ours, exact)
    assert seen[0].transpose(0, 1).is_contiguous()


@pytest.mark.parametrize("count", [1, 3, 9])
def test_tokens_of_a_block(vlm, count):
    block, g = vlm.image.blocks[-1], torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, vlm.image.width, generator=g, requires_grad=True)
    weights, out = torch.randn(2, count, vlm.image.width, generator=g), []
    ours = all_tokens(block, x, None) if count == 9 else first_tokens(block, x, count)
    for y in (block(x)[:, :count], ours):
        out.append((y.detach(), *torch.autograd.grad((y * weights).sum(), x)))
    for ours, exact in zip(out[1], out[0]):
        assert_close(ours, exact)


def test_run_gives_the_first_tokens_with_and_without_the_shortcut(vlm):
    x = torch.randn(2, 3, vlm.image_size, vlm.image_size, generator=torch.Generator().manual_seed(1))
    tower, table = vlm.image, {2: edits.insert("prompt", torch.ones(2, vlm.image.width), after="cls")}
    whole, calls = tower.run(tower.embed(x), table), []
    for on in (True, False):
        vlm.shortcuts = on
        part = tower.run(tower.embed(x), table, first=2)
        assert part.layout == (("cls", 1), ("prompt", 1))
        assert_close(part.x, whole.x[:, :2])
    vlm.shortcuts = True
    hook = tower.blocks[-1].register_forward_hook(lambda _m, _i, out: calls.append(out.shape))
    try:
        assert_close(tower.run(tower.embed(x), table, first=2).x, whole.x[:, :2])
    finally:
        hook.remove()
    assert calls == [whole.x.shape]
