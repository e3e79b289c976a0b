"""The text side."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import vlmlab
from vlmlab.widgets import captions

TEXT = "a red square above a blue circle"


def test_pieces_and_attention_agree(vlm):
    pieces = captions.tokens(vlm, TEXT)
    assert "".join(pieces) == TEXT.replace(" ", "")
    row = captions.end_attention(vlm, TEXT)
    np.testing.assert_allclose(row.sum("token"), 1, atol=1e-5)
    assert row.sizes["token"] == len(pieces) + 2


def test_importance_is_one_minus_the_cosine(vlm):
    found = captions.importance(vlm, "cat dog")
    f = vlm.encode_text(["cat dog", "dog"]).numpy()
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    assert float(found[0]) == pytest.approx(1 - float(f[0] @ f[1]), abs=1e-5)


def test_typing_draws_again(vlm, fresh, pointed_at):
    ui = vlmlab.explore_text(vlm, TEXT)
    before = [p.value for p in ui.parts]
    ui.text.value = "a <b> photo & more"
    assert (
        all(p.value != b for p, b in zip(ui.parts, before))
        and "&lt;" in ui.pieces.value
        and "<b>" not in ui.pieces.value
    )
    names = {}
    exec(ui.cell(), names)
    assert pointed_at(names["fig"]) == pointed_at(*(p.drawing for p in ui.parts)) != []
    plt.close("all")
    ui.text.value = "one"
    assert "two words or more" in ui.message.value
    assert vlmlab.explore_text(vlm).text.value == "a <b> photo & more"  # the last that could be drawn


def test_too_long_a_text_is_said(vlm, fresh):
    ui = vlmlab.explore_text(vlm, "word " * 200)
    assert "may be cut" in ui.message.value and ui._repr_mimebundle_().get("image/png") is None


def test_other_models_are_refused(tuned):
    with pytest.raises(ValueError, match="a model of two towers"):
        vlmlab.explore_text(tuned)
