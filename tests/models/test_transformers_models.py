"""CLIP and SigLIP of transformers: folders, files and modules give the features that transformers gives."""

import copy
import json
import logging
import warnings

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from vlmlab.models.load import load

TOWER = {"hidden_size": 64, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4}
PIXELS = {"image_size": 32, "patch_size": 16}
TEXTS = ["a cat", "two red foxes"]


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def random(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def clip(act="quick_gelu", **text):
    words = TOWER | {"vocab_size": 49408, "hidden_act": act} | text
    config = CLIPConfig(
        text_config=words, vision_config=TOWER | PIXELS | {"hidden_act": act}, projection_dim=24
    )
    return random(CLIPModel(config))


def siglip():
    words = TOWER | {"vocab_size": 100, "max_position_embeddings": 16}
    return random(SiglipModel(SiglipConfig(text_config=words, vision_config=TOWER | PIXELS)))


def ids(context=77, high=49408):
    """Two texts: BOS, words, EOS and zeros."""
    found = torch.zeros(2, context, dtype=torch.long)
    found[0, :4] = torch.tensor([high - 2, 3, 9, high - 1])
    found[1, :6] = torch.tensor([high - 2, 5, 3, 7, 2, high - 1])
    return found


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def features(model, texts):
    with torch.no_grad():
        found = model.get_image_features(images()), model.get_text_features(texts)
    return [x if isinstance(x, torch.Tensor) else x.pooler_output for x in found]


def close(vlm, model, texts, tolerance=1e-5):
    with torch.no_grad():
        ours = vlm.image(images()), vlm.text(texts)
    return all((a - b).abs().max() <= tolerance * b.abs().max() for a, b in zip(ours, features(model, texts)))


def processor(folder, **said):
    (folder / "preprocessor_config.json").write_text(json.dumps(said))


@pytest.mark.parametrize("act", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_clip_folder_and_its_file(tmp_path, act, safe):
    model = clip(act)
    model.save_pretrained(tmp_path)
    if not safe:
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    processor(tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[0.5] * 3, resample=2, do_center_crop=True)
    file = tmp_path / ("model.safetensors" if safe else "pytorch_model.bin")
    for place in (tmp_path, file):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            vlm = load(place, device="cpu")
        assert close(vlm, model, ids()) and vlm.mean == (0.1, 0.2, 0.3) and vlm.image.heads == 4
        assert vlm.clip.visual.preprocess_cfg["interpolation"] == "bilinear"
        assert vlm.source == {"name": str(place), "pretrained": None, "precision": "fp32"}
        assert vlm.text(vlm.tokenize(TEXTS)).shape == (2, 24)


def test_a_folder_without_its_processor_says_what_is_assumed(tmp_path):
    clip().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no preprocessor_config.json: assumed mean") as seen:
        vlm = load(tmp_path, device="cpu")
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert load(**vlm.source).source == vlm.source


def test_shards_in_half_precision(tmp_path):
    model = clip()
    model.half().save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    vlm = load(tmp_path, device="cpu")
    assert close(vlm, model.float(), ids()) and vlm.clip.logit_scale.dtype == torch.float32


def test_texts_are_read_at_the_model_s_own_end(tmp_path):
    """A word added behind the vocabulary has an id above that of the end."""
    model = clip(vocab_size=49410, eos_token_id=49407)
    texts = ids()
    texts[0, 2] = 49409
    vlm = load(model, tokenizer=lambda _: texts)
    assert vlm.text.read_at == "eos" and close(vlm, model, texts)
    assert load(clip(eos_token_id=2)).text.read_at == "argmax"


@pytest.mark.parametrize("form", ["folder", "module"])
def test_siglip(tmp_path, form):
    model, texts = siglip(), torch.randint(0, 99, (2, 16))
    model.save_pretrained(tmp_path)
    vlm = load(tmp_path if form == "folder" else model, tokenizer=lambda _: texts, device="cpu")
    assert close(vlm, model, texts) and vlm.text.read_at == "last" and vlm.mean == (0.5,) * 3
    assert vlm.logit_bias == pytest.approx(model.logit_bias.item())
    assert vlm.logit_scale == pytest.approx(model.logit_scale.exp().item())
    with pytest.raises(ValueError, match=r"has a vocabulary of 100.*pass tokenizer="):
        load(tmp_path)


def test_the_folder_s_own_tokenizer_ends_texts_with_zeros(tmp_path):
    """transformers pads CLIP's texts with their end, which would make all look full."""
    from open_clip.tokenizer import bytes_to_unicode
    from transformers import CLIPTokenizer

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {w: i for i, w in enumerate(words)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")).save_pretrained(tmp_path)
    clip(vocab_size=len(words), eos_token_id=len(words) - 1).save_pretrained(tmp_path)
    found = load(tmp_path, device="cpu").tokenize(["cat"])
    assert found[0, :6].tolist() == [512, *(vocabulary[w] for w in ("c", "a", "t</w>")), 513, 0]
    assert not found[0, 5:].any()


def test_weights_of_transformers_under_an_architecture_s_name(tmp_path):
    clip().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"\(weights of transformers\) does not fit the architecture: shapes"
    ):
        load("ViT-B-32-quickgelu", tmp_path / "model.safetensors")


def test_settings_that_towers_do_not_run(tmp_path):
    clip("relu").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config.json does not describe a model \(.*activations are relu"):
        load(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    for change in ({"vision_config": 5}, {"model_type": "bert", "architectures": ["BertModel"]}):
        (tmp_path / "config.json").write_text(json.dumps(about | change))
        with pytest.raises(ValueError, match=r"config.json (does not describe|describes no|names the arch)"):
            load(tmp_path)


# modules


def test_modules_are_unwrapped():
    model = clip()
    for wrapped in (
        torch.nn.DataParallel(model),
        torch.compile(model),
        torch.compile(torch.nn.DataParallel(model)),
    ):
        vlm = load(wrapped, device="cpu")
        assert vlm.name == "CLIPModel" and vlm.source is None and close(vlm, model, ids())
    assert close(load(copy.deepcopy(model).half()), model, ids(), 1e-2)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_clip_of_openai_s_package_is_copied_as_its_modules_say(quick_gelu):
    import model_forms

    clip = model_forms.small(quick_gelu, head_width=32)
    vlm = load(model_forms.Archive(copy.deepcopy(clip)).half(), device="cpu")
    assert vlm.image.heads == 4 and model_forms.same(vlm, clip.half().float())


def test_modules_that_cannot_be_taken_over():
    from model_forms import small

    with pytest.raises(ValueError, match=r"weights in bfloat16; hand over module.float\(\)"):
        load(small().bfloat16())
    tuned = small()
    tuned.visual.transformer.resblocks[0].mlp.lora_A = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"wrapped by LoRA \(visual.*lora_A.weight\).*merge_and_unload"):
        load(tuned)
    with torch.no_grad(), pytest.raises(ValueError, match="TorchScript module, whose code is fixed"):
        load(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)))
    with pytest.raises(ValueError, match="no model that load knows"):
        load(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="has no parameters"):
        load(torch.nn.ReLU())
    with pytest.raises(ValueError, match="leave out heads=2"):
        load(small(), heads=2)
