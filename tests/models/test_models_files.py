"""Files, folders and names of models, case by case: what is refused, what wins, and what is asked of libraries."""

import copy
import json
import pickle
import re
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from model_forms import TEXT, VISION, same, small
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import nn

from vlmlab.models import files, hub, modules, open_clip_names, tokenizers, weights
from vlmlab.models import load as loading
from vlmlab.models import model as frozen
from vlmlab.models.alone import unusual
from vlmlab.models.fingerprint import fingerprint
from vlmlab.models.load import EMBEDDED, embedded, load, names
from vlmlab.models.model import Model
from vlmlab.models.packages import PACKAGES

SIZES = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
TINY = {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2}
FEW = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": TINY,
}


def tokens(texts):
    return torch.tensor([[1, 5, 19, 0, 0, 0]] * len(texts))


def saved(clip, folder, name="model.safetensors", about=None):
    folder.mkdir(exist_ok=True, parents=True)
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, folder / name)
    if about:
        (folder / "config.json").write_text(json.dumps(about))
    return folder / name


def quietly(*args, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(*args, device="cpu", **given)


@pytest.fixture
def mini(monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "mini", copy.deepcopy(SIZES))
    return "mini"


# configurations


def changed(**parts):
    return {k: FEW.get(k, {}) | v if isinstance(v, dict) else v for k, v in parts.items()}


TIMM = {"image_size": 32, "timm_pool": "token"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quick_gelu": "no"}, "quick_gelu is 'no', not true or false"),
        ({"custom_text": 1}, "custom_text is 1, not true or false"),
        ({"vision_cfg": {"no_ln_pre": "no"}}, "no_ln_pre is 'no', not"),
        ({"vision_cfg": {"output_tokens": 0}}, "output_tokens is 0, not"),
        ({"text_cfg": {"no_causal_mask": "yes"}}, "no_causal_mask is 'yes', not"),
        ({"text_cfg": {"proj_bias": "yes"}}, "proj_bias is 'yes', not"),
        (
            {"text_cfg": {"hf_model_name": "owner/model"}},
            "text tower is Hugging Face's owner/model; towers run",
        ),
        ({"multimodal_cfg": {"width": 8}}, "a CoCa with a text decoder, which towers do not run"),
        *[
            ({"vision_cfg": TIMM | {"timm_model_name": name}}, f"the image tower '{name}' would be fetched")
            for name in ("hf-hub:model", "owner/model", "hf-hub:owner/model", "local-dir:x")
        ],
    ],
)
def test_a_configuration_that_is_not_built(change, message):
    with pytest.raises(ValueError, match=message):
        files.build(FEW | changed(**change))


def test_what_a_configuration_becomes():
    config = FEW | {"custom_text": True, "vision_cfg": FEW["vision_cfg"] | {"attentional_pool": "parallel"}}
    config["vision_cfg"] |= {"attn_pooler_heads": 2}
    before = copy.deepcopy(config)
    assert type(files.build(config)) is CustomTextCLIP and config == before  # as it was
    assert type(files.build(FEW | {"custom_text": False})) is type(files.build(FEW)) is CLIP
    timm = FEW | {"vision_cfg": TIMM | {"timm_model_name": "test_vit", "timm_model_pretrained": True}}
    timm["vision_cfg"]["image_size"] = 160
    assert type(files.build(timm).visual.trunk).__name__ == "VisionTransformer"


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_the_end_of_texts_for_an_open_clip_that_knows_only_the_largest(monkeypatch, kind):
    config = FEW | {"custom_text": kind is CustomTextCLIP}
    own = {"text_cfg": TINY | {"pool_type": "eos", "eos_id": 7}}
    assert files.unknown_end(own) is None or not hasattr(files.CLIPTextCfg, "eos_id")
    monkeypatch.setattr(files, "CLIPTextCfg", SimpleNamespace)
    for said, end in (({"pool_type": "eos", "eos_id": 7}, 7), ({"pool_type": "eos"}, 2)):
        own = {"text_cfg": TINY | said}
        assert files.unknown_end(own) == end and own == {"text_cfg": TINY}
    for said in ({"pool_type": "last"}, {}):
        own = {"text_cfg": TINY | said}
        assert files.unknown_end(own) is None and own == {"text_cfg": TINY | said}
    monkeypatch.setattr(files, "check_flags", lambda config: None)  # asks for the same class
    text = files.build(config | {"text_cfg": TINY | {"pool_type": "eos", "eos_id": 7}})
    text = getattr(text, "text", text)
    assert (text.text_pool_type, text.text_eos_id) == ("eos", 7)


def test_a_model_of_more_than_a_thousand_blocks_is_no_model(monkeypatch):
    built = []

    def build(config):
        built.append(torch.zeros(1).device.type)
        return nn.Linear(2, 2)

    monkeypatch.setattr(files, "build", build)

    def about(vision, text, make=build, **more):
        config = {"vision_cfg": {"layers": vision} | more, "text_cfg": {"layers": text}}
        return files.Described(Path("config.json"), config, make, None, ())

    assert set(files.shapes(about(1000, 1000))) == {"weight", "bias"} and built == ["meta"]
    for wrong, said in (((1001, 2), 1001), ((2, 1002), 1002)):
        with pytest.raises(ValueError, match=f"^{said} blocks$"):
            files.shapes(about(*wrong))
    assert files.shapes(about(2, 2, make=lambda config: None)) is None
    assert files.shapes(about(2, 2, timm_model_name="x")) is None and len(built) == 1
    assert files.tensors(about(2, 2, timm_model_name="x", make=build))["weight"].device.type == "cpu"


# weights that do not fit


def test_weights_are_looked_at_before_memory_is_taken(monkeypatch):
    places = []

    def build(config):
        module = nn.Linear(2, 2)
        places.append(module.weight.device.type)
        return module

    monkeypatch.setattr(files, "build", build)
    about = files.Described(Path("config.json"), {}, build, None, ())
    with pytest.raises(ValueError, match="does not fit the architecture"):
        files.made(about, weights.Weights(Path("x.pt"), {"weight": torch.ones(3, 2), "bias": torch.ones(2)}))
    assert places == ["meta"]
    fits = weights.Weights(Path("x.pt"), {"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    assert files.made(about, fits).weight.sum() == 4 and places == ["meta", "meta", "cpu"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"visual.proj": torch.zeros(16, 128)},
            r"shapes \['visual.proj: \(16, 128\) instead of \(128, 16\)'\], missing \[\]",
        ),
        ({"ln_final.bias": None}, r"shapes \[\], missing \['ln_final.bias'\], unexpected \[\]"),
        ({"more": torch.zeros(1)}, r"missing \[\], unexpected \['more'\]; it holds \d+ tensors"),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    clip = small()
    state = {k: v for k, v in (clip.state_dict() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        files.fit_weights(clip, weights.Weights(Path("x.pt"), state))


def test_a_scale_has_one_entry_or_no_dimension():
    clip = small()
    state = clip.state_dict() | {"logit_scale": torch.tensor([3.0])}
    assert files.fit_weights(clip, weights.Weights(Path("x.pt"), state)).logit_scale == 3


def test_folders_of_several_weight_files(tmp_path, mini):
    clip = small()
    (tmp_path / "bare").mkdir()
    for n in range(8):
        (tmp_path / "bare" / f"{n}.safetensors").touch()
    listed = ", ".join(f"{n}.safetensors" for n in range(6))
    match = rf"bare has 8 weight files \({listed}\); name the one that is meant"
    for args in ((tmp_path / "bare",), (mini, tmp_path / "bare")):
        with pytest.raises(ValueError, match=match):
            load(*args)
    saved(clip, tmp_path / "said", "0.safetensors", {"model_cfg": SIZES})
    (tmp_path / "said" / "1.safetensors").touch()
    with pytest.raises(ValueError, match=r"said has 2 weight files \(0.safetensors, 1.safetensors\)"):
        load(tmp_path / "said")
    (tmp_path / "said" / "1.safetensors").unlink()
    assert same(quietly(tmp_path / "said"), clip)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"unknown weights .*empty' for mini: no such file, and the tags are none"
    ):
        load(mini, tmp_path / "empty")


def test_weights_beside_another_model_s_configuration_are_their_own(tmp_path):
    clip = small()
    file = saved(
        clip, tmp_path, "mine.safetensors", {"model_cfg": FEW, "preprocess_cfg": {"mean": [0.1] * 3}}
    )
    with pytest.warns(UserWarning, match="does not say"):
        vlm = load(file, device="cpu")
    assert same(vlm, clip) and vlm.mean != (0.1,) * 3


@pytest.mark.parametrize("place", ["folder", "file", "beside", "architecture"])
def test_a_tokenizer_that_is_given_wins(tmp_path, mini, place):
    about, clip = (None, small()) if place == "file" else ({"model_cfg": FEW}, CLIP(**FEW))
    file = saved(clip, tmp_path, about=about)
    place = {"folder": tmp_path, "architecture": mini}.get(place, file)
    vlm = quietly(place, tokenizer=tokens)
    assert vlm.tokenizer is tokens and vlm.source is None
    with pytest.raises(ValueError, match="vocabulary of 20") if about and place != mini else nullcontext():
        assert quietly(place).tokenizer is not tokens


# names


def test_names_of_models():
    assert embedded() == sorted(p.name for p in EMBEDDED.iterdir() if (p / "config.json").is_file())
    assert {"tiny", "tiny-janus", "tiny-siglip"} <= set(embedded())
    assert names() == [*embedded(), *PACKAGES, *open_clip.list_models()]
    assert (load(device="cpu").name, load(name="tiny-siglip", device="cpu").name) == ("tiny", "tiny-siglip")
    vlm = load("tiny", name="mine", device="cpu")
    assert vlm.name == "mine" and vlm.source["name"] == "tiny" and vlm.shortcuts


def test_names_that_are_nearly_one():
    for name, message in (("tinny", "did you mean tiny?"), ("ViT-B-32-quickgeluu", "ViT-B-32-quickgelu")):
        with pytest.raises(ValueError, match=re.escape(message)):
            load(name)
    for name in ("resnet-fifty", "tin-foil"):
        with pytest.raises(ValueError) as e:
            load(name)
        assert "did you mean" not in str(e.value)
    for length, shown in ((199, "a" * 199), (250, "a" * 200 + "...")):
        with pytest.raises(ValueError, match=f"unknown model '{re.escape(shown)}':"):
            load("a" * length)


def test_what_says_its_activation_itself(tmp_path, mini):
    import transformers as hf

    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 24}
    hf.GPT2LMHeadModel(hf.GPT2Config(**sizes)).save_pretrained(tmp_path)
    for place in (tmp_path, "tiny", mini, "all-minilm-l6-v2", small()):
        for said in ({"quick_gelu": False}, {"heads": 2}):
            text = "=".join(map(str, *said.items()))
            with pytest.raises(
                ValueError, match=f"says its activation and heads itself; leave out {text}, which"
            ):
                load(place, **said)


@pytest.mark.parametrize(("pretrained", "offline"), [(None, True), ("file", True), ("openai", False)])
def test_only_a_tag_may_ask_the_hub(monkeypatch, tmp_path, pretrained, offline):
    from huggingface_hub import constants

    seen = []

    def opens(path, asked):
        seen.append(constants.HF_HUB_OFFLINE)
        raise KeyError("enough")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "LOADERS", ((lambda path: True, opens),))
    if pretrained == "file":
        pretrained = saved(nn.Linear(2, 2), tmp_path)
    with pytest.raises(KeyError):
        load("mini", pretrained)
    assert seen == [offline]


@pytest.mark.parametrize(
    ("count", "mps", "there", "usual"),
    [
        (0, False, ["cpu"], "cpu"),
        (2, False, ["cpu", "cuda:0", "cuda:1"], "cuda"),
        (0, True, ["cpu", "mps"], "cpu"),
    ],
)
def test_devices(monkeypatch, count, mps, there, usual):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(count))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    for name in (*there, "meta", *(["cuda"] if count else [])):
        assert loading.check_device(name) == torch.device(name)
    assert loading.check_device(None) == torch.device(usual)
    for name in ("cuda:2", "mps:7", "", *([] if mps else ["mps"]), *([] if count else ["cuda"])):
        with pytest.raises(
            ValueError, match=rf"^there is no device '{name}' here; there is {', '.join(there)}$"
        ):
            loading.check_device(name)
    usual = {"cuda": "amp_bf16", "cpu": "fp32", "meta": "fp32"}
    assert {d: loading.check_precision(None, torch.device(d)) for d in usual} == usual


# modules


def test_a_module_stays_where_it_is_unless_told():
    with torch.device("meta"):
        clip = CLIP(**FEW)
    assert load(clip, tokenizer=tokens).device.type == "meta"
    assert load(CLIP(**FEW), tokenizer=tokens, device="meta").device.type == "meta"
    pixels = {"mean": (0.5, 0.5, 0.5), "resize_mode": "squash"}
    clip = CLIP(**FEW)
    vlm = load(copy.deepcopy(clip), tokenizer=tokens, pixels=pixels, device="cpu")
    assert vlm.mean == (0.5,) * 3 and vlm.clip.visual.preprocess_cfg["resize_mode"] == "squash"
    plain = load(clip, tokenizer=tokens, device="cpu", pixels={})
    state = plain.clip.state_dict()
    assert vlm.fingerprint() != plain.fingerprint() == fingerprint(state, unusual({}, plain))
    as_built = CLIP(**FEW)  # a folder's configuration says it of the module, no keyword does
    as_built.load_state_dict(state)
    as_built.visual.preprocess_cfg = dict(vlm.clip.visual.preprocess_cfg)
    assert load(as_built, tokenizer=tokens, device="cpu").fingerprint() == vlm.fingerprint()


def fake(**parts):
    module = nn.Linear(2, 2)
    for name, value in parts.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (fake(visual=nn.Linear(2, 2)), "no model that load knows"),
        (fake(logit_scale=nn.Parameter(torch.ones(1))), "no model that load knows"),
        (fake(config=SimpleNamespace(model_type="blip", vision_config=1)), "no model that load knows"),
        (fake(config=SimpleNamespace(model_type="clip")), "no model that load knows"),
        (
            fake(visual=nn.Linear(2, 2), logit_scale=nn.Parameter(torch.ones(1))),
            "the image tower Linear has no conv1",
        ),
        (type("PeftModel", (nn.Linear,), {})(2, 2), r"PeftModel is wrapped by LoRA \(peft\)"),
        (
            fake(scale=nn.Parameter(torch.ones(1).half()), visual=1, logit_scale=1),
            "weights in float16; hand over",
        ),
    ],
)
def test_modules_that_are_no_model_of_two_towers(module, message):
    with pytest.raises(ValueError, match=message):
        load(module, tokenizer=tokens, device="cpu")


@pytest.mark.parametrize("lacks", ["visual.class_embedding", "token_embedding.weight", "text_projection", ""])
def test_openai_s_clip_is_told_by_three_names(lacks):
    state = dict.fromkeys(("visual.class_embedding", "token_embedding.weight", "text_projection"))
    state.pop(lacks, None)
    assert weights.is_openai(state) is (not lacks) is weights.is_openai({**state, "logit_scale": 1})


def test_a_model_says_what_it_is(tiny):
    panel, facts = tiny.panel(), tiny.facts()
    assert (panel.kind, panel.line, panel.facts) == ("VLM", "tiny, fp32 on cpu", facts)
    assert list(facts) == [
        "image tower",
        "text tower",
        "logit scale",
        "module",
        "package",
        "parameters",
        "source",
    ]
    count = sum(p.numel() for p in tiny.clip.parameters())
    assert facts["module"] == type(tiny.clip).__name__ and facts["package"] == ""
    assert facts["parameters"] == f"{count / 1e6:,.2f} M" and facts["source"] == "name=tiny, precision=fp32"
    assert facts["logit scale"] == f"{tiny.clip.logit_scale.exp().item():.4g}"
    context, words = tiny.clip.token_embedding.num_embeddings, len(tiny.clip.positional_embedding)
    assert facts["image tower"].endswith("heads, 64 × 64 pixels as 1 cls + 8 × 8 patch tokens")
    assert facts["text tower"].endswith(f"heads, texts of at most {words} tokens out of {context:,}")
    assert facts["image tower"].startswith(f"12 blocks × {tiny.image.width}, {tiny.image.heads} heads, ")
    assert tiny.image.panel().kind == "ImageTower" and tiny.text.panel().line == facts["text tower"]
    thawed = tiny.thaw("visual.proj", "text_projection")
    assert thawed.facts()["parameters"] == f"{count / 1e6:,.2f} M, 2 tensors of them train"
    assert thawed.facts()["source"] is None


class Wrapped(Model):
    holds = "module"

    def __init__(self, module):
        super().__init__("mine", "fp32")
        self.module = module
        self.freeze("cpu")


def test_a_fingerprint_is_computed_once_until_a_write(monkeypatch):
    model, made = Wrapped(nn.Linear(2, 2)), []
    monkeypatch.setattr(
        frozen, "fingerprint", lambda state, besides: made.append(1) or fingerprint(state, besides)
    )
    first = model.fingerprint()
    assert model.fingerprint() == first and len(made) == 1
    with torch.no_grad():
        model.module.weight.add_(1)
    assert model.fingerprint() != first and len(made) == 2


def test_a_fingerprint_tells_names_shapes_and_numbers():
    x = torch.arange(6.0)
    states = {"a": x}, {"b": x}, {"a": x.reshape(2, 3)}, {"a": x.reshape(3, 2)}, {"a": x + 1}
    assert len({fingerprint(state) for state in states} | {fingerprint({"a": x}, "quick")}) == 6
    assert (
        fingerprint({"a": x, "b": x + 1}) == fingerprint({"b": x + 1, "a": x}) and len(fingerprint({})) == 64
    )
    assert fingerprint({"a": x.half()}) == fingerprint({"a": x})


# thaw


def test_near_names_of_parameters_or_the_first(tiny):
    first = ", ".join(list(dict(tiny.clip.named_parameters()))[:3])
    with pytest.raises(ValueError, match=rf"matches '###'; near names are {first}$"):
        tiny.thaw("###")
    model = Wrapped(nn.ModuleDict({"attention": nn.Linear(2, 2, bias=False)}))
    with pytest.raises(ValueError, match=r"matches 'attn'; near names are attention.weight$"):
        model.thaw("attn")
    two = Wrapped(nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in ("q", "attention")}))
    with pytest.raises(ValueError, match=r"near names are attention.weight$"):  # a third of it alike
        two.thaw("attn.w")


def test_whole_numbers_do_not_train():
    module = nn.Linear(2, 2)
    for n in range(4):
        setattr(module, f"n{n}", nn.Parameter(torch.ones(1, dtype=torch.int32), requires_grad=False))
    with pytest.raises(ValueError, match=r"^n0, n1, n2 are not floating-point numbers and cannot train$"):
        Wrapped(module).thaw("*")
    assert Wrapped(module).thaw("weight").thawed == {"weight"}


class Partial(nn.Module):
    def __init__(self):
        super().__init__()
        import functools

        self.inner = nn.Linear(2, 2, bias=False)
        self.call = functools.partial(self.inner.forward)
        self.apply_ = functools.partial(nn.functional.linear, weight=self.inner.weight)
        self.first = functools.partial(nn.functional.linear, torch.ones(1, 2), self.inner.weight)


def test_partial_functions_follow_the_copies():
    model = Wrapped(Partial())
    module = model.thaw("inner.weight").module
    assert module.call.func.__self__ is module.inner is not model.module.inner
    assert module.apply_.keywords["weight"] is module.inner.weight is not model.module.inner.weight
    assert (
        module.first.args[1] is module.inner.weight
        and model.module.first.args[1] is model.module.inner.weight
    )


@pytest.mark.parametrize(
    ("pattern", "image", "text"),
    [
        ("visual.class_embedding", 0, 3),
        ("visual.positional_embedding", 0, 3),
        ("visual.conv1.weight", 0, 3),
        ("visual.ln_pre.bias", 0, 3),
        ("positional_embedding", 3, 0),
        ("token_embedding.weight", 3, 0),
        ("transformer.resblocks.1.ln_1.bias", 3, 2),
        ("visual.transformer.resblocks.0.ln_1.bias", 1, 3),
        ("visual.ln_post.bias", 3, 3),
    ],
)
def test_what_stands_before_the_blocks(pattern, image, text):
    thawed = load(CLIP(**FEW), tokenizer=tokens, device="cpu").thaw(pattern)
    assert (thawed.image.first_trained, thawed.text.first_trained) == (image, text)


# open_clip's names


def test_random_weights_are_those_of_seed_0_and_leave_the_caller_s_numbers(mini):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = quietly(mini)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(0)
    own = open_clip.create_model(mini).state_dict()
    assert all(torch.equal(x, own[name]) for name, x in first.clip.state_dict().items())


@pytest.mark.parametrize("tag", ["openai", None])
def test_a_tag_is_what_open_clip_is_asked_for(monkeypatch, tag):
    asked = []

    def create(name, pretrained=None):
        asked.append((name, pretrained))
        raise OSError("no route")

    monkeypatch.setattr(open_clip, "create_model", create)
    monkeypatch.setattr(hub, "unreachable", lambda: "")
    error, match = (ValueError, "could not be fetched") if tag else (OSError, "^no route$")
    with pytest.raises(error, match=match):
        load("ViT-B-32-quickgelu", tag)
    assert asked == [("ViT-B-32-quickgelu", tag)]


@pytest.mark.parametrize("fetch", [True, False])
def test_a_tokenizer_is_fetched_only_where_weights_are(monkeypatch, fetch):
    asked = []
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name, **how: asked.append((name, how)) or "made")
    named = {"text_cfg": {"hf_tokenizer_name": "owner/words"}}
    assert open_clip_names.tokenizer_of("mini", named, fetch) == "made"
    assert open_clip_names.tokenizer_of("mini", {"text_cfg": {}}, fetch) == "made"
    assert asked == [("mini", {"local_files_only": not fetch}), ("mini", {})]


def test_pixels_that_are_given_need_no_assumption(tmp_path, mini, monkeypatch, recwarn):
    tags = {"a": {"mean": (0.5, 0.5, 0.5)}, "b": {"mean": (0.4, 0.4, 0.4)}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, mini, tags)
    vlm = load(mini, saved(small(), tmp_path), device="cpu", pixels={"mean": (0.1, 0.1, 0.1)})
    assert vlm.mean == (0.1,) * 3 and not [w for w in recwarn if "assumed" in str(w.message)]


def test_transformers_weights_beside_a_silent_folder_are_prepared_as_published(tmp_path, mini, monkeypatch):
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    pixels = tower | {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower, vision_config=pixels | {"image_size": 32, "patch_size": 16}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(tmp_path)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, mini, {"a": {"mean": (0.5, 0.5, 0.5)}})
    vlm = load(mini, tmp_path / "model.safetensors", device="cpu")
    assert vlm.mean == (0.5,) * 3


# the hub


def test_log_lines_and_warnings_stand_still_meanwhile(caplog, recwarn):
    import logging

    for disabled in (logging.NOTSET, logging.INFO):
        logging.disable(disabled)
        with hub.quiet():
            logging.getLogger("x").error("unseen")
            warnings.warn("unseen", stacklevel=1)
            logging.getLogger("x").critical("seen")
        assert logging.root.manager.disable == disabled
    logging.disable(logging.NOTSET)
    assert {r.message for r in caplog.records} == {"seen"} and not recwarn.list


def test_the_cache_is_looked_into_alone(monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo, **how: asked.append((repo, how)) or "/x/y"
    )
    assert hub.cached("hf-hub:owner/model") == Path("/x/y")
    assert asked == [("owner/model", {"local_files_only": True})]


DEFAULTS = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]


@pytest.mark.parametrize(
    ("about", "repo", "looked"),
    [
        ({"hf_hub": "owner/model/x.bin"}, "owner/model", ["x.bin", "x.safetensors"]),
        ({"hf_hub": "owner/model/"}, "owner/model", DEFAULTS),
    ],
)
def test_whether_weights_of_the_hub_are_here(monkeypatch, about, repo, looked):
    import huggingface_hub

    for there in (*looked, "other", None):
        asked = []

        def look(where, name, there=there, asked=asked):
            asked.append((where, name))
            return f"/cache/{name}" if name == there else (object() if there is None else None)

        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
        assert hub.is_here(about) is (there in looked)
        assert asked == [(repo, name) for name in looked[: looked.index(there) + 1 if there in looked else 2]]


def test_whether_weights_of_a_page_are_here(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    about = {"url": "https://example.org/abc/ViT.pt"}
    assert not hub.is_here(about) and not hub.is_here({})
    (tmp_path / ".cache/clip").mkdir(parents=True)
    (tmp_path / ".cache/clip/ViT.pt").write_bytes(b"x")
    assert hub.is_here(about)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_why_nothing_can_be_fetched(monkeypatch, variable):
    from huggingface_hub import constants, utils

    asked, error = [], OSError("no route\nat all")

    class Session:
        def head(self, url, **how):
            asked.append((url, how))
            if error:
                raise error

    monkeypatch.setattr(utils, "get_session", Session)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for value in ("1", "on", "YES", "True"):
        monkeypatch.setenv(variable, value)
        assert hub.unreachable() == f"{variable} is set"
    assert not asked
    monkeypatch.setenv(variable, "0")
    assert hub.unreachable() == "OSError: no route"
    error = None
    assert hub.unreachable() == "" and asked == [(constants.ENDPOINT, {"timeout": 10})] * 2


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (
            {"hf_hub": "owner/model/x.bin"},
            r"from owner/model \(no net\); `hf download owner/model` where there",
        ),
        (
            {"url": "https://x.org/y.pt"},
            r"from https://x.org/y.pt \(no net\); download https://x.org/y.pt, and pass",
        ),
    ],
)
def test_what_cannot_be_fetched_is_said_by_its_place(monkeypatch, about, message):
    monkeypatch.setattr(hub, "is_here", lambda about: False)
    monkeypatch.setattr(hub, "unreachable", lambda: "no net")
    with pytest.raises(ValueError, match=f"^the weights mini/x could not be fetched {message}"):
        hub.check_reach("mini/x", about)
    monkeypatch.setattr(hub, "unreachable", lambda: "")
    hub.check_reach("mini/x", about)
    monkeypatch.setattr(hub, "unreachable", lambda: pytest.fail("nothing is to be fetched"))
    monkeypatch.setattr(hub, "is_here", lambda about: True)
    hub.check_reach("mini/x", about)


# weight files


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({}, "x.pt holds no state dict, but nothing; save"),
        (dict.fromkeys("abcde", 1), "x.pt holds no state dict, but a, b, c; save"),
        ([1], "x.pt holds a list, not a state dict"),
        (
            {"model": {"a": 1}, "net": {"b": 1}},
            r"x.pt holds several state dicts \(model, net\); save the one",
        ),
        ({5: torch.ones(1)}, "x.pt has the key 5; the names"),
        ({"epoch": 1, "model": {"state_dict": {"lr": 1}}}, "no state dict, but lr;"),
    ],
)
def test_what_is_no_state_dict_is_said(held, message):
    with pytest.raises(ValueError, match=message):
        weights.unpacked(held, Path("x.pt"))


def test_what_is_a_state_dict():
    state = {"a": torch.ones(1)}
    for held in (
        state,
        {"net": state},
        {"model": state, "args": {}},
        state | {"model": {}},
        state | {"lr": 1},
    ):
        assert weights.unpacked(held, Path("x.pt")) == state


def test_wrapped_twice_is_said():
    one = torch.ones(1)
    with pytest.raises(ValueError, match=r"x.pt holds tensors twice, wrapped and not"):
        weights.without_wrappers({"a": one, "module.a": one}, Path("x.pt"))
    for name in ("a", "module.a", "model.clip.a", "clip_model._orig_mod.a", "student.module.a"):
        assert weights.without_wrappers({name: one}, Path("x.pt")) == {"a": one}
    kept = {"model.a": one, "b": one}
    assert weights.without_wrappers(kept, Path("x.pt")) == kept
    assert weights.without_wrappers({"model.a": one, "clip.b": one}, Path("x.pt")).keys() == {
        "model.a",
        "clip.b",
    }


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("use weights_only=False"), "not plain tensors"),
        (
            RuntimeError("Weights only load failed: GLOBAL os.system was"),
            "not plain tensors: it asks for os.system",
        ),
        (pickle.UnpicklingError("bad\n  thing " + "x" * 300), f"not plain tensors: bad thing {'x' * 190}"),
        (ValueError("it is empty\nreally"), "it is empty\nreally"),
        (OSError("no\nroute"), "OSError: no"),
        (json.JSONDecodeError("bad", "x", 0), "JSONDecodeError: bad: line 1 column 1 (char 0)"),
    ],
)
def test_why_a_file_is_no_weights(error, said):
    assert weights.why(error) == said


@pytest.mark.parametrize(
    ("state", "lora"),
    [
        ({"a.lora_A.weight": 1}, "a.lora_A.weight"),
        ({"a.base_layer.weight": 1}, "a.base_layer.weight"),
        ({"a.lora_A": 1, "b.base_layer.c": 1}, "a.lora_A"),
    ],
)
def test_lora_is_told_by_its_names(tmp_path, state, lora):
    torch.save({k: torch.ones(1) for k in state}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"LoRA's own tensors beside the weights \({lora}\)"):
        weights.read_weights(tmp_path / "x.pt")


def test_the_beginning_of_a_file_tells_what_it_is(tmp_path):
    for data, what in (
        (b"\x89HDF\r\n", "a HDF5 file"),
        (b"\n <html>", "a web page"),
        (b'{"a": 1}', "JSON, not w"),
    ):
        (tmp_path / "x.bin").write_bytes(data)
        with pytest.raises(ValueError, match=f"x.bin is not a readable weight file .it is {what}"):
            weights.read_weights(tmp_path / "x.bin")
    save_file({"a": torch.ones(1)}, tmp_path / "y.bin")  # safetensors by another name
    assert weights.read_weights(tmp_path / "y.bin").state["a"] == 1
    with pytest.raises(FileNotFoundError, match=r"there is no weight file .*z.bin"):
        weights.read_weights(tmp_path / "z.bin")


def test_weights_of_openai_compute_quick_gelu(tmp_path):
    for name, numbers in (("openai", {"input_resolution": torch.tensor(32)}), ("other", {})):
        torch.save({"a": torch.ones(1), "attn_mask": torch.ones(1)} | numbers, tmp_path / f"{name}.pt")
    own, other = (weights.read_weights(tmp_path / f"{name}.pt") for name in ("openai", "other"))
    assert (own.quick_gelu, own.origin, set(own.state)) == (True, "OpenAI", {"a"})
    assert (other.quick_gelu, other.origin, set(other.state)) == (None, "", {"a"})
    assert str(other).endswith("other.pt") and other.some() == "it holds 1 tensors, as a"


# tokenizers


def test_a_folder_s_tokenizer_is_opened_as_its_configuration_says(tmp_path, monkeypatch):
    made = []

    class Opened:
        def __init__(self, path, **how):
            made.append((path, how))
            self.tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=1)

        def __call__(self, texts):
            return torch.tensor([[2, 1, 1]])

    monkeypatch.setattr(tokenizers, "HFTokenizer", Opened)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("")
        for given in ({}, {"tokenizer_kwargs": None}, {"tokenizer_kwargs": {"clean": "lower"}}):
            words = tokenizers.folder_tokenizer(None, folder, {"context_length": 9} | given)
            wanted = {"local_files_only": True, "context_length": 9} | (given.get("tokenizer_kwargs") or {})
            assert made.pop() == (str(folder), wanted) and words(["a"]).tolist() == [[2, 1, 1]]


@pytest.mark.parametrize(
    ("pad", "ids", "found"),
    [
        (9, [[1, 9, 9, 9], [1, 2, 3, 4]], [[1, 9, 0, 0], [1, 2, 3, 4]]),
        (9, [[1, 2, 3, 9], [9, 9, 1, 9]], [[1, 2, 3, 9], [9, 0, 0, 0]]),
        (0, [[1, 9, 9, 0]], [[1, 9, 9, 0]]),
    ],
)
def test_behind_the_end_of_a_text_stand_zeros(pad, ids, found):
    own = SimpleNamespace(pad_token_id=pad, eos_token_id=9)

    class Given:
        tokenizer = own

        def __call__(self, texts):
            return torch.tensor(ids)

    assert tokenizers.Padded(Given())(["a"]).tolist() == found


def test_only_texts_that_end_in_the_largest_id_may_be_cut(mini):
    full = lambda texts: torch.tensor([[1, 5, 6, 7, 8, 19]] * len(texts))
    with pytest.raises(
        ValueError, match="2 texts fill all 6 tokens of CLIP and may be cut, for example 'a'; short"
    ):
        load(CLIP(**FEW), tokenizer=full, device="cpu").tokenize(["a", "b"])
    last = FEW | {"text_cfg": TINY | {"pool_type": "last"}}
    assert load(CLIP(**last), tokenizer=full, device="cpu").tokenize(["a"]).tolist() == [[1, 5, 6, 7, 8, 19]]


# language models


def test_a_processor_that_is_given_wins(tmp_path):
    import transformers as hf
    from tokenizers import Tokenizer, models

    plain = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 24}
    hf.GPT2LMHeadModel(hf.GPT2Config(**sizes)).save_pretrained(tmp_path)
    own = hf.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", pad_token="<unk>")
    own.save_pretrained(tmp_path)
    language = load(tmp_path, tokenizer=own, device="cpu")
    assert language.processor is own and load(tmp_path, device="cpu").processor is not own
    assert language.facts()["blocks"] == "1 of the language model"
    with pytest.raises(
        ValueError, match="comes with its processor, which prepares images; leave out pixels="
    ):
        load(tmp_path, device="cpu", pixels={})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match="names the architecture None, which does not write"):
        load(tmp_path, device="cpu")


def test_texts_of_smollm2_begin_by_no_mark():
    words = PACKAGES["smollm2-135m"].families["text"].tokens
    assert (words.layout, words.end) == ("word*", "mask")


def test_modules_with_other_inner_names_are_listed():
    from vlmlab.models.huggingface import LanguageModel

    model = LanguageModel(nn.Sequential(nn.Linear(2, 2)), None, "x", torch.device("cpu"), "fp32")
    with pytest.raises(ValueError, match="Sequential has no blocks called layers or h or block; it has 0"):
        model.language  # noqa: B018
    assert modules.unwrapped(nn.DataParallel(model.module)) is model.module
