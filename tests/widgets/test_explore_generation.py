"""Word by word, on a small random LLaVA."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlab
from vlmlab import decode
from vlmlab.widgets import generation
from vlmlab.widgets.asking import asked

transformers = pytest.importorskip("transformers")
sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("decode", "capturing")]


@pytest.fixture(scope="module")
def llava():
    from letters import Letters
    from writers import WRITERS

    writer = next(w for w in WRITERS if w.name == "HF LLaVA")
    model = writer.build().eval()
    model.generation_config.update(eos_token_id=None, pad_token_id=0, do_sample=False)
    return asked(model, {k: v[:1] for k, v in writer.inputs().items()}, tokenizer=Letters())


def test_the_last_layer_says_what_was_written(llava):
    plain = generation.write(llava, 5, decode.Dola(language=False, fusion_strength=0))
    assert (plain.logits[-1].argmax(-1).numpy() == plain.ids).all() and plain.early is None
    out = llava.model.generate(**llava.inputs, max_new_tokens=5, do_sample=False)
    assert out[0, -5:].tolist() == plain.ids.tolist()


def test_the_contrast_is_what_dola_decodes_from(llava):
    dola = decode.Dola(contrast_layer=1, apc_threshold=0.5, fusion_strength=0)
    written = generation.write(llava, 6, dola)
    assert [int(written.log_p(i)[1].argmax()) for i in range(6)] == written.ids.tolist()
    assert all(int(written.log_p(i)[1].isfinite().sum()) == written.kept(i) for i in range(6))


def test_where_it_looks(llava):
    written = generation.write(llava, 3, decode.Dola(fusion_strength=0))
    assert generation.looked_at(llava, written) is None  # without a picture
    looks = generation.looked_at(dataclasses.replace(llava, picture=Image.new("RGB", (32, 32))), written)
    assert (
        looks.dims == ("layer", "word", "token") and looks.sizes["word"] == 3 and looks.sizes["token"] == 16
    )
    assert ((looks >= 0) & (looks.sum("token") < 1)).all()


def test_switches_write_again_and_sliders_only_draw(llava, fresh, monkeypatch):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    ui = vlmlab.explore_generation(llava.model, llava.inputs, 4, picture=picture, tokenizer=llava.tokenizer)
    assert ui.message.value == "" and len(ui.written.ids) == 4 and ui.fusion.disabled
    before = [p.value for p in ui.parts]
    monkeypatch.setattr(generation, "write", None)
    ui.word.value = 3
    ui.layer.value = 1
    assert all(p.value != b for p, b in zip(ui.parts, before)) and ui.message.value == ""
    monkeypatch.undo()
    ui.dola.value = False
    assert ui.written.early is None and ui.message.value == ""
    ui.alpha.value = 1.0
    assert ui.written.kept(0) == 1
    assert "image/png" in ui._repr_mimebundle_()


@pytest.mark.parametrize("change", ["two texts", "no tokenizer", "no mapping"])
def test_what_it_does_not_take(llava, change):
    model, inputs, tokenizer = llava.model, llava.inputs, llava.tokenizer
    if change == "two texts":
        inputs = {k: torch.cat([v, v]) for k, v in inputs.items()}
    if change == "no mapping":
        inputs = inputs["input_ids"]
    with pytest.raises(ValueError, match="tokenizer" if change == "no tokenizer" else "one text"):
        vlmlab.explore_generation(model, inputs, tokenizer=None if change == "no tokenizer" else tokenizer)


@pytest.fixture(scope="module")
def small(vlm, tmp_path_factory):
    """A LLaVA that has learnt for a few steps."""
    out, scenes = tmp_path_factory.mktemp("runs"), vlmlab.task("shapes/pairs", protocol="retrieval")
    language = vlmlab.fit("language", {}, scenes, out=out, steps=3)
    both = {"vlm": vlm, "language": language}
    return vlmlab.fit("llava", both, scenes, out=out, steps=3, instruct_steps=3)


def test_a_run_of_llava_writes(small, fresh, press, pointed_at, monkeypatch):
    ui = vlmlab.explore_generation(small, tokens=5)
    assert ui.message.value == "" and not ui.fusion.disabled and ui.looks is not None
    assert ui.trained == [(small.key, 1)]
    ui.fusion.value = False
    ui.dola.value = False
    plain = small.model.llava.generate(
        **ui.given.inputs, max_new_tokens=5, do_sample=False, **ui.given.options
    )
    assert plain[0, -len(ui.written.ids) :].tolist() == ui.written.ids.tolist()
    ui.dola.value = True
    names = {}
    press(ui, "copy as code")
    monkeypatch.setattr(vlmlab, "open_run", lambda path: small)
    exec(ui.code.value, names)
    assert pointed_at(names["fig"]) == pointed_at(*(p.drawing for p in ui.parts)) != []


@pytest.mark.skipif(not hasattr(transformers, "JanusForConditionalGeneration"), reason="transformers 5")
def test_without_a_model_the_embedded_one_writes(fresh, pointed_at):
    ui = vlmlab.explore_generation(tokens=12)
    assert ui.message.value == "" and not ui.fusion.disabled and ui.looks.sizes["token"] == 36
    ui.dola.value, ui.fusion.value = False, False
    assert "blue square" in "".join(ui.written.pieces)  # which is there
    names = {}
    exec(ui.cell(), names)
    assert pointed_at(names["fig"]) == pointed_at(*(p.drawing for p in ui.parts)) != []
    blank = vlmlab.explore_generation(picture=Image.new("RGB", (64, 64), "white"), tokens=12)
    assert blank.written.pieces != ui.written.pieces


def test_writing_can_be_stopped(llava, fresh, monkeypatch, pressed):
    ui = vlmlab.explore_generation(llava.model, llava.inputs, 4, tokenizer=llava.tokenizer)
    before, pixels = ui.written, [p.value for p in ui.parts]

    monkeypatch.setattr(generation, "Watch", pressed)
    ui.alpha.value = 0.5
    assert "stopped" in ui.message.value and ui.busy.children == ()
    assert ui.written is before and [p.value for p in ui.parts] == pixels
    monkeypatch.undo()
    ui.alpha.value = 1.0
    assert ui.written.kept(0) == 1 and ui.message.value == ""
