"""Loading: every wrong input is one clear line, right ones come back unchanged; no network is used."""

import copy
import json
import shutil
import socket

import open_clip
import pytest
import small_clip
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import load_file, save_file

from vlmlab.models import hub
from vlmlab.models.load import EMBEDDED, VLM, load
from vlmlab.models.open_clip_names import check_tag

CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2},
    "text_cfg": {"context_length": 12, "width": 64, "heads": 1, "layers": 2},
}
TEXTS = ["a cat", "two red foxes"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("this test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_folder):
    return save_folder(tmp_path_factory.mktemp("load") / "model", CONFIG)


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of the model folder to break."""
    return shutil.copytree(folder, tmp_path / "broken")


@pytest.fixture
def mini(monkeypatch):
    """A small architecture under an open_clip name."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "mini", copy.deepcopy(CONFIG))
    return "mini"


def refused(error, *parts):
    """pytest.raises for a one-line message that holds all parts."""
    pattern = "".join(f"(?=.*{part})" for part in parts)
    return pytest.raises(error, match=rf"(?s)\A(?!.*\n){pattern}")


def same_numbers(a: VLM, b) -> bool:
    """Whether a loaded model has the features of an open_clip one."""
    x, ids = torch.ones(1, 3, a.image_size, a.image_size), a.tokenize(TEXTS)
    with torch.no_grad():
        pairs = (a.encode_image(x), b.encode_image(x)), (a.encode_text(TEXTS), b.encode_text(ids))
    return all(torch.allclose(p, q, atol=1e-6) for p, q in pairs)


# names


def test_unknown_model():
    with refused(ValueError, "unknown model 'ViT-Z-9'", "tiny", "list_models"):
        load("ViT-Z-9")
    with refused(ValueError, "unknown model 'VIT-B-32'", "did you mean ViT-B-32"):
        load("VIT-B-32")
    for name in ("nope.pt", "/nowhere/model.safetensors", "./nowhere", "~/nowhere/x"):
        with refused(FileNotFoundError, f"no file or folder {name}"):
            load(name)
    with refused(ValueError, "unknown model 'https://example.org/x.pt'"):
        load("https://example.org/x.pt")
    for strange in ("a" * 5000, "a\0b"):
        with refused(ValueError, "unknown model"):
            load(strange)


def test_unknown_tag_lists_the_tags():
    parts = "unknown weights 'laion9b' for ViT-B-32", "no such file", "openai", "laion2b_s34b_b79k"
    with refused(ValueError, *parts):
        load("ViT-B-32", "laion9b")
    with refused(ValueError, "unknown weights 'openai' for ViT-S-16", "the tags are none"):
        load("ViT-S-16", "openai")


def test_activation_of_the_weights_must_be_the_architecture_s():
    parts = "'openai' were trained with QuickGELU", "ViT-B-16 builds the other", "use 'ViT-B-16-quickgelu'"
    with refused(ValueError, *parts):
        load("ViT-B-16", "openai")


def test_every_proposed_architecture_exists_and_takes_the_tag():
    proposals = []
    for name in open_clip.list_models():
        for tag in open_clip.list_pretrained_tags_by_model(name):
            try:
                check_tag(name, tag, open_clip.get_model_config(name))
            except ValueError as e:
                proposals.append((str(e).rsplit("use ", 1)[1].strip("'"), tag))
    assert len(proposals) > 10
    for name, tag in proposals:
        if not name.startswith("roberta"):  # QuickGELU under its plain name and no twin; towers do not run it
            check_tag(name, tag, open_clip.get_model_config(name))


def test_weights_that_cannot_be_fetched(monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("no route to host\nlong trace")

    monkeypatch.setattr(open_clip, "create_model", offline)
    monkeypatch.setattr(hub, "unreachable", lambda: "")
    parts = "ViT-B-16-quickgelu/openai could not be fetched", "OSError: no route to host", "pass the file"
    with refused(ValueError, *parts):
        load("ViT-B-16-quickgelu", "openai")


def test_unknown_precision():
    with refused(ValueError, "unknown precision 'fp8'", "fp32, amp_bf16, amp_fp16"):
        load("tiny", device="cpu", precision="fp8")


@pytest.mark.parametrize("precision,dtype", [("fp32", torch.float32), ("amp_bf16", torch.bfloat16)])
def test_precision_is_what_autocast_uses(precision, dtype):
    vlm = load("tiny", device="cpu", precision=precision)
    with vlm.autocast():
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype
    assert vlm.clip.positional_embedding.dtype == torch.float32


def test_an_architecture_that_towers_do_not_run():
    with refused(ValueError, "image tower ModifiedResNet", "VisionTransformer"):
        load("RN50", device="cpu")


def test_weights_named_twice(folder):
    for name in ("tiny", folder, folder / "model.safetensors"):
        with refused(ValueError, "has its own weights", "leave out pretrained='openai'"):
            load(name, "openai")


# folders


def test_a_folder_comes_back_as_it_was_saved(folder):
    clip = CLIP(**CONFIG).eval()
    clip.load_state_dict(load_file(folder / "model.safetensors"))
    vlm = load(folder, device="cpu")
    assert same_numbers(vlm, clip)
    assert (vlm.name, vlm.image_size, vlm.tokenize(TEXTS).shape) == ("model", 32, (2, 12))
    assert vlm.logit_scale == pytest.approx(1 / 0.07) and not any(p.requires_grad for p in vlm.parameters())


def test_folder_without_its_files(broken):
    (broken / "model.safetensors").unlink()
    with refused(FileNotFoundError, "no weight file", "broken/model.safetensors"):
        load(broken)
    (broken / "config.json").unlink()
    with refused(FileNotFoundError, "broken has no config.json", "model.safetensors", "bpe.txt.gz"):
        load(broken)


@pytest.mark.parametrize(
    "text,reason",
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"width": 3}', "KeyError: 'model_cfg'"),
        ('{"model_cfg": {"embed_dim": 3}}', "missing 2 required"),
        (json.dumps({"model_cfg": CONFIG | {"vision_cfg": {"wide": 1}}}), "'wide'"),
    ],
)
def test_broken_config(broken, text, reason):
    (broken / "config.json").write_text(text)
    with refused(ValueError, "config.json does not describe a model", reason, "embed_dim, vision_cfg"):
        load(broken)


def test_weights_of_another_vocabulary_need_their_merges(tmp_path):
    for file in ("config.json", "model.safetensors"):
        shutil.copy(EMBEDDED / "tiny" / file, tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with refused(ValueError, "has a vocabulary of 8901", "the CLIP tokenizer has 49408", "bpe.txt.gz"):
            load(path)
    (tmp_path / "bpe.txt.gz").write_bytes(b"not gzip")
    with refused(ValueError, "bpe.txt.gz is not a readable merge file"):
        load(tmp_path)


# weight files


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"\xff" * 100, lambda b: b""])
def test_corrupt_safetensors(broken, damage):
    file = broken / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    for path in (broken, file):
        with refused(ValueError, "broken/model.safetensors is not a readable weight file"):
            load(path)


def test_checkpoint_of_other_shapes(folder, broken, mini):
    state = load_file(folder / "model.safetensors")
    state["visual.proj"] = torch.zeros(64, 8)
    del state["ln_final.bias"]
    save_file(state | {"surprise": torch.zeros(1)}, broken / "model.safetensors")
    parts = (
        "does not fit the architecture",
        r"visual.proj: \(64, 8\) instead of \(64, 16\)",
        r"missing \['ln_final.bias'\]",
        r"unexpected \['surprise'\]",
    )
    with refused(ValueError, *parts):
        load(broken)
    with refused(ValueError, *parts):
        load(mini, broken / "model.safetensors")


class Trap:
    """Unpickling it would call a function."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was executed",)


def test_pickled_objects_are_refused(tmp_path, mini):
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": {"visual.proj": torch.zeros(2)}, "extra": Trap()}, file)
    for args in ((file,), (mini, file)):
        with refused(ValueError, "weights.pt is not a readable", "not plain tensors", "weights.safetensors"):
            load(*args)
    torch.save([1, 2], file)
    with refused(ValueError, "weights.pt holds a list, not a state dict"):
        load(file)


def test_a_file_that_is_no_clip(tmp_path):
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with refused(ValueError, "other.safetensors has no visual.conv1.weight", "name the architecture"):
        load(tmp_path / "other.safetensors")
    narrow = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"width": 96, "head_width": 32}}
    save_file(CLIP(**narrow).state_dict(), tmp_path / "narrow.safetensors")
    with refused(ValueError, "widths 96 and 64", "heads have width 64", "config.json"):
        load(tmp_path / "narrow.safetensors")


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_openai_style_state_dict_comes_back(tmp_path, folder, mini, ending):
    state, file = load_file(folder / "model.safetensors"), tmp_path / f"weights.{ending}"
    if ending == "pt":  # as OpenAI's files and wrapped training checkpoints have it
        wrapped = {f"module.{k}": v for k, v in state.items()}
        numbers = {"input_resolution": 32, "context_length": 12, "vocab_size": 49408}
        wrapped |= {k: torch.tensor(v) for k, v in numbers.items()}
        torch.save({"epoch": 3, "state_dict": wrapped}, file)
    else:
        save_file(state, file)
    clip = CLIP(**CONFIG).eval()
    clip.load_state_dict(state)
    for vlm in (load(file, device="cpu"), load(mini, file, device="cpu")):
        assert same_numbers(vlm, clip)
        assert vlm.image.depth == vlm.text.depth == 2 and vlm.tokenize(TEXTS).shape == (2, 12)


def test_sizes_are_read_off_the_weights(tmp_path):
    save_file(small_clip.state_dict(), tmp_path / "golden.safetensors")
    vlm = load(tmp_path / "golden.safetensors", device="cpu")
    assert (vlm.image.width, vlm.image.depth, vlm.image.heads, vlm.image_size) == (128, 12, 2, 64)
    assert (vlm.text.width, vlm.text.depth, vlm.text.heads) == (64, 12, 1)
    assert vlm.logit_scale == pytest.approx(100)
    assert isinstance(vlm.clip.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)


# texts and images


def test_text_that_does_not_fit(tiny, small):
    for vlm in (tiny, small):
        long = "a photo of a " + "very " * 40 + "large dog"
        with refused(ValueError, "1 texts fill all", vlm.name, "very very", "shorten the template"):
            vlm.encode_text(["a cat", long])
    with refused(ValueError, "no texts were given"):
        tiny.encode_text([])


def test_preprocess_is_that_of_the_weights(folder):
    """Some published weights squash images instead of cropping them."""
    wide = Image.new("RGB", (96, 32), "black")
    wide.paste("white", (0, 0, 32, 32))
    whole = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}
    clip = load(folder, device="cpu").clip
    crop = VLM(clip, None, "crop", torch.device("cpu"), "fp32")
    clip.visual.preprocess_cfg = whole
    squash = VLM(clip, None, "squash", torch.device("cpu"), "fp32")
    assert squash.preprocess(wide).shape == crop.preprocess(wide).shape == (3, 32, 32)
    assert squash.preprocess(wide).max() == 1 and squash.mean == (0.5,) * 3
    assert len(crop.preprocess(wide)[0].unique()) == 1 and crop.mean == open_clip.OPENAI_DATASET_MEAN


# fingerprint


def test_fingerprint(folder, broken):
    vlm = load(folder, device="cpu")
    before = vlm.fingerprint()
    assert len(before) == 64 and before == load(folder, device="cpu").fingerprint()
    state = load_file(folder / "model.safetensors")
    state["transformer.resblocks.1.mlp.c_fc.weight"][3, 5] += 1e-3
    save_file(state, broken / "model.safetensors")
    changed = load(broken, device="cpu").fingerprint()
    assert changed != before
    with torch.no_grad():
        vlm.clip.transformer.resblocks[1].mlp.c_fc.weight[3, 5] += 1e-3
    assert vlm.fingerprint() == changed


# devices, sources, modules handed over


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu", "cpu:3"])
def test_devices_that_are_not_there(device):
    with refused(ValueError, f"there is no device '{device}' here", "there is cpu"):
        load("tiny", device=device)


def test_a_gpu_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with refused(ValueError, "no device 'cuda' here", "there is cpu"):
        load("tiny", device="cuda")
    assert load("tiny").device.type == "cpu"


@pytest.mark.parametrize("place", ["tiny", "folder", "file"])
def test_source_opens_the_same_again_from_any_folder(place, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    given = {"tiny": "tiny", "folder": folder.name, "file": f"{folder.name}/model.safetensors"}[place]
    vlm = load(given, device="cpu", precision="amp_bf16")
    absolute = {"tiny": "tiny", "folder": str(folder), "file": str(folder / "model.safetensors")}[place]
    assert vlm.source == {"name": absolute, "pretrained": None, "precision": "amp_bf16"}
    monkeypatch.chdir(tmp_path)
    again = load(**json.loads(json.dumps(vlm.source)), device="cpu")
    assert again.fingerprint() == vlm.fingerprint() and again.precision == "amp_bf16"
    assert again.name == vlm.name and again.source == vlm.source
    assert vlm.thaw("*").source is None  # nothing opens what has trained


def test_source_of_an_architecture_with_local_weights(folder, mini, monkeypatch):
    monkeypatch.chdir(folder)
    vlm = load(mini, "model.safetensors", device="cpu")
    assert vlm.source == {
        "name": "mini",
        "pretrained": str(folder / "model.safetensors"),
        "precision": "fp32",
    }
    assert load(**vlm.source).fingerprint() == vlm.fingerprint()
    random = load(mini, device="cpu")
    assert random.source == {"name": "mini", "pretrained": None, "precision": "fp32"}


def test_a_module_is_taken_over_as_it_is():
    clip = CLIP(**CONFIG).train()
    vlm = load(clip, name="mine", precision="amp_bf16")
    assert vlm.clip is clip and (vlm.name, vlm.source, vlm.precision) == ("mine", None, "amp_bf16")
    assert not clip.training and not any(p.requires_grad for p in clip.parameters())
    assert same_numbers(vlm, clip) and load(clip).name == "CLIP"


def test_a_module_of_another_vocabulary_needs_its_tokenizer():
    clip = CLIP(**CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"vocab_size": 90}})
    with refused(ValueError, "mine has a vocabulary of 90", "pass tokenizer="):
        load(clip, name="mine")
    vlm = load(clip, tokenizer=lambda texts: torch.tensor([[1, 89] + [0] * 10] * len(texts)))
    assert vlm.encode_text(TEXTS).shape == (2, 16)
