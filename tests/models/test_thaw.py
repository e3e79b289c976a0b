"""A thawed model trains copies of the named parameters; the model it came from never changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmlab.models.load import load
from vlmlab.models.model import Model

TEXTS = ["a cat", "a photo of a red fox", "sun", "two dogs on a hill"]


def images(vlm, n=3):
    return torch.randn(n, 3, vlm.image_size, vlm.image_size, generator=torch.Generator().manual_seed(1))


def loss_of(vlm):
    z, w = (F.normalize(f, dim=-1) for f in (vlm.encode_image(images(vlm)), vlm.encode_text(TEXTS)))
    return F.cross_entropy(vlm.logit_scale * z @ w.T, torch.arange(3))


def step(vlm, lr=0.1):
    """One step of gradient descent on whatever trains."""
    named = {n: p for n, p in vlm.clip.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss_of(vlm), list(named.values()), allow_unused=True)
    with torch.no_grad():
        for p, g in zip(named.values(), grads):
            p -= lr * (torch.zeros_like(p) if g is None else g)
    return dict(zip(named, grads))


def state_of(module):
    return {n: t.clone() for n, t in module.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("pattern", ["*", "visual.*ln_*", "logit_scale", "*attn.in_proj_weight"])
def test_training_a_thawed_model_leaves_the_original_as_it_was(vlm, pattern):
    before, digest, out = state_of(vlm.clip), vlm.fingerprint(), vlm.encode_image(images(vlm))
    parts = {n: (m, m.training, dict(m._forward_hooks)) for n, m in vlm.named_modules()}
    thawed = vlm.thaw(pattern).train()
    assert thawed.training
    grads = step(thawed)
    assert all(g is not None and g.abs().max() > 0 for g in grads.values())
    assert set(grads) == set(thawed.thawed)
    assert_same(state_of(vlm.clip), before)
    assert vlm.fingerprint() == digest and torch.equal(vlm.encode_image(images(vlm)), out)
    assert {n: (m, m.training, dict(m._forward_hooks)) for n, m in vlm.named_modules()} == parts
    assert not any(p.requires_grad for p in vlm.parameters()) and not vlm.training
    assert thawed.fingerprint() != digest and thawed.origin is vlm
    assert not torch.equal(loss_of(thawed.eval()), loss_of(vlm))


def test_a_thawed_model_is_the_same_until_it_trains(vlm):
    thawed = vlm.thaw("*")
    assert thawed.fingerprint() == vlm.fingerprint() and type(thawed) is type(vlm)
    assert not any(m.training for m in thawed.modules())
    assert torch.allclose(loss_of(thawed), loss_of(vlm), atol=1e-5)
    with torch.no_grad():  # without a graph both run the same kernels
        assert torch.equal(thawed.encode_image(images(vlm)), vlm.encode_image(images(vlm)))
        assert torch.equal(thawed.encode_text(TEXTS), vlm.encode_text(TEXTS))


def test_fingerprint_follows_an_optimiser_that_does_not_count_its_writes(small):
    thawed = small.thaw("visual.proj")
    assert thawed.fingerprint() == small.fingerprint()
    optimiser = torch.optim.AdamW([thawed.clip.visual.proj], fused=True)
    thawed.encode_image(images(small)).sum().backward()
    version = thawed.clip.visual.proj._version
    optimiser.step()
    assert thawed.clip.visual.proj._version == version  # else the name of this test is wrong
    assert thawed.fingerprint() != small.fingerprint()


def test_only_what_is_named_is_copied(tiny):
    thawed = tiny.thaw("visual.*ln_*")
    named = dict(tiny.clip.named_parameters())
    assert thawed.thawed == {n for n in named if n.startswith("visual.") and "ln_" in n}
    for n, p in thawed.clip.named_parameters():
        assert (p is not named[n]) == p.requires_grad == (n in thawed.thawed)
    buffers = dict(tiny.clip.named_buffers())
    assert buffers and all(b is buffers[n] for n, b in thawed.clip.named_buffers())
    assert thawed.clip.transformer is tiny.clip.transformer  # no part of the text tower is a copy
    blocks = thawed.clip.visual.transformer.resblocks
    assert blocks[0].attn is tiny.clip.visual.transformer.resblocks[0].attn
    assert thawed.image.blocks is blocks and thawed.image.visual is thawed.clip.visual
    assert set(map(id, thawed.parameters())) == set(map(id, thawed.clip.parameters()))


def test_training_mode_is_for_the_parts_that_train(tiny):
    thawed = tiny.thaw("visual.transformer.resblocks.3.mlp.*").train()
    in_training = {n for n, m in thawed.clip.named_modules() if m.training}
    block = "visual.transformer.resblocks.3"
    assert {block, f"{block}.mlp", f"{block}.mlp.gelu", f"{block}.ls_2", "visual", ""} <= in_training
    assert f"{block}.attn" not in in_training and "transformer" not in in_training
    assert not any(n.startswith("visual.transformer.resblocks.4") for n in in_training)
    assert not any(m.training for m in tiny.modules())
    assert not any(m.training for m in thawed.eval().modules())


def test_a_thawed_model_of_a_thawed_model(tiny):
    first = tiny.thaw("visual.proj")
    step(first)
    second = first.thaw("text_projection")
    assert second.thawed == {"visual.proj", "text_projection"} and second.origin is tiny
    assert torch.equal(second.clip.visual.proj, first.clip.visual.proj)
    before = state_of(first.clip)
    step(second)
    assert_same(state_of(first.clip), before)
    assert not torch.equal(second.clip.visual.proj, first.clip.visual.proj)


@pytest.mark.parametrize("pattern", ["visual.proj", "text_projection"])
def test_the_towers_of_a_thawed_model_have_their_own_notes(tiny, pattern):
    thawed = tiny.thaw(pattern)
    assert thawed.image is not tiny.image
    tiny.encode_text(TEXTS)
    before = dict(tiny.text.layouts)
    thawed.shortcuts = False
    thawed.encode_text(TEXTS)
    assert tiny.shortcuts and tiny.image.shortcuts and tiny.text.layouts == before != thawed.text.layouts


def test_hooks_on_a_thawed_model_are_not_on_the_original(tiny):
    thawed, seen = tiny.thaw("visual.*ln_1*"), []
    thawed.image.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    tiny.encode_image(images(tiny))
    assert not seen
    thawed.encode_image(images(tiny))
    assert seen == [1]


def test_a_thawed_model_can_be_copied_whole(tiny):
    thawed = tiny.thaw("visual.proj")
    other = copy.deepcopy(thawed).train()
    step(other)
    assert other.clip.visual.training and torch.equal(thawed.clip.visual.proj, tiny.clip.visual.proj)


def test_patterns_that_match_nothing(tiny):
    with pytest.raises(ValueError, match=r"matches 'visual.project'; near names are .*visual.proj"):
        tiny.thaw("*ln_*", "visual.project")
    with pytest.raises(ValueError, match="needs patterns"):
        tiny.thaw()


# towers


def test_a_tower_knows_from_where_on_it_trains(tiny):
    depth = tiny.image.depth
    expected = {
        "visual.conv1*": (0, depth + 1),
        "visual.ln_pre*": (0, depth + 1),
        "visual.transformer.resblocks.4.*": (5, depth + 1),
        "visual.proj": (depth + 1, depth + 1),
        "token_embedding*": (depth + 1, 0),
        "transformer.resblocks.1[01].ln_2*": (depth + 1, 11),
        "*": (0, 0),
    }
    for pattern, layers in expected.items():
        thawed = tiny.thaw(pattern)
        assert (thawed.image.first_trained, thawed.text.first_trained) == layers, pattern
    assert (tiny.image.first_trained, tiny.text.first_trained) == (depth + 1, depth + 1)


def test_a_prefix_keeps_the_graph_of_blocks_that_train(tiny):
    thawed = tiny.thaw("visual.transformer.resblocks.2.*")
    assert thawed.image.prefix(images(tiny), before=5).x.requires_grad
    assert not thawed.image.prefix(images(tiny), before=3).x.requires_grad
    assert not tiny.image.prefix(images(tiny), before=5).x.requires_grad
    with torch.no_grad():
        assert not thawed.image.prefix(images(tiny), before=5).x.requires_grad


def test_shortcuts_do_not_change_the_gradients(vlm):
    grads = {}
    for on in (True, False):
        thawed = vlm.thaw("*")
        thawed.shortcuts = on
        grads[on] = step(thawed)
    for name, g in grads[True].items():
        torch.testing.assert_close(g, grads[False][name], atol=1e-5 * g.abs().max().item(), rtol=1e-4)


# other modules


class Tied(nn.Module):
    """What other libraries do: tied weights, references beside the registered ones, bound methods, buffers."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
        self.beside = {"layers": [self.body[0]], "pair": (self.head, "name")}
        self.call = self.body[0].forward
        self.cell = nn.LSTM(4, 4, batch_first=True)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, ids):
        x = self.body(self.call(self.beside["layers"][0](self.embedding(ids))))
        return self.beside["pair"][0](self.cell(x[:, None])[0][:, 0]) * self.scale


class Wrapped(Model):
    holds = "module"

    def __init__(self, module):
        super().__init__("tied", "fp32")
        self.module = module
        self.freeze("cpu")


def test_tied_and_hidden_references_follow_the_copies():
    torch.manual_seed(0)
    model, ids = Wrapped(Tied()), torch.tensor([0, 3, 4])
    before = state_of(model.module)
    thawed = model.thaw("head.weight", "body.*", "cell.*")
    module = thawed.train().module
    assert {"head.weight", "embedding.weight"} <= thawed.thawed
    assert module.head.weight is module.embedding.weight and module.scale is model.module.scale
    assert module.beside["layers"][0] is module.body[0] and module.beside["pair"][0] is module.head
    assert module.call.__self__ is module.body[0]
    module(ids).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert module.body[2].num_batches_tracked == 1  # a batch norm that trains counts for itself
    assert_same(state_of(model.module), before)
    assert all(p.grad is None for p in model.parameters())


def test_a_batch_norm_that_does_not_train_keeps_its_averages():
    model = Wrapped(Tied())
    before = state_of(model.module)
    thawed = model.thaw("body.0.*").train()
    assert thawed.module.body[1].training and not thawed.module.body[2].training
    thawed.module(torch.tensor([0, 3, 4]))
    assert_same(state_of(model.module), before)


def test_compiled_modules_are_refused():
    model = Wrapped(nn.Sequential(torch.compile(nn.Linear(2, 2))))
    with pytest.raises(ValueError, match="is compiled; thaw the model first"):
        model.thaw("*")


def test_half_precision_weights_train_in_full():
    model = Wrapped(nn.Linear(2, 2).half())
    thawed = model.thaw("weight")
    assert thawed.module.weight.dtype == torch.float32 and thawed.module.bias.dtype == torch.float16
    assert thawed.fingerprint() == model.fingerprint()


def test_everything_that_load_gives_is_frozen(tiny, small):
    for model in (tiny, small, load("tiny", device="cpu")):
        assert not any(p.requires_grad for p in model.parameters()) and not model.thawed
        assert model.origin is model
