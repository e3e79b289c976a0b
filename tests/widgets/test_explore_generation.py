"""Word by word, on a small random LLaVA."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlab
from vlmlab import decode
from vlmlab.widgets import generation

pytest.importorskip("transformers")
sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("decode", "capturing")]


@pytest.fixture(scope="module")
def llava():
    from letters import Letters
    from writers import WRITERS

    writer = next(w for w in WRITERS if w.name == "HF LLaVA")
    model = writer.build().eval()
    model.generation_config.update(eos_token_id=None, pad_token_id=0, do_sample=False)
    return model, {k: v[:1] for k, v in writer.inputs().items()}, Letters()


def test_the_last_layer_says_what_was_written(llava):
    model, inputs, tokenizer = llava
    plain = generation.write(
        model, inputs, 5, decode.Dola(language=False, fusion_strength=0), tokenizer=tokenizer
    )
    assert (plain.logits[-1].argmax(-1).numpy() == plain.ids).all() and plain.early is None
    out = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert out[0, -5:].tolist() == plain.ids.tolist()


def test_the_contrast_is_what_dola_decodes_from(llava):
    model, inputs, tokenizer = llava
    dola = decode.Dola(contrast_layer=1, apc_threshold=0.5, fusion_strength=0)
    written = generation.write(model, inputs, 6, dola, tokenizer=tokenizer)
    assert [int(written.log_p(i)[1].argmax()) for i in range(6)] == written.ids.tolist()
    assert all(int(written.log_p(i)[1].isfinite().sum()) == written.kept(i) for i in range(6))


def test_where_it_looks(llava):
    model, inputs, tokenizer = llava
    written = generation.write(model, inputs, 3, decode.Dola(fusion_strength=0), tokenizer=tokenizer)
    looks = generation.looked_at(model, inputs, written)
    assert (
        looks.dims == ("layer", "word", "token") and looks.sizes["word"] == 3 and looks.sizes["token"] == 16
    )
    assert ((looks >= 0) & (looks.sum("token") < 1)).all()


def test_switches_write_again_and_sliders_only_draw(llava, fresh, monkeypatch):
    model, inputs, tokenizer = llava
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    ui = vlmlab.explore_generation(model, inputs, tokens=4, picture=picture, tokenizer=tokenizer)
    assert ui.message.value == "" and len(ui.written.ids) == 4 and ui.fusion.disabled
    before = ui.image.value
    monkeypatch.setattr(generation, "write", None)
    ui.word.value = 3
    ui.layer.value = 1
    assert ui.image.value != before and ui.message.value == ""
    monkeypatch.undo()
    ui.dola.value = False
    assert ui.written.early is None and ui.message.value == ""
    ui.alpha.value = 1.0
    assert ui.written.kept(0) == 1
    assert "image/png" in ui._repr_mimebundle_()


@pytest.mark.parametrize("change", ["two texts", "no tokenizer", "no mapping"])
def test_what_it_does_not_take(llava, change):
    model, inputs, tokenizer = llava
    if change == "two texts":
        inputs = {k: torch.cat([v, v]) for k, v in inputs.items()}
    if change == "no mapping":
        inputs = inputs["input_ids"]
    with pytest.raises(ValueError, match="tokenizer" if change == "no tokenizer" else "one text"):
        vlmlab.explore_generation(model, inputs, tokenizer=None if change == "no tokenizer" else tokenizer)
