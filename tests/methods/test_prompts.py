"""Where learned prompts stand: CoOp's context over the words, MaPLe's and PromptSRC's in the first blocks."""

import pytest
import small_clip
import torch

from vlmlab import methods
from vlmlab.methods import prompts
from vlmlab.models import edits

DEEP = [
    ("maple", {"half_prompts": False}, 2),
    ("promptsrc", {}, 4),
    ("hicropl", {"tokens": 3, "depth": 9}, 3),
]


@pytest.mark.parametrize("name,config,tokens", DEEP)
def test_prompts_stand_at_the_end_of_images_and_over_the_first_words(small_vlm, name, config, tokens):
    m = methods.build(name, small_vlm, small_clip.CLASSES, **config)
    with torch.no_grad():
        m.encode_image(small_clip.images())
        m.class_features()
    length = int(m._ids.argmax(dim=1).max()) + 1
    for layer in range(1, 13):
        assert small_vlm.image.layouts[layer] == (("cls", 1), ("patch", 16), ("prompt", tokens))
        words = length - 1 - tokens
        assert small_vlm.text.layouts[layer] == (("sos", 1), ("prompt", tokens), ("word", words))


def test_towers_may_have_prompts_of_their_own_number_and_depth(small_vlm):
    """As N_CTX_VISION, N_CTX_TEXT and PROMPT_DEPTH_VISION, PROMPT_DEPTH_TEXT of the published code."""
    given = {"tokens": 2, "depth": 3, "image_tokens": 5, "image_depth": 6}
    m = methods.build("promptsrc", small_vlm, small_clip.CLASSES, **given)
    assert sorted(m.text_edits()) == [0, 2, 3] and sorted(m.image_edits()) == [0, *range(2, 7)]
    with torch.no_grad():
        m.encode_image(small_clip.images())
        m.class_features()
    assert small_vlm.image.layouts[12][-1] == ("prompt", 5) and small_vlm.text.layouts[12][1] == ("prompt", 2)
    for wrong in ({"image_depth": 13}, {"image_depth": 0}, {"image_tokens": 0}):
        with pytest.raises(ValueError, match=r"blocks 1 to 12|at least 1"):
            methods.build("promptsrc", small_vlm, small_clip.CLASSES, **wrong)


@pytest.mark.parametrize("name,config,tokens", DEEP)
def test_prompts_are_renewed_up_to_depth_and_then_left_alone(small_vlm, name, config, tokens):
    m = methods.build(name, small_vlm, small_clip.CLASSES, **config)
    assert sorted(m.text_edits()) == sorted(m.image_edits()) == [0, *range(2, 10)]
    values = m.text_prompts() if name == "hicropl" else m.text
    seen = {}
    hooks = [
        b.register_forward_pre_hook(lambda _m, args, i=i: seen.update({i: args[0]}))
        for i, b in enumerate(small_vlm.text.blocks, start=1)
    ]
    with torch.no_grad():
        m.class_features()
    for hook in hooks:
        hook.remove()
    at = slice(1, 1 + tokens)
    position = small_vlm.clip.positional_embedding[at]  # only the first ones get a position
    torch.testing.assert_close(seen[1][0, at], values[0] + position)
    for layer in range(2, 10):
        assert all(torch.equal(row, values[layer - 1]) for row in seen[layer][:, at])
    assert not torch.equal(seen[10][:, at], seen[9][:, at])


def test_overwrite_keeps_the_length_and_the_end(small_vlm):
    tokens, values = small_vlm.text.embed(small_vlm.tokenize(["a cat", "a red fox"])), torch.randn(2, 64)
    after = edits.overwrite("prompt", values, of="word")(tokens)
    assert after.layout == (("sos", 1), ("prompt", 2), ("word", tokens.x.shape[1] - 3))
    assert torch.equal(after.eos, tokens.eos) and all(torch.equal(row, values) for row in after.x[:, 1:3])
    assert torch.equal(after.x[:, 3:], tokens.x[:, 3:]) and torch.equal(after.x[:, 0], tokens.x[:, 0])
    each = torch.randn(2, 1, 64)
    assert torch.equal(edits.overwrite("prompt", each, of="word")(tokens).x[:, 1:2], each)
    with pytest.raises(ValueError, match="40 values for 4 'word' tokens"):
        edits.overwrite("prompt", torch.zeros(40, 64), of="word")(tokens)


def test_context_starts_with_written_words_as_long_as_there_are_some(small_vlm):
    embedded = small_vlm.clip.token_embedding(small_vlm.tokenize(["a photo of a"]))[0, 1:5]
    for n in (1, 2, 4):
        assert torch.equal(prompts.first_words(small_vlm, n), embedded[:n])
    many = prompts.first_words(small_vlm, 400)
    assert many.shape == (400, 64) and 0.019 < many.std() < 0.021
    assert prompts.opening(4) == "a photo of a" and prompts.opening(5) == "X X X X X"


def test_depth_beyond_the_towers(small_vlm):
    with pytest.raises(ValueError, match="depth=13, but prompts can stand in blocks 1 to 12"):
        methods.build("maple", small_vlm, small_clip.CLASSES, depth=13)
