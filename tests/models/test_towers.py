"""Towers run the library's own blocks and change nothing but what an edit says."""

import pytest
import torch

from vlmlab import methods
from vlmlab.models import edits
from vlmlab.models.tokens import Observer, observed
from vlmlab.models.towers import Tokens

TEXTS = ["a cat", "a photo of a red fox", "sun", "two dogs on a hill"]


def images(vlm, n=3):
    return torch.randn(n, 3, vlm.image_size, vlm.image_size, generator=torch.Generator().manual_seed(1))


def tower_inputs(vlm, kind):
    return (vlm.image, images(vlm)) if kind == "image" else (vlm.text, vlm.tokenize(TEXTS))


def assert_close(a, b, tolerance):
    """Largest difference over the largest entry."""
    worst = (a - b).abs().max() / b.abs().max()
    assert worst <= tolerance, f"largest difference is {worst:.1e} of the largest entry"


# the same numbers as the library


def test_features_are_the_library_s_own(vlm):
    x, ids = images(vlm), vlm.tokenize(TEXTS)
    with torch.no_grad():
        assert_close(vlm.encode_image(x), vlm.clip.encode_image(x), 1e-6)
        assert_close(vlm.encode_text(TEXTS), vlm.clip.encode_text(ids), 1e-6)
        vlm.shortcuts = False
        assert_close(vlm.encode_text(TEXTS), vlm.clip.encode_text(ids), 1e-6)


def test_cut_text_equals_the_full_context(vlm):
    ids = vlm.tokenize(TEXTS)
    table = {2: edits.insert("prompt", torch.randn(3, vlm.text.width), after="sos")}
    longest = int(ids.argmax(dim=1).max()) + 1
    out = {}
    for on in (True, False):
        vlm.shortcuts = on
        out[on] = vlm.text(ids, table)
        length = sum(n for _, n in vlm.text.layouts[1])
        assert length == (longest if on else ids.shape[1])
    assert longest < ids.shape[1]
    assert_close(out[True], out[False], 1e-5)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_blocks_are_the_library_s_modules_and_hooks_on_them_fire(vlm, kind):
    tower, inputs = tower_inputs(vlm, kind)
    blocks = (vlm.clip.visual if kind == "image" else vlm.clip).transformer.resblocks
    assert tower.depth == len(blocks) and all(a is b for a, b in zip(tower.blocks, blocks))
    seen = []
    hooks = [b.register_forward_hook(lambda _m, _i, out: seen.append(out)) for b in blocks]
    tower(inputs)
    for hook in hooks:
        hook.remove()
    assert len(seen) == tower.depth
    for layer in (1, tower.depth):
        assert torch.equal(seen[layer - 1], tower.run(tower.embed(inputs), stop=layer).x)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_run_in_two_parts_is_the_whole_run(vlm, kind):
    tower, inputs = tower_inputs(vlm, kind)
    first = "cls" if kind == "image" else "sos"
    table = {2: edits.insert("prompt", torch.randn(2, tower.width), after=first)}
    whole = tower.run(tower.embed(inputs), table)
    prefix = tower.prefix(inputs, before=2)
    parts = tower.run(prefix, table, start=2)
    assert torch.equal(whole.x, parts.x) and whole.layout == parts.layout
    assert prefix.layout == tower.layouts[1]


def test_layout_is_known_for_every_block(tiny):
    tower = tiny.image
    tower(images(tiny), {6: edits.insert("prompt", torch.zeros(5, tower.width), after="cls")})
    assert tower.layouts[5] == (("cls", 1), ("patch", 64))
    assert tower.layouts[6] == tower.layouts[12] == (("cls", 1), ("prompt", 5), ("patch", 64))
    assert sorted(tower.layouts) == list(range(1, 13))


# edits


def test_insert_puts_tokens_behind_a_role_and_moves_the_end(vlm):
    tokens, values = vlm.text.embed(vlm.tokenize(TEXTS)), torch.randn(3, vlm.text.width)
    after = edits.insert("prompt", values, after="sos")(tokens)
    assert after.layout == (("sos", 1), ("prompt", 3), ("word", tokens.x.shape[1] - 1))
    assert torch.equal(after.eos, tokens.eos + 3)
    assert torch.equal(after.x[:, 0], tokens.x[:, 0]) and torch.equal(after.x[:, 4:], tokens.x[:, 1:])
    assert all(torch.equal(row, values) for row in after.x[:, after.span("prompt")])
    rows = torch.arange(len(TEXTS))
    assert torch.equal(after.x[rows, after.eos], tokens.x[rows, tokens.eos])


def test_insert_behind_the_end_leaves_the_end_and_the_features(vlm):
    ids, values = vlm.tokenize(TEXTS), torch.randn(3, vlm.text.width)
    table = {1: edits.insert("prompt", values, after="word")}
    assert torch.equal(table[1](vlm.text.embed(ids)).eos, ids.argmax(dim=1))
    assert_close(vlm.text(ids, table), vlm.text(ids), 1e-6)


def test_inserted_image_tokens_get_no_position(vlm):
    tokens, values = vlm.image.embed(images(vlm)), torch.randn(2, vlm.image.width)
    after = edits.insert("prompt", values, after="cls")(tokens)
    assert after.layout == (("cls", 1), ("prompt", 2), ("patch", tokens.x.shape[1] - 1)) and after.eos is None
    assert all(torch.equal(row, values) for row in after.x[:, 1:3])
    assert torch.equal(after.x[:, 3:], tokens.x[:, 1:])


@pytest.mark.parametrize("weight", [1.0, 0.75, 0.0])
def test_mix_replaces_one_role(vlm, weight):
    inserted, values = torch.randn(2, vlm.image.width), torch.randn(2, vlm.image.width)
    tokens = edits.insert("prompt", inserted, after="cls")(vlm.image.embed(images(vlm)))
    after = edits.mix("prompt", values, weight)(tokens)
    assert after.layout == tokens.layout
    torch.testing.assert_close(after.x[:, 1:3], (weight * values + (1 - weight) * inserted).expand(3, -1, -1))
    assert torch.equal(after.x[:, 0], tokens.x[:, 0]) and torch.equal(after.x[:, 3:], tokens.x[:, 3:])


def test_gradients_reach_inserted_and_mixed_values(vlm):
    inserted, mixed = (torch.randn(2, vlm.text.width, requires_grad=True) for _ in range(2))
    table = {1: edits.insert("prompt", inserted, after="sos"), 2: edits.mix("prompt", mixed, 0.5)}
    vlm.text(vlm.tokenize(TEXTS), table).sum().backward()
    assert inserted.grad.abs().max() > 0 and mixed.grad.abs().max() > 0
    assert all(p.grad is None for p in vlm.parameters())


def test_edits_at_the_embedding_come_before_ln_pre_and_before_the_positions(vlm):
    values, seen = torch.randn(2, vlm.image.width), {}
    vlm.image.embed(images(vlm), edit=lambda t: seen.setdefault("image", t))
    tokens = vlm.image.embed(images(vlm), edit=edits.insert("prompt", values, after="cls"))
    assert torch.equal(tokens.x[0, 1:3], vlm.clip.visual.ln_pre(values))
    assert torch.equal(vlm.clip.visual.ln_pre(seen["image"].x), vlm.image.embed(images(vlm)).x)
    run = vlm.image.run(tokens)
    whole = vlm.image(images(vlm), {0: edits.insert("prompt", values, after="cls")})
    assert_close(whole, vlm.image.project(vlm.image.pool(run)), 1e-6)
    ids = vlm.tokenize(TEXTS)
    vlm.text.embed(ids, edit=lambda t: seen.setdefault("text", t))
    assert torch.equal(seen["text"].x, vlm.clip.token_embedding(ids)[:, : seen["text"].x.shape[1]])


# a causal tower


def test_what_stands_before_the_words_is_the_same_for_all_classes(tiny):
    method = methods.build("mmrlpp", tiny, ["cat", "red fox", "a very small house", "sun"], token_mix=0.4)
    with torch.no_grad():
        method.text_aligner.B.normal_()
        tokens, table = tiny.text.prefix(method._ids, before=6), method.text_edits()
        for layer in range(6, 13):
            tokens = tiny.text.run(tokens, table, start=layer, stop=layer)
            head = tokens.x[:, : tokens.span("prompt").stop]
            assert head.shape[1] == 6 and (head - head[:1]).abs().max() <= 1e-6 * head.abs().max(), layer
            words = tokens.x[:, tokens.span("word").start + 4]
            assert (words - words[:1]).abs().max() > 1e-3 * words.abs().max()


def test_a_text_does_not_depend_on_the_longer_ones_beside_it(vlm):
    alone = torch.cat([vlm.encode_text([t]) for t in TEXTS])
    assert_close(vlm.encode_text(TEXTS), alone, 1e-5)


# errors


@pytest.mark.parametrize("layer", [0, -1, 40])
def test_edit_outside_the_depth(vlm, layer):
    tower, tokens = vlm.image, vlm.image.embed(images(vlm))
    legal = rf"edits before blocks \[{layer}\], but the image tower has blocks 1 to {tower.depth}"
    with pytest.raises(ValueError, match=legal):
        tower.run(tokens, {layer: lambda t: t})


@pytest.mark.parametrize("part", [{"start": 0}, {"stop": 13}])
def test_blocks_outside_the_depth(tiny, part):
    with pytest.raises(ValueError, match=r"blocks .* but the text tower has blocks 1 to 12"):
        tiny.text.run(tiny.text.embed(tiny.tokenize(TEXTS)), **part)


def test_edits_that_do_not_fit_the_tokens(vlm):
    tokens = vlm.image.embed(images(vlm))
    values = torch.zeros(2, vlm.image.width)
    with pytest.raises(ValueError, match=r"no 'prompt' tokens; the layout is \(\('cls', 1\), \('patch'"):
        edits.mix("prompt", values, 1.0)(tokens)
    with pytest.raises(ValueError, match="no 'sos' tokens"):
        edits.insert("prompt", values, after="sos")(tokens)
    prompted = edits.insert("prompt", values, after="cls")(tokens)
    with pytest.raises(ValueError, match="3 values for 2 'prompt' tokens"):
        edits.mix("prompt", torch.zeros(3, vlm.image.width), 1.0)(prompted)


def test_inputs_of_the_wrong_shape_are_named(vlm):
    side = vlm.image_size
    for shape in ((2, 3, side, side + 8), (3, side, side), (2, 1, side, side)):
        with pytest.raises(ValueError) as e:
            vlm.encode_image(torch.zeros(shape))
        assert str(shape) in str(e.value) and f"(batch, 3, {side}, {side})" in str(e.value)
    context = len(vlm.clip.positional_embedding)
    for shape in ((context,), (2, context + 1)):
        with pytest.raises(ValueError) as e:
            vlm.text.embed(torch.zeros(shape, dtype=torch.long))
        with pytest.raises(ValueError, match="token ids have shape"):
            vlm.text(torch.zeros(shape, dtype=torch.long))
        assert str(shape) in str(e.value) and f"at most {context}" in str(e.value)


def test_span_of_tokens():
    tokens = Tokens(torch.zeros(1, 8, 2), (("cls", 1), ("prompt", 3), ("patch", 4)))
    assert [tokens.span(r) for r in ("cls", "prompt", "patch")] == [slice(0, 1), slice(1, 4), slice(4, 8)]


# frozen


def test_the_model_stays_frozen_inside_a_method_that_trains(tiny):
    method = methods.build("mmrlpp", tiny, ["cat", "dog"]).train()
    assert method.training and not any(m.training for m in tiny.modules())
    assert not any(p.requires_grad for p in tiny.parameters())
    assert not any(name.startswith("vlm.") for name in method.trainable())


# observers


class Seen(Observer):
    def __init__(self, keeps_graph):
        self.keeps_graph, self.blocks = keeps_graph, []

    def before_block(self, layer, tokens):
        self.blocks.append((layer, tokens.layout))


@pytest.mark.parametrize("keeps_graph", [True, False])
def test_observers_see_every_block_and_may_keep_the_graph_of_frozen_ones(vlm, keeps_graph):
    seen, x = Seen(keeps_graph), images(vlm).requires_grad_()
    with torch.enable_grad(), observed(vlm.image, seen):
        tokens = vlm.image.prefix(x, before=3)
    assert seen.blocks == [(1, tokens.layout), (2, tokens.layout)]
    assert tokens.x.requires_grad == keeps_graph
    with pytest.raises(KeyError), observed(vlm.image, seen):
        raise KeyError
    assert not vlm.image.observers
