"""Towers read what the model reads: class token, attention, mean; EOS or last token; timm's trunk (SigLIP)."""

import copy
import json

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CLIPTextCfg, CustomTextCLIP
from safetensors.torch import save_file

import vlmlab
from vlmlab.models import edits
from vlmlab.models.load import load

VISION = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 16}
TEXT = {"context_length": 16, "width": 48, "heads": 4, "layers": 2, "vocab_size": 60}
TRUNK = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4, "num_classes": 0}
TEXTS = ["a cat", "two red foxes on a hill", "sun"]
POOLS = {
    "attention": {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 4},
    "attention, mean": {"attentional_pool": True, "attn_pooler_heads": 4, "pool_type": "avg"},
    "mean": {"pool_type": "avg"},
    "mean, normed after": {"pool_type": "avg", "final_ln_after_pool": True},
    "class token, normed after": {"final_ln_after_pool": True},
    "no norm before": {"no_ln_pre": True, "pool_type": "avg", "pos_embed_type": "sin_cos_2d"},
}
READS = {
    "CLIP": {},
    "SigLIP": {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    "first": {"no_causal_mask": True, "pool_type": "first"},
    "eos": {"pool_type": "eos", "eos_id": 2},
    "EOS, not causal": {"no_causal_mask": True},
    "causal, last": {"pool_type": "last"},
}


def words(texts):
    """(text, 16) ids: 1, a number for each word, 2, zeros. A stand-in for a tokenizer of the caller."""
    ids = [[1, *(3 + sum(w.encode()) % 50 for w in text.split()), 2] for text in texts]
    return torch.tensor([row + [0] * (16 - len(row)) for row in ids])


def clip_words(texts):
    """The same with an end that is the largest number, as in CLIP."""
    ids = words(texts)
    return torch.where(ids == 2, 59, ids)


def images(n=3):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def random(module):
    """No parameter at its start: biases and norms that do nothing would hide a missing step."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module


def siglip(trunk=None):
    """open_clip's SigLIP in small."""
    text = TEXT | READS["SigLIP"]
    clip = CustomTextCLIP(embed_dim=64, vision_cfg=VISION, text_cfg=text, init_logit_bias=-10)
    clip.visual = open_clip.timm_model.TimmModel("test_vit", 64, 32, pool="", proj="none")
    trunk = trunk or {"class_token": False, "global_pool": "map"}
    clip.visual.trunk = timm.models.VisionTransformer(**TRUNK | trunk)
    return random(clip)


def assert_close(a, b, tolerance=1e-6):
    worst = (a - b).abs().max() / b.abs().max()
    assert worst <= tolerance, f"largest difference is {worst:.1e} of the largest entry"


@pytest.mark.parametrize("pool", POOLS)
def test_images_are_pooled_as_the_library_pools(pool):
    clip = random(CLIP(embed_dim=24, vision_cfg=VISION | POOLS[pool], text_cfg=TEXT))
    vlm = load(clip, tokenizer=clip_words, device="cpu")
    with torch.no_grad():
        assert_close(vlm.encode_image(images()), clip.visual(images()))
    table = {2: edits.insert("prompt", torch.zeros(2, 64, requires_grad=True), after="cls")}
    vlm.image(images(), table).sum().backward()


@pytest.mark.parametrize("pool", POOLS)
def test_inserted_tokens_are_attended_to_but_not_pooled(pool):
    clip = random(CLIP(embed_dim=24, vision_cfg=VISION | POOLS[pool], text_cfg=TEXT))
    vlm, depth = load(clip, tokenizer=clip_words, device="cpu"), 3
    run = vlm.image.run(vlm.image.embed(images()))
    prompted = edits.insert("prompt", torch.randn(2, 64), after="cls")(run)
    assert torch.equal(vlm.image.pool(prompted), vlm.image.pool(run))
    table = {depth: edits.insert("prompt", torch.randn(2, 64), after="cls")}
    assert not torch.allclose(vlm.image(images(), table), vlm.image(images()), atol=1e-3)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_texts_are_read_where_the_library_reads(read, kind):
    if read == "eos" and not hasattr(CLIPTextCfg, "eos_id"):
        pytest.skip("this open_clip reads no text at an id")
    clip = random(kind(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT | READS[read]))
    pool = READS[read].get("pool_type", "argmax")
    tokenizer = clip_words if pool == "argmax" else words
    vlm = load(clip, tokenizer=tokenizer, device="cpu")
    for shortcuts in (True, False):
        vlm.shortcuts = shortcuts
        with torch.no_grad():
            assert_close(vlm.encode_text(TEXTS), clip.encode_text(tokenizer(TEXTS)))
    assert vlm.text.layouts[1][0][0] == ("sos" if pool in ("argmax", "eos") else "word")


def test_towers_that_pool_twice_or_not_at_all():
    for change, message in (
        ({"attentional_pool": "parallel", "attn_pooler_heads": 4}, "pools twice .'parallel'"),
        ({"pool_type": "none"}, "does not pool"),
    ):
        with pytest.raises(ValueError, match=message):
            load(CLIP(24, VISION | change, TEXT), tokenizer=words, device="cpu")
    with pytest.raises(ValueError, match="appends a class token"):
        load(CustomTextCLIP(24, VISION, TEXT | {"embed_cls": True}), tokenizer=words, device="cpu")


# SigLIP


TRUNKS = {
    "SigLIP": {"class_token": False, "global_pool": "map"},
    "class token": {"class_token": True},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "mean": {"global_pool": "avg", "pre_norm": True},
    "head": {"num_classes": 24, "global_pool": "avg", "class_token": False, "fc_norm": True},
}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_a_trunk_of_timm_has_the_library_s_features(trunk):
    clip = siglip(TRUNKS[trunk])
    vlm = load(clip, tokenizer=words, device="cpu")
    with torch.no_grad():
        assert_close(vlm.encode_image(images()), clip.visual(images()))
    assert vlm.image.layouts[1][-1] == ("patch", 16)
    assert sum(n for _, n in vlm.image.layouts[1]) == 16 + clip.visual.trunk.num_prefix_tokens


WHOLE = {  # tokens of every trunk, in words
    "SigLIP": "32 × 32 pixels as 4 × 4 patch tokens",
    "class token": "32 × 32 pixels as 1 cls + 4 × 4 patch tokens",
    "registers": "32 × 32 pixels as 1 cls + 2 register + 4 × 4 patch tokens",
    "mean": "32 × 32 pixels as 1 cls + 4 × 4 patch tokens",
    "head": "32 × 32 pixels as 4 × 4 patch tokens",
}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_tokens_of_a_trunk(trunk):
    tower, x = load(siglip(TRUNKS[trunk]), tokenizer=words, device="cpu").image, images()
    assert tower.inputs() == WHOLE[trunk] and (tower.width, tower.heads, tower.depth) == (64, 4, 3)
    prefix = {"registers": (("cls", 1), ("register", 2)), "SigLIP": (), "head": ()}.get(trunk, (("cls", 1),))
    whole, part = tower.run(tower.embed(x)), tower.run(tower.embed(x), first=2)
    assert whole.layout == (*prefix, ("patch", 16)) and torch.equal(part.x, whole.x[:, :2])
    firsts = {"registers": (("cls", 1), ("register", 1)), "SigLIP": (("patch", 2),), "head": (("patch", 2),)}
    assert part.layout == firsts.get(trunk, (("cls", 1), ("patch", 1)))
    late = edits.insert("prompt", torch.randn(2, 64), after="patch")(whole)
    assert_close(tower.pool(late), tower.pool(whole))


@pytest.mark.parametrize(
    "name",
    [
        "cls_token",
        "reg_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "norm_pre.weight",
        "blocks.0.norm1.bias",
    ],
)
def test_what_stands_before_the_blocks_of_a_trunk(name):
    vlm = load(siglip({"reg_tokens": 2, "pre_norm": True}), tokenizer=words, device="cpu")
    assert vlm.thaw(f"visual.trunk.{name}").image.first_trained == int(name.startswith("blocks"))


def test_a_trunk_that_computes_otherwise_is_refused():
    class Other(timm.models.VisionTransformer):
        def forward_features(self, x):
            return super().forward_features(x)

    clip = siglip()
    clip.visual.trunk = Other(**TRUNK, class_token=False, global_pool="map")
    with pytest.raises(ValueError, match="timm's Other; towers run timm's VisionTransformer"):
        load(clip, tokenizer=words, device="cpu")


def test_siglip_is_a_model():
    clip = siglip()
    vlm = load(clip, tokenizer=words, name="little", device="cpu")
    assert (vlm.name, vlm.source, vlm.image_size) == ("little", None, 32)
    with torch.no_grad():
        z, w = (
            torch.nn.functional.normalize(f) for f in (vlm.encode_image(images()), vlm.encode_text(TEXTS))
        )
        assert_close(
            vlm.logit_scale * z @ w.T + vlm.logit_bias, clip.get_logits(images(), words(TEXTS))[0], 1e-5
        )
    assert load(CLIP(24, VISION, TEXT), tokenizer=words, device="cpu").logit_bias == 0


def test_siglip_takes_edits_at_the_tokens_it_has():
    vlm = load(siglip(), tokenizer=words, device="cpu")
    values = torch.randn(2, 64, requires_grad=True)
    vlm.image(images(), {2: edits.insert("prompt", values, after="patch")}).sum().backward()
    assert values.grad.abs().max() > 0 and vlm.image.layouts[2] == (("patch", 16), ("prompt", 2))
    with pytest.raises(ValueError, match=r"no 'cls' tokens; the layout is \(\('patch', 16\)"):
        vlm.image(images(), {2: edits.insert("prompt", values, after="cls")})
    with pytest.raises(ValueError, match="no 'sos' tokens"):
        vlm.text(words(TEXTS), {1: edits.insert("prompt", torch.zeros(1, 48), after="sos")})
    with pytest.raises(ValueError, match=r"images have shape .* expected \(batch, 3, 32, 32\)"):
        vlm.encode_image(torch.zeros(1, 3, 24, 24))


def test_capture_reads_a_siglip_model():
    clip = siglip()
    vlm = load(clip, tokenizer=words, device="cpu")
    sites = ["image.resid.post[-1]", "image.attn.probs[2]", "image.final"]
    record = vlmlab.capture(vlm, images(), sites, progress=False)
    with torch.no_grad():
        tokens = clip.visual.trunk.forward_features(images())
    norm = clip.visual.trunk.norm(torch.as_tensor(record["image.resid.post"].values[0]))
    assert_close(norm, tokens, 1e-5)
    record = vlmlab.capture(vlm, TEXTS, ["text.resid.post[-1]", "text.final"], progress=False)
    assert record["text.resid.post"].shape == (1, 3, 16, 48)  # no token is cut: all are seen
    with torch.no_grad():
        assert_close(torch.as_tensor(record["text.final"].values[:, 0]), clip.encode_text(words(TEXTS)), 1e-5)


def test_a_thawed_siglip_trains():
    vlm = load(siglip(), tokenizer=words, device="cpu")
    thawed = vlm.thaw("visual.trunk.blocks.2.*", "logit_*")
    assert (thawed.image.first_trained, vlm.image.first_trained) == (3, 4)
    z, w = thawed.encode_image(images()), thawed.encode_text(TEXTS)
    (thawed.logit_scale * z @ w.T + thawed.logit_bias).sum().backward()
    assert all(p.grad is not None for p in thawed.parameters() if p.requires_grad)
    assert thawed.clip.visual.trunk.attn_pool is clip_part(vlm) and not any(
        p.grad is not None for p in vlm.parameters()
    )
    assert vlm.thaw("visual.trunk.pos_embed").image.first_trained == 0


def clip_part(vlm):
    return vlm.clip.visual.trunk.attn_pool


def test_other_trunks_are_refused():
    clip = siglip()
    clip.visual.trunk = timm.create_model("test_convnext", pretrained=False)
    with pytest.raises(ValueError, match="timm's ConvNeXt; towers run timm's VisionTransformer"):
        load(clip, tokenizer=words, device="cpu")


# by name and from a folder


CONFIG = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": TEXT | READS["SigLIP"] | {"width": 64, "hf_tokenizer_name": "timm/little-SigLIP"},
}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_siglip_by_name_asks_for_its_tokenizer(monkeypatch, offline):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "little-SigLIP", copy.deepcopy(CONFIG))
    parts = (
        r"tokenizer timm/little-SigLIP of huggingface.co, which is not .*`hf download timm/.*pass tokenizer="
    )
    with pytest.raises(ValueError, match=parts) as e:
        load("little-SigLIP", device="cpu")
    assert "\n" not in str(e.value)
    vlm = load("little-SigLIP", tokenizer=words, device="cpu")
    assert vlm.source is None and vlm.logit_bias == -10
    other = load("little-SigLIP", tokenizer=words, device="cpu")
    assert vlm.fingerprint() == other.fingerprint()  # the same random weights each time


def test_a_text_tower_of_hugging_face_is_refused_before_anything_is_fetched():
    with pytest.raises(ValueError, match="text tower of roberta-ViT-B-32 is Hugging Face's roberta-base"):
        load("roberta-ViT-B-32", device="cpu")


@pytest.mark.parametrize("published", ["", "open_clip_"])
def test_siglip_from_a_folder(tmp_path, published):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    options = {k: v for k, v in CONFIG.items() if k != "custom_text"}
    clip = CustomTextCLIP(**copy.deepcopy(options)).eval()
    about = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / f"{published}config.json").write_text(json.dumps(about))
    save_file(clip.state_dict(), tmp_path / f"{published}model.safetensors")
    with pytest.raises(ValueError, match="'timm/little-SigLIP', whose files are not in the folder"):
        load(tmp_path, device="cpu")
    words = ["<pad>", "</s>", "a", "cat", "sun", "<unk>"]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        tmp_path
    )
    vlm = load(tmp_path, device="cpu")
    ids = vlm.tokenize(["a cat", "sun"])
    assert ids.shape == (2, 16) and ids[:, :2].tolist() == [[2, 3], [4, 0]]
    with torch.no_grad():
        assert_close(vlm.encode_text(["a cat", "sun"]), clip.encode_text(ids))
    assert vlm.mean == (0.5,) * 3 and vlm.source["name"] == str(tmp_path.resolve())
    assert load(**vlm.source, device="cpu").fingerprint() == vlm.fingerprint()
