"""CoOp: with the words it starts from it is zero-shot CLIP with these words, wherever the name stands."""

import pytest
import small_clip
import torch

from vlmlab import methods

TEXT = {"end": "a photo of a {}.", "middle": "a photo {} of a.", "front": "{} a photo of a."}


@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("position", TEXT)
def test_starting_context_is_the_written_prompt(small_vlm, position, shortcuts):
    m = methods.build("coop", small_vlm, small_clip.CLASSES, class_position=position)
    written = methods.build("zero_shot", small_vlm, small_clip.CLASSES, TEXT[position])
    small_vlm.shortcuts = shortcuts
    try:
        with torch.no_grad():
            assert (m.logits(small_clip.images()) - written.logits(small_clip.images())).abs().max() < 1e-4
    finally:
        small_vlm.shortcuts = True


@pytest.mark.parametrize("position", TEXT)
def test_tokens_are_named_by_what_they_are(small_vlm, position):
    """Where words are reordered, all behind the first token are words."""
    m = methods.build("coop", small_vlm, small_clip.CLASSES, class_position=position)
    with torch.no_grad():
        m.class_features()
    parts = (("prompt", 4), ("word", 5)) if position == "end" else (("word", 9),)
    longest = 1 + sum(n for _, n in parts)
    assert int(m._ids.argmax(dim=1).max()) + 1 == longest
    assert {layout for layout in small_vlm.text.layouts.values()} == {(("sos", 1), *parts)}


def test_a_context_per_class_starts_from_noise(small_vlm):
    m = methods.build("coop", small_vlm, small_clip.CLASSES, class_specific=True)
    assert m.context.shape == (len(small_clip.CLASSES), 4, 64) and m.context.detach().std() == pytest.approx(
        0.02, rel=0.1
    )


@pytest.mark.parametrize("specific", [False, True])
@pytest.mark.parametrize("position", TEXT)
def test_random_context_replaces_the_placeholders(small_vlm, position, specific):
    """The embeddings written out by hand as the authors' code puts them, for 16 tokens.

    The last name ends in punctuation: with the full stop it is one token, which goes with the name.
    """
    names = [*small_clip.CLASSES, "ram (adult male sheep)"]
    given = {"tokens": 16, "class_position": position, "class_specific": specific}
    m = methods.build("coop", small_vlm, names, **given)
    tower, embed = small_vlm.text, small_vlm.clip.token_embedding
    before = {"end": 16, "middle": 8, "front": 0}[position]
    with torch.no_grad():
        for i, name in enumerate(names):
            words = embed(small_vlm.tokenize([f"{name.replace('_', ' ')}."]))[0]
            n = int(small_vlm.tokenize([name.replace("_", " ")]).argmax()) - 1
            context = m.context[i] if specific else m.context
            parts = words[:1], context[:before], words[1 : 1 + n], context[before:], words[1 + n :]
            x = torch.cat(parts)[:77]
            tokens = tower.embed(
                small_vlm.tokenize(["X " * 16 + f"{name.replace('_', ' ')}."]),
                edit=lambda t, x=x: type(t)(x[None, : t.x.shape[1]], t.layout, t.eos),
            )
            alone = tower.project(tower.pool(tower.run(tokens)))[0]
            torch.testing.assert_close(m.class_features()[i], alone / alone.norm(), rtol=0, atol=1e-5)


def test_training_lowers_the_loss_and_reaches_every_class_context(small_vlm):
    m = methods.build("coop", small_vlm, small_clip.CLASSES, class_specific=True).train()
    optimiser, losses = torch.optim.SGD(m.trainable().values(), lr=0.01), []
    for _ in range(4):
        loss = sum(m.losses({"image": small_clip.images(), "label": small_clip.LABELS}).values())
        optimiser.zero_grad()
        loss.backward()
        assert m.context.grad.flatten(1).norm(dim=1).min() > 0
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_class_specific_contexts_do_not_move_to_other_classes(small_vlm):
    m = methods.build("coop", small_vlm, small_clip.CLASSES, class_specific=True)
    m.set_classes(small_clip.CLASSES, small_clip.TEMPLATE)
    with pytest.raises(ValueError, match="class_specific=False"):
        m.set_classes(["cat", "dog"], small_clip.TEMPLATE)
    shared = methods.build("coop", small_vlm, small_clip.CLASSES)
    shared.set_classes(["cat", "dog"], small_clip.TEMPLATE)
    assert shared.class_features().shape == (2, 64)


def test_wrong_settings(small_vlm):
    with pytest.raises(ValueError, match="one of end, middle, front, got 'back'"):
        methods.build("coop", small_vlm, small_clip.CLASSES, class_position="back")
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        methods.build("coop", small_vlm, small_clip.CLASSES, tokens=0)
