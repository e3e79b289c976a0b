"""A model is written as a folder that opens again as the same; another of its architecture is built."""

import copy
import gzip
import json

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from vlmlab.models.export import anew, merges_of, model_cfg, same_words, write_folder
from vlmlab.models.load import EMBEDDED, load

TEXTS = ["a cat", "two red foxes"]
SIZES = {
    "embed_dim": 24,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 64, "layers": 3, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 48, "layers": 2, "mlp_ratio": 3.0},
}
SIZES["vision_cfg"]["head_width"], SIZES["text_cfg"]["heads"] = 16, 4


def module(kind=CLIP, **change):
    torch.manual_seed(0)
    return kind(**copy.deepcopy(SIZES | change))


@pytest.mark.parametrize("quick", [True, False])
def test_a_module_tells_its_sizes(quick):
    found = model_cfg(load(module(quick_gelu=quick), device="cpu"))
    assert found == SIZES | {"quick_gelu": quick}


def test_a_module_that_is_no_clip_of_two_transformers_does_not():
    custom = load(module(CustomTextCLIP), name="mine", device="cpu")
    timm = {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token", "timm_proj": "linear"}
    trunk = load(module(vision_cfg=timm), name="mine", device="cpu")
    assert type(trunk.clip) is CLIP
    for vlm, kind in ((custom, "CustomTextCLIP"), (trunk, "CLIP")):
        with pytest.raises(
            ValueError, match=f"^mine is a {kind} without a source; only a CLIP tells its own"
        ):
            model_cfg(vlm)


def test_a_source_tells_the_architecture(small, monkeypatch):
    about = json.loads(open(f"{small.source['name']}/config.json", encoding="utf-8").read())
    assert model_cfg(small) == model_cfg(small.thaw("visual.proj")) == about["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "mini", SIZES | {"hf_hub_id": "owner/mini"})
    vlm = load(module(quick_gelu=True), device="cpu")
    vlm.source = {"name": "mini"}
    assert model_cfg(vlm) == SIZES


def test_another_of_the_same_architecture():
    pixels = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "resize_mode": "squash"}
    vlm = load(module(), name="mine", device="cpu", precision="amp_bf16", pixels=pixels)
    torch.manual_seed(1)
    other = anew(vlm)
    torch.manual_seed(1)
    expected = CLIP(**SIZES).state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in other.clip.state_dict().items())
    assert (other.name, other.precision, other.source) == ("mine, random", "amp_bf16", None)
    assert other.mean == (0.1, 0.2, 0.3) and other.std == (0.4, 0.5, 0.6)
    assert other.clip.visual.preprocess_cfg == vlm.clip.visual.preprocess_cfg
    assert other.tokenizer is vlm.tokenizer and other.device == vlm.device


# folders


def test_a_folder_opens_as_what_was_written(tiny, tmp_path):
    """tiny has a vocabulary of its own."""
    pixels = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
    vlm = load(copy.deepcopy(tiny.clip), tokenizer=tiny.tokenizer, device="cpu", pixels=pixels)
    folder = write_folder(vlm, str(tmp_path / "new" / "folder"), {"steps": 400})
    assert folder == tmp_path / "new" / "folder"
    assert {p.name for p in folder.iterdir()} == {
        "open_clip_model.safetensors",
        "open_clip_config.json",
        "bpe.txt.gz",
    }
    again = load(folder, device="cpu")
    state = vlm.clip.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in again.clip.state_dict().items())
    assert again.mean == (0.1, 0.2, 0.3) and again.name == "folder"
    assert torch.equal(again.tokenize(TEXTS), tiny.tokenize(TEXTS))
    assert torch.equal(again.encode_text(TEXTS), vlm.encode_text(TEXTS))
    said = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    assert set(said) == {"model_cfg", "preprocess_cfg", "about"} and said["about"] == {"steps": 400}
    assert said["preprocess_cfg"]["mean"] == [0.1, 0.2, 0.3] and said["model_cfg"] == model_cfg(vlm)
    before = (folder / "bpe.txt.gz").read_bytes()
    write_folder(vlm, folder, {"steps": 500})  # over what stands there
    assert '"steps": 500' in (folder / "open_clip_config.json").read_text(encoding="utf-8")
    assert (folder / "bpe.txt.gz").read_bytes() == before and not any(before[4:8])  # no date


def test_the_merges_of_clip_are_not_written(tmp_path):
    clip = module()
    half = load(copy.deepcopy(clip), device="cpu")
    half.clip.bfloat16()
    folder = write_folder(half, tmp_path, {})
    assert not (folder / "bpe.txt.gz").exists()
    weights = load_file(folder / "open_clip_model.safetensors")
    assert {x.dtype for x in weights.values()} == {torch.float32}
    assert torch.equal(weights["visual.proj"], clip.visual.proj.bfloat16().float())


def test_a_tokenizer_that_is_not_open_clip_s_is_not_written(small, tmp_path):
    vlm = load(small.clip, tokenizer=lambda texts: texts, name="mine", device="cpu")
    with pytest.raises(ValueError, match=r"^the texts of mine are read by function; only open_clip's Simple"):
        write_folder(vlm, tmp_path / "x", {})
    assert not (tmp_path / "x").exists()


def test_merges_are_written_as_they_were_read(tiny, tmp_path):
    merges_of(tiny.tokenizer)(tmp_path / "bpe.txt.gz")
    own = gzip.decompress((EMBEDDED / "tiny" / "bpe.txt.gz").read_bytes()).decode().splitlines()
    lines = gzip.decompress((tmp_path / "bpe.txt.gz").read_bytes()).decode().splitlines()
    assert lines[0] == "#version: 0.2" and lines[1:] == own[1:]


# words


def changed(tokenizer, **change):
    other = copy.copy(tokenizer)
    vars(other).update(change)
    return other


def test_whether_two_models_cut_texts_alike(tiny, small):
    def of(tokenizer):
        return load(small.clip, tokenizer=tokenizer, device="cpu")

    own, function = tiny.tokenizer, lambda texts: texts
    cases = {
        "the same object": (function, function, True),
        "the same words": (own, changed(own), True),
        "CLIP's twice": (SimpleTokenizer(), small.tokenizer, True),
        "another vocabulary": (own, small.tokenizer, False),
        "other merges": (own, changed(own, bpe_ranks={("a", "b"): 0}), False),
        "other numbers": (own, changed(own, encoder={"a": 0}), False),
        "another kind": (own, function, False),
        "another kind first": (function, own, False),
        "two other kinds": (function, lambda texts: texts, False),
    }
    assert {name: same_words(of(a), of(b)) for name, (a, b, _) in cases.items()} == {
        name: same for name, (_, _, same) in cases.items()
    }
