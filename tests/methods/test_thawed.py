"""A method on a thawed model: no cache or shared prefix may stand for blocks that train."""

import pytest
import torch
import torch.nn.functional as F

from vlmlab import methods
from vlmlab.methods.method import Method
from vlmlab.models import edits

CLASSES = ["cat", "red fox", "sun", "potted plant"]


class Tuned(Method):
    """Trains some of the model's own parameters, beside prompts before block 2 of the text tower."""

    def __init__(self, vlm, pattern):
        super().__init__(vlm.thaw(pattern), CLASSES, "a photo of a {}.", None)
        self.prompts_2 = torch.nn.Parameter(torch.full((2, vlm.text.width), 0.1))

    def text_edits(self):
        return {2: edits.insert("prompt", self.prompts_2, after="sos")}


def batch(vlm):
    g = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, vlm.image_size, vlm.image_size, generator=g), torch.arange(4)


def descend(method, lr=0.05):
    """One step; gradients by name."""
    named = method.trainable()
    grads = torch.autograd.grad(
        method.losses(dict(zip(("image", "label"), batch(method.vlm))))["ce"], list(named.values())
    )
    with torch.no_grad():
        for p, g in zip(named.values(), grads):
            p -= lr * g
    return dict(zip(named, grads))


TEXT = ["transformer.resblocks.0.*", "transformer.*ln_1*", "token_embedding*", "positional_embedding"]


@pytest.mark.parametrize("pattern", ["*", *TEXT, "ln_final*", "text_projection", "visual.*ln_*"])
def test_two_steps_with_and_without_shortcuts_are_the_same(small_vlm, pattern):
    grads, made = {}, {}
    for on in (True, False):
        made[on] = Tuned(small_vlm, pattern).train()
        made[on].vlm.shortcuts = on
        descend(made[on])
        grads[on] = descend(made[on])  # the second sees what the first changed, not what was cached
    assert {f"vlm.clip.{n}" for n in made[True].vlm.thawed} <= set(grads[True])
    for name, g in grads[True].items():
        torch.testing.assert_close(g, grads[False][name], atol=2e-4 * g.abs().max().item(), rtol=1e-3)


@pytest.mark.parametrize("first", [1, 6])
def test_the_image_anchor_of_a_thawed_model_is_the_frozen_one(small_vlm, first):
    """Also where blocks train that the adapted and the frozen path would share."""
    m = methods.build("mmrl", small_vlm.thaw("visual.*ln_*"), CLASSES, rep_dim=8, first_block=first)
    with torch.no_grad():
        for p in m.vlm.clip.visual.parameters():
            p.add_(0.1 * p.requires_grad)
        images, _ = batch(m.vlm)
        found = m.frozen_image(images, m.image_prefix(images))
        assert torch.equal(found, small_vlm.encode_image(images))
        assert not torch.allclose(found, m.vlm.encode_image(images), atol=1e-2)


def test_the_anchor_of_a_thawed_model_is_the_frozen_one(small_vlm):
    method = Tuned(small_vlm, "transformer.*")
    expected = F.normalize(small_vlm.encode_text(method.prompts()), dim=-1)
    before = small_vlm.fingerprint()
    descend(method)
    with torch.no_grad():
        now = F.normalize(method.vlm.encode_text(method.prompts()), dim=-1)
        assert torch.equal(method.frozen_class_features(), expected) and not torch.allclose(now, expected)
        assert torch.equal(method.current_class_features(), method.current_class_features())
    assert small_vlm.fingerprint() == before == method.vlm.origin.fingerprint()
