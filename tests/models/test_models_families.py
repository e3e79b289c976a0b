"""Every family finds its models, with all their sites, tokens and heads; what only looks like one is not taken for it."""

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vlmlab import registry
from vlmlab.capturing.module_tower import towers_of
from vlmlab.capturing.sites import names
from vlmlab.models import families_of_pairs as pairs
from vlmlab.models.families import FAMILIES, Family, Patches, Words, at, families_of, fits, has
from vlmlab.models.families_of_pairs import PAIRS
from vlmlab.models.families_of_systems import SYSTEMS as SYSTEM_FAMILIES
from vlmlab.models.families_with_language import LANGUAGE

sys.path.insert(0, str(Path(__file__).parents[1] / "capturing"))
import family_models

CASES = {case.name: case for case in family_models.CASES if case.family is None}
HEADS = ("q", "k", "v", "z", "probs")
ALL = {"embed", "final", "resid.pre", "resid.mid", "resid.post", "mlp.act", "mlp.out", "attn.out"}
ALL |= {f"attn.{part}" for part in HEADS}
CROSS = {"cross.out", *(f"cross.{part}" for part in HEADS)}
MAPS = {"embed", "final", "resid.pre", "resid.post"}
WINDOWS = {site for site in ALL if not site.startswith("attn.")}
LOOKING = {site for site in ALL if not site.startswith("attn.")} | CROSS
OTHER_SITES = {
    "timm SAM image encoder": WINDOWS,
    "HF SAM image encoder": WINDOWS,
    "HF T5 decoder": ALL | CROSS,
    "HF BLIP-2 Q-Former": ALL | CROSS,
    "HF BLIP-2 Q-Former before a language model": ALL | CROSS,
    "HF BLIP-2 text": ALL - {"resid.mid", "mlp.act", "mlp.out"},
    "timm EfficientNet or MobileNet": MAPS,
    "MoCo image": MAPS,
    "ResNet image": MAPS,
    "ALBEF fusion": ALL | CROSS,
    "BLIP text": ALL | CROSS,
    "BLIP decoder": ALL | CROSS,
    "Transformer decoder": ALL | CROSS,
    "Flamingo resampler": LOOKING,
    "Flamingo gated": LOOKING,
    "BLIP-2 Q-Former": ALL | CROSS,
}
KEYS = {  # family -> what its cross-attention looks at
    "HF T5 decoder": "word* / mask",
    "HF BLIP-2 Q-Former": "cls patch*",
    "HF BLIP-2 Q-Former before a language model": "cls patch*",
    "ALBEF fusion": "cls patch*",
    "BLIP text": "cls patch*",
    "BLIP decoder": "cls patch*",
    "Transformer decoder": "cls word* / mask",
    "Flamingo resampler": "cls patch* latent:4",
    "Flamingo gated": "latent*",
    "BLIP-2 Q-Former": "cls patch*",
}
CLIP_END = "sos word* / eos 98"
IMAGES = "sos word* / mask, images"
# model -> kind of tower -> family, what runs it, tokens
TOWERS = {
    "open_clip ViT": {
        "image": ("open_clip ViT", "encode_image", "cls patch*"),
        "text": ("open_clip text", "encode_text", "sos word* / argmax"),
    },
    "open_clip CoCa": {
        "image": ("open_clip ViT", "encode_image", "cls patch*"),
        "text": ("open_clip text tower", "encode_text", "sos word* cls / argmax"),
    },
    "open_clip SigLIP": {
        "image": ("open_clip timm tower", "encode_image", "patch*"),
        "text": ("open_clip text tower", "encode_text", "word* / last"),
    },
    "timm ViT": {"image": ("timm ViT", "", "cls:1 patch*")},
    "timm ViT, registers, layer scale": {"image": ("timm ViT", "", "cls:1 register:4 patch*")},
    "timm ViT, average pool": {"image": ("timm ViT", "", "patch*")},
    "HF CLIP": {
        "image": ("HF CLIP or SigLIP image", "get_image_features", "cls patch*"),
        "text": ("HF CLIP text", "get_text_features", CLIP_END),
    },
    "HF CLIP image tower": {"image": ("HF CLIP or SigLIP image tower", "", "cls patch*")},
    "HF CLIP image tower with projection": {"image": ("HF CLIP image with projection", "", "cls patch*")},
    "HF CLIP text tower": {"text": ("HF CLIP text tower", "", CLIP_END)},
    "HF CLIP text tower with projection": {"text": ("HF CLIP text with projection", "", CLIP_END)},
    "timm DeiT, distilled": {"image": ("timm ViT", "", "cls:1 distill:1 patch*")},
    "timm EVA, gated": {"image": ("timm ViT", "", "cls:1 patch*")},
    "timm EVA, norms behind": {"image": ("timm ViT, post-norm", "", "cls:1 patch*")},
    "timm SAM": {"image": ("timm SAM image encoder", "", "patch*")},
    "timm NaFlex": {
        "image": ("timm ViT", "", "cls:1 register:2 patch* / patch_valid patch_coord, as one argument")
    },
    "HF SigLIP 2, NaFlex": {
        "image": ("HF CLIP or SigLIP image tower", "", "patch* / pixel_attention_mask spatial_shapes")
    },
    "HF DeiT": {"image": ("HF ViT or DeiT", "", "cls distill patch*")},
    "HF DINOv2": {"image": ("HF DINO", "", "cls patch*")},
    "HF DINOv2, registers": {"image": ("HF DINO", "", "cls register:4 patch*")},
    "HF DINOv3, gated": {"image": ("HF DINO", "", "cls register:2 patch*")},
    "HF AIMv2": {"image": ("HF AIMv2 image tower", "", "patch*")},
    "HF SAM": {"image": ("HF SAM image encoder", "vision_encoder", "patch*")},
    "HF SigLIP": {
        "image": ("HF CLIP or SigLIP image", "get_image_features", "patch*"),
        "text": ("HF SigLIP text", "get_text_features", "word* / last"),
    },
    "HF SigLIP image tower": {"image": ("HF CLIP or SigLIP image tower", "", "patch*")},
    "HF SigLIP text tower": {"text": ("HF SigLIP text tower", "", "word* / last")},
    "HF ViT": {"image": ("HF ViT or DeiT", "", "cls patch*")},
    "HF ViT with head": {"image": ("HF ViT or DeiT", "", "cls patch*")},
    "HF BERT": {"text": ("HF BERT", "", "cls word* / mask")},
    "HF BERT with head": {"text": ("HF BERT", "", "cls word* / mask")},
    "HF LLaMA": {"text": ("HF LLaMA", "", "sos word* / mask")},
    "HF LLaMA with head": {"text": ("HF LLaMA", "", "sos word* / mask")},
    "HF GPT-2": {"text": ("HF GPT-2", "", "word* / mask")},
    "HF T5": {
        "text": ("HF T5 encoder", "encoder", "word* / mask"),
        "decoder": ("HF T5 decoder", "", "sos word* / mask of decoder_input_ids"),
    },
    "HF LLaVA": {
        "image": ("HF LLaVA image", "base_model.vision_tower", "cls patch*"),
        "text": ("HF LLaVA or Janus text", "", IMAGES),
    },
    "HF Janus": {
        "image": ("HF Janus image", "base_model.vision_model", "patch*"),
        "text": ("HF LLaVA or Janus text", "", IMAGES),
    },
    "HF Qwen2-VL": {"text": ("HF Qwen2-VL text", "", "word* / mask, images")},
    "HF BLIP-2": {
        "image": ("HF BLIP-2 image", "vision_model", "cls patch*"),
        "qformer": ("HF BLIP-2 Q-Former before a language model", "get_image_features", "latent*"),
        "text": ("HF BLIP-2 text", "", IMAGES),
    },
    "HF BLIP-2 without language": {
        "image": ("HF BLIP-2 image", "vision_model", "cls patch*"),
        "qformer": ("HF BLIP-2 Q-Former", "get_qformer_features", "latent*"),
        "text": ("HF BLIP-2 text", "", IMAGES),
    },
    "timm MobileNet": {"image": ("timm EfficientNet or MobileNet", "", "patch*")},
    "open_clip EVA, norms behind": {
        "image": ("open_clip timm tower, post-norm", "encode_image", "cls:1 patch*")
    },
    "albef": {
        "image": ("ALBEF image", "online.vision", "cls patch*"),
        "text": ("ALBEF text", "online.read", "cls word* / mask"),
        "fusion": ("ALBEF fusion", "", "cls word* / mask"),
    },
    "blip": {
        "image": ("BLIP image", "online.vision", "cls patch*"),
        "text": ("BLIP text", "", "cls word* / mask"),
        "decoder": ("BLIP decoder", "written", "cls word* / mask"),
    },
    "transformer": {
        "text": ("Transformer encoder", "read", "cls word* / mask"),
        "decoder": ("Transformer decoder", "", "cls word* / mask of decoder_input_ids"),
    },
    "moco": {"image": ("MoCo image", "query", "patch*")},
    "resnet": {"image": ("ResNet image", "net", "patch*")},
    "flamingo": {
        "resampler": ("Flamingo resampler", "", "latent*"),
        "gated": ("Flamingo gated", "", "cls word* / mask"),
        "text": ("Flamingo text", "", "cls word* / mask"),
    },
    "blip2": {
        "qformer": ("BLIP-2 Q-Former", "queries", "latent*"),
        "text": ("BLIP-2 text", "", "latent:3 cls word* / mask"),
    },
}
WIDTH = {"width": 32, "vocabulary": 40}
SYSTEMS = {
    "albef": WIDTH | {"patch": 16, "image_layers": 1, "text_layers": 1, "queue": 0},
    "blip": WIDTH | {"patch": 16, "image_layers": 1, "queue": 0},
    "transformer": WIDTH,
    "moco": {"image": 32, "queue": 8},
    "resnet": {"blocks": 1},
    "flamingo": {"latents": 4, "resampler_layers": 1, "heads": 2, "head": 8},
    "blip2": {"width": 16, "heads": 2, "layers": 2, "queries": 3},
}


class Eva(nn.Module):
    """open_clip's model around a trunk of timm whose norms stand behind attention and MLP."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Module()
        self.visual.trunk = family_models.eva(use_post_norm=True, mlp_ratio=2)

    def encode_image(self, x):
        return self.visual.trunk(x)


def mobilenet():
    import timm

    return timm.create_model("mobilenetv3_small_050", pretrained=False)


BUILDS = {name: case.build for name, case in CASES.items()}
BUILDS |= {"timm MobileNet": mobilenet, "open_clip EVA, norms behind": Eva}


def without_numbers(build):
    """A model without memory, where its library can build one."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, NotImplementedError):
        return build()


@pytest.fixture(scope="module")
def system():
    """Small systems by name."""
    language = registry.build("language", {}, **WIDTH | {"layers": 2, "hidden": 64})

    def build(name, tiny):
        models = {"vlm": tiny, "language": language} if name in ("flamingo", "blip2") else {}
        classes = () if models or name == "language" else (("a", "b", "c"),)
        return registry.build(name, models, *classes, **SYSTEMS[name])

    return build


def said(labels) -> str:
    """Tokens in one line."""
    if isinstance(labels, Words):
        what = f"{labels.end} {labels.eos_id}" if labels.end == "eos" else labels.end
        what += "" if labels.ids == "input_ids" else f" of {labels.ids}"
        assert labels.mask == labels.ids.replace("input_ids", "attention_mask")
        return f"{labels.layout} / {what}{', images' if labels.image else ''}"
    if isinstance(labels, Patches):
        where = f"{labels.mask} {labels.sizes}{labels.places}"
        return f"{labels.layout} / {where}{', as one argument' if labels.whole else ''}"
    return labels


LIBRARIES = {
    "pairs of towers": PAIRS,
    "models with language": LANGUAGE,
    "systems": SYSTEM_FAMILIES,
}


@pytest.mark.parametrize("table", LIBRARIES)
def test_every_model_has_the_towers_sites_and_tokens_of_its_families(table, system, tiny):
    for name, towers in TOWERS.items():
        if any(family in LIBRARIES[table] for family, _, _ in towers.values()):
            check(name, system(name, tiny) if name in SYSTEMS else without_numbers(BUILDS[name]))


def family_here(family, model):
    """Older versions of transformers wrap the image tower of CLIP once more, as that with a projection."""
    wrapped = family == "HF CLIP or SigLIP image tower" and not hasattr(model.base_model, "embeddings")
    return "HF CLIP image with projection" if wrapped else family


def check(name, model):
    """One model of the table above."""
    wanted, found = dict(TOWERS[name]), towers_of(model)
    for kind, need in getattr(CASES.get(name), "needs", {}).items():
        if not hasattr(model, need):  # this version of the library has not got it yet
            del wanted[kind]
    assert set(found) == set(wanted), name
    for kind, (family, runs, tokens) in wanted.items():
        own, labels, what = found[kind].family, found[kind].family.tokens, f"{name}, {kind}"
        assert own is FAMILIES[family_here(family, model)] and own.kind == kind and own.forward == runs, what
        assert said(labels(model) if callable(labels) else labels) == tokens, what
        sites = {site.partition(".")[2] for site in names({kind: found[kind]})}
        assert sites == OTHER_SITES.get(family, ALL), what
        assert own.maps == (sites == MAPS) and own.batch_first, what
        keys = {key: labels(model) if callable(labels) else labels for key, labels in own.keys.items()}
        assert {k: said(v) for k, v in keys.items()} == ({"cross": KEYS[family]} if family in KEYS else {}), (
            what
        )
        head = own.head(model) if callable(own.head) else own.head and has(model, own.head)
        assert bool(own.head) == bool(own.norm) and (head or not own.head or name == "HF LLaMA"), what


def test_every_family_has_a_model_here():
    assert {row[0] for towers in TOWERS.values() for row in towers.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", ["HF BERT", "HF GPT-2"])
def test_a_language_model_that_looks_at_something_else_has_cross_attention(name):
    import transformers as hf

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = (
        hf.BertConfig(**sizes, vocab_size=9, is_decoder=True, add_cross_attention=True)
        if name == "HF BERT"
        else hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=9, add_cross_attention=True)
    )
    model = without_numbers(lambda: (hf.BertModel if name == "HF BERT" else hf.GPT2Model)(config))
    found = towers_of(model)
    assert found["text"].family is FAMILIES[name]
    assert {site.partition(".")[2] for site in names(found)} == ALL | CROSS


# heads


def untied_t5():
    import transformers as hf

    return hf.T5ForConditionalGeneration(hf.T5Config(**family_models.T5, tie_word_embeddings=False))


LENSES = [
    *[
        ("HF LLaMA with head", "text"),
        ("HF GPT-2", "text"),
        ("HF T5", "decoder"),
        ("HF T5, untied", "decoder"),
    ],
    *[(name, "text") for name in ("HF LLaVA", "HF Qwen2-VL", "HF BLIP-2")],
]


@pytest.mark.parametrize(("name", "kind"), LENSES)
def test_the_head_makes_the_logits_of_what_the_norm_gives(name, kind):
    case, seen = CASES[name.partition(", untied")[0]], []
    torch.manual_seed(0)
    model = (untied_t5 if "untied" in name else case.build)().eval()
    family = families_of(model)[kind]
    hook = at(model, family.norm).register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        known = inspect.signature(model.forward).parameters
        logits = model(**{k: v for k, v in case.data(kind).items() if k in known}).logits
    hook.remove()
    head = family.head(model) if callable(family.head) else at(model, family.head)
    with torch.no_grad():
        ours = head(seen[-1])
    assert ours.shape == logits.shape and (ours - logits).abs().max() < 1e-5 * logits.abs().max()


@pytest.mark.parametrize("name", ["flamingo", "blip2"])
def test_the_head_of_a_system_is_its_language_model_s(name, system, tiny):
    model = system(name, tiny)
    family = families_of(model)["text"]
    llama = model.language.llama
    assert at(model, family.head) is llama.lm_head and at(model, family.norm) is llama.model.norm


# what only looks like a model of a family


class Blocks(list):
    """A list of blocks whose entries have names, too, as those of nn.ModuleList."""


def pretended(family: Family, marks: tuple[str, ...]):
    """An object that has the paths of a family and nothing else."""
    root = SimpleNamespace()

    def put(at_, path, value=None):
        *parts, last = path.split("|")[0].split(".")
        for part in parts:
            at_ = vars(at_).setdefault(part, SimpleNamespace())
        vars(at_).setdefault(last, SimpleNamespace() if value is None else value)

    kind = type(family.block_types[0], (SimpleNamespace,), {}) if family.block_types else SimpleNamespace
    block = kind()
    for site, (path, _) in family.sites.items():
        if path and not site.startswith("cross."):
            put(block, path)
    blocks = Blocks([block])
    setattr(blocks, "0", block)
    put(root, family.blocks, blocks)
    for path in (family.forward, *marks):
        if path:
            put(root, path)
    return root


BOTH_WORDS = "base_model.embeddings.token_embedding"
MARKS = {  # family -> what it has beside its blocks
    "open_clip ViT": ("visual.class_embedding",),
    "open_clip text": ("token_embedding",),
    "timm SAM image encoder": ("blocks.0.window_size", "neck"),
    "timm EfficientNet or MobileNet": ("conv_stem", "global_pool"),
    "HF CLIP text": ("visual_projection",),
    "HF CLIP text with projection": ("text_projection",),
    "HF CLIP or SigLIP image tower": ("base_model.embeddings.patch_embedding",),
    "HF CLIP text tower": (BOTH_WORDS, "base_model.eos_token_id"),
    "HF SigLIP text tower": (BOTH_WORDS,),
    "HF ViT or DeiT": ("base_model.embeddings.cls_token", "base_model.embeddings.position_embeddings"),
    "HF DINO": ("base_model.embeddings.cls_token",),
    "HF AIMv2 image tower": ("base_model.embeddings.patch_embed",),
    "HF SAM image encoder": ("vision_encoder.neck",),
    "HF BERT": ("base_model.embeddings.word_embeddings",),
    "HF Qwen2-VL text": ("base_model.visual", "config.image_token_id"),
    "HF LLaMA": ("base_model.embed_tokens",),
    "HF GPT-2": ("base_model.wte",),
    "HF Janus image": ("base_model.aligner",),
    "HF LLaVA or Janus text": ("config.image_token_id",),
    "HF BLIP-2 image": ("qformer",),
    "HF BLIP-2 text": ("qformer",),
    "ALBEF image": ("online.fusion",),
    "ALBEF text": ("online.fusion",),
    "BLIP image": ("decoder.blocks",),
    "BLIP text": ("decoder.blocks",),
    "BLIP decoder": ("online.text",),
    "Flamingo resampler": ("gated",),
    "Flamingo gated": ("resampler",),
    "Flamingo text": ("resampler", "gated"),
    "BLIP-2 Q-Former": ("image_joint",),
    "BLIP-2 text": ("qformer", "image_joint"),
    "Transformer encoder": ("decoder", "embedding"),
    "Transformer decoder": ("encoder", "embedding"),
    "MoCo image": ("queue", "key.blocks"),
    "ResNet image": ("net.conv", "net.norm"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_asks_for_its_marks(name):
    family, marks = FAMILIES[name], MARKS.get(name, ())
    assert fits(pretended(family, marks), family)
    for mark in marks:
        assert not fits(pretended(family, tuple(m for m in marks if m != mark)), family), mark


OWN = Family("layers", {"resid.pre": ("", "in"), "mlp.out": ("mlp", "out"), "cross.out": ("cross", "out")})


@pytest.mark.parametrize(
    ("module", "there"),
    [
        (SimpleNamespace(layers=[SimpleNamespace(mlp=1)]), True),  # not all blocks look at something else
        (SimpleNamespace(layers=[SimpleNamespace(cross=1)]), False),
        (SimpleNamespace(layers=[]), False),
        (SimpleNamespace(layers=SimpleNamespace(mlp=1)), False),  # no list
        (SimpleNamespace(blocks=[SimpleNamespace(mlp=1)]), False),
    ],
)
def test_what_fits_a_family_of_one_s_own(module, there):
    assert fits(module, OWN) is there


def test_what_a_family_says_where_nothing_is_said():
    assert (OWN.tokens, OWN.kind, OWN.forward, OWN.attention) == ("cls patch*", "image", "", {"attn": ""})
    assert OWN.batch_first and not OWN.maps and not OWN.keys and not Patches("patch*", "mask").whole


@pytest.mark.parametrize("name", ["EvaBlockPostNorm", "ResPostBlock", "Block"])
@pytest.mark.parametrize("family", ["timm ViT, post-norm", "open_clip timm tower, post-norm"])
def test_norms_behind_are_told_by_the_class_of_the_block(name, family):
    module = pretended(FAMILIES[family], ())
    blocks = at(module, FAMILIES[family].blocks)
    other = type(name, (SimpleNamespace,), {})(**vars(blocks[0]))
    blocks[:] = [other, SimpleNamespace()]
    assert fits(module, FAMILIES[family]) is (name != "Block")


def test_hiera_is_refused_before_it_is_taken_for_a_vit():
    hiera = nn.Module()
    hiera.unroll, hiera.reroll, hiera.blocks = nn.Identity(), nn.Identity(), nn.ModuleList()
    with pytest.raises(ValueError, match=r"Module \(Hiera\) cannot be captured: its blocks pool tokens"):
        families_of(hiera)
    del hiera.reroll
    with pytest.raises(
        ValueError, match=r"Module is of no family that vlmlab knows \(ALBEF image, .*family="
    ):
        families_of(hiera)


# paths


def test_paths():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    assert has(module, "") and has(module, "1.0") and has(module, "x.y|0") and not has(module, "0.0|2")
    assert at(module, "") is module and at(module, "x|1.0") is module[1][0]
    for path, message in (
        ("x|1.5", r"Sequential has no '5' \(path 'x\|1.5' of its family\); it has 0$"),
        ("x|7.0", r"Sequential has no '7' \(path .*; it has 0, 1$"),
        ("0.lm", r"Linear has no 'lm' .*; it has nothing$"),
    ):
        with pytest.raises(ValueError, match=message):
            at(module, path)


# tokens


def test_prefix_tokens_of_timm_are_told_by_the_stem():
    one = torch.ones(1)
    for trunk, layout in (
        ({}, "patch*"),
        ({"cls_token": one}, "cls:1 patch*"),  # counts no prefix
        ({"num_prefix_tokens": 3}, "register:3 patch*"),
        ({"cls_token": one, "num_prefix_tokens": 4}, "cls:1 register:3 patch*"),
        ({"cls_token": one, "dist_token": one, "num_prefix_tokens": 4}, "cls:1 distill:1 register:2 patch*"),
    ):
        trunk = SimpleNamespace(**trunk)
        assert pairs.timm_tokens(trunk) == layout
        assert pairs.timm_tokens(SimpleNamespace(visual=SimpleNamespace(trunk=trunk))) == layout


@pytest.mark.parametrize(("eos", "end"), [(None, "argmax"), (2, "argmax"), (3, "eos"), (49407, "eos")])
def test_an_old_configuration_of_clip_is_read_at_the_largest_id(eos, end):
    text = SimpleNamespace(eos_token_id=eos)
    for config in (text, SimpleNamespace(text_config=text)):
        words = pairs.clip_words(SimpleNamespace(config=config))
        assert (words.layout, words.end, words.eos_id) == ("sos word*", end, eos if end == "eos" else None)


@pytest.mark.parametrize(
    ("pool", "layout"),
    [
        ("argmax", "sos word*"),
        ("eos", "sos word*"),
        ("first", "word*"),
        ("last", "word*"),
        (None, "sos word*"),
    ],
)
def test_a_text_of_open_clip_begins_with_its_mark_where_it_ends_with_one(pool, layout):
    text = SimpleNamespace(pool_type=pool, eos_id=7)
    for module in (text, SimpleNamespace(text=text)):
        words = pairs.open_clip_words(module)
        assert (words.layout, words.end, words.eos_id) == (layout, pool or "argmax", 7)
