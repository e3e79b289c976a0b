"""One small model with random weights per family, with data for its towers."""

import dataclasses
import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

from vlmlab.capturing.module_tower import towers_of
from vlmlab.models.families import Family, Words
from vlmlab.token_labels import parse_layout, tokens_of

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 99,
    "max_position_embeddings": 12,
}
CLIP = {
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "layers": 3,
        "width": 32,
        "head_width": 8,
        "mlp_ratio": 2,
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 99,
        "width": 32,
        "heads": 4,
        "layers": 3,
        "mlp_ratio": 2,
    },
}
TIMM = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 4,
    "num_classes": 0,
    "mlp_ratio": 2,
}


@dataclasses.dataclass
class Case:
    """name; build: () -> module; towers: kind -> layout of block 1, or one of each sample; family for a module
    unknown to vlmlab; inputs: kind -> data, where they are not pixels or texts alone; needs: kind -> what a
    version of the library must have for that tower."""

    name: str
    build: Callable[[], nn.Module]
    towers: dict[str, str | tuple[str, ...]]
    family: Family | dict[str, Family] | None = None
    mask: bool = False  # texts come with an attention mask
    inputs: dict[str, Callable] = dataclasses.field(default_factory=dict)
    needs: dict[str, str] = dataclasses.field(default_factory=dict)

    def tower(self, model: nn.Module, kind: str):
        """A tower of its model; the test is skipped where this version of the library cannot run it alone."""
        if not hasattr(model, self.needs.get(kind, "forward")):
            pytest.skip(f"this {type(model).__name__} has no {self.needs[kind]}")
        return towers_of(model, self.family)[kind]

    def data(self, kind: str):
        """Three images, or three texts of different lengths that end in the largest id."""
        if kind in self.inputs:
            return self.inputs[kind]()
        draw = torch.Generator().manual_seed(1)
        if kind in ("image", "qformer"):
            return torch.randn(3, 3, 32, 32, generator=draw)
        ids, ends = torch.randint(3, 90, (3, 12), generator=draw), (11, 6, 8)
        mask = torch.zeros(3, 12, dtype=torch.long)
        for row, end in enumerate(ends):
            ids[row, end], ids[row, end + 1 :], mask[row, : end + 1] = 98, 0, 1
        return {"input_ids": ids, "attention_mask": mask} if self.mask else ids


def open_clip_vit():
    from open_clip.model import CLIP as Clip

    return Clip(embed_dim=16, **CLIP)


def open_clip_coca():
    from open_clip.coca_model import CoCa

    text = {**CLIP["text_cfg"], "embed_cls": True, "output_tokens": True}
    return CoCa(
        embed_dim=16,
        text_cfg=text,
        multimodal_cfg={**CLIP["text_cfg"], "dim_head": 8},
        vision_cfg={
            **CLIP["vision_cfg"],
            "attentional_pool": True,
            "attn_pooler_heads": 4,
            "output_tokens": True,
        },
    )


def open_clip_siglip():
    from open_clip.model import CustomTextCLIP

    timm_model(pool="map")  # registers nothing: shows early what a failure is about
    text = {**CLIP["text_cfg"], "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    model = CustomTextCLIP(
        embed_dim=192,
        text_cfg=text,
        vision_cfg={
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_pool": "map",
            "timm_proj": "none",
            "image_size": 32,
        },
    )
    model.visual.trunk = timm_model(pool="map")
    return model


def timm_model(pool="token", **settings):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**TIMM, global_pool=pool, class_token=pool == "token", **settings)


def of_transformers(*names: str) -> list:
    """Classes of transformers; the test is skipped where this version has not got them yet."""
    import transformers

    transformers.logging.set_verbosity_error()
    if lacks := [name for name in names if not hasattr(transformers, name)]:
        pytest.skip(f"transformers {transformers.__version__} has no {lacks[0]}")
    return [getattr(transformers, name) for name in names]


def hf(model: str, config: str, **settings):
    def build():
        kind, about = of_transformers(model, config)
        return kind(about(**settings))

    return build


def distilled():
    from timm.models.deit import VisionTransformerDistilled

    return VisionTransformerDistilled(**TIMM)


def eva(**settings):
    from timm.models.eva import Eva

    return Eva(**TIMM | settings, scale_mlp=False)


def sam():
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    return VisionTransformerSAM(
        **TIMM, window_size=3, global_attn_indexes=(1,), use_rel_pos=True, neck_chans=16
    )


def naflex():
    from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg

    same = {name: TIMM[name] for name in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
    cfg = NaFlexVitCfg(**same, class_token=True, reg_tokens=2, pos_embed_grid_size=(4, 4), global_pool="avg")
    return NaFlexVit(cfg, num_classes=0)


def siglip2():
    kind, about = of_transformers("Siglip2VisionModel", "Siglip2VisionConfig")
    return kind(about(**VISION | {"num_patches": 16}))


GRIDS = ((4, 4), (2, 5), (3, 4))  # rows and columns of three images, 16 patches at most
NAFLEX = ("patch:16", "patch:10 pad:6", "patch:12 pad:4")
NAFLEX_TIMM = tuple(f"cls register:2 {text}" for text in NAFLEX)


def naflex_hf():
    shown = torch.tensor([[i < rows * cols for i in range(16)] for rows, cols in GRIDS])
    patches = torch.randn(3, 16, 3 * 8 * 8, generator=torch.Generator().manual_seed(4)) * shown[..., None]
    return {
        "pixel_values": patches,
        "pixel_attention_mask": shown.int(),
        "spatial_shapes": torch.tensor(GRIDS),
    }


def naflex_timm():
    made = naflex_hf()
    places = torch.stack(
        [torch.stack([torch.arange(16) // c, torch.arange(16) % c], dim=-1) for _, c in GRIDS]
    )
    shown = made["pixel_attention_mask"].bool()
    return {"patches": made["pixel_values"], "patch_coord": places * shown[..., None], "patch_valid": shown}


class SequenceFirst(nn.Module):
    """A block in the manner of OpenAI's CLIP and the prompt learners: (token, batch, width), in a list."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = (
            nn.MultiheadAttention(width, 4),
            nn.LayerNorm(width),
            nn.LayerNorm(width),
        )
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, inputs: list):
        x, counter = inputs[0], inputs[1]
        n = self.ln_1(x)
        x = x + self.attn(n, n, n, need_weights=False)[0]
        return [x + self.mlp(self.ln_2(x)), counter + 1]


class OwnModel(nn.Module):
    """A user's own image tower, sequence-first, with two prompt tokens from block 2 on."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 8, 8)
        self.cls, self.prompt = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(2, width))
        self.layers = nn.ModuleList(SequenceFirst(width) for _ in range(3))

    def forward(self, images):
        x = self.stem(images).flatten(2).permute(2, 0, 1)
        x = [torch.cat([self.cls.expand(1, x.shape[1], -1), x]), 0]
        for number, layer in enumerate(self.layers):
            if number == 1:
                x = [torch.cat([x[0], self.prompt[:, None].expand(-1, x[0].shape[1], -1)]), x[1]]
            x = layer(x)
        return x[0][0]


OWN = Family(
    "layers",
    {
        "resid.pre": ("", "in"),
        "resid.mid": ("ln_2", "in"),
        "resid.post": ("", "out"),
        "attn.out": ("attn", "out"),
        "mlp.act": ("mlp.1", "out"),
        "mlp.out": ("mlp", "out"),
    },
    tokens={1: "cls patch*", 2: "cls patch:16 prompt*"},
    batch_first=False,
)
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 99,
}
BOTH = {"vision_config": VISION, "text_config": TEXT}
CLIP_TEXT = TEXT | {"eos_token_id": 98}

# a text of each sample: whole, padded on the left, padded on the right
MIXED = ("sos word:10 eos", "pad:3 sos word:7 eos", "sos word:7 eos pad:3")
WITH_IMAGE = (
    "sos word:3 patch:16 word:3 eos",
    "pad:2 sos word:3 patch:16 word eos",
    "sos word:3 patch:16 word eos pad:2",
)
ENCODER = ("word:11 eos", "pad:3 word:8 eos", "word:8 eos pad:3")
IMAGE_ID = 97


def text_like(layouts: tuple[str, ...], image: int = IMAGE_ID):
    """Token ids and mask of three texts with such layouts."""
    roles = [[r for r, _ in tokens_of(parse_layout(text, size_of(text)))] for text in layouts]
    ids = torch.randint(3, 90, (3, len(roles[0])), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[role != "pad" for role in row] for row in roles])
    ids[torch.tensor([[role == "patch" for role in row] for row in roles])] = image
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long()}


def size_of(text: str) -> int:
    return sum(int(part.partition(":")[2] or 1) for part in text.split())


def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def with_image():
    return {**text_like(WITH_IMAGE), "pixel_values": pixels()}


def encoder_decoder():
    ids = torch.randint(3, 90, (3, 5), generator=torch.Generator().manual_seed(3))
    return {**text_like(ENCODER), "decoder_input_ids": ids}


def qwen2_vl():
    """Three images of different sizes, 4, 8 and 4 tokens, patches end to end, behind the mark of their start."""
    data = text_like(QWEN2_VL_TEXT)
    starts = (data["input_ids"][:, 1:] == IMAGE_ID) & (data["input_ids"][:, :-1] != IMAGE_ID)
    data["input_ids"][:, :-1][starts] = QWEN2_VL_IDS["vision_start_token_id"]
    grid = torch.tensor([[1, 4, 4], [1, 4, 8], [1, 4, 4]])
    patches = torch.randn(
        int(grid.prod(dim=1).sum()), 3 * 2 * 8 * 8, generator=torch.Generator().manual_seed(2)
    )
    kinds = (data["input_ids"] == IMAGE_ID).int()
    return {**data, "pixel_values": patches, "image_grid_thw": grid, "mm_token_type_ids": kinds}


def vision(name: str, text: str, text_settings: dict | None = None, **settings):
    """A Hugging Face model that hands the pictures of a small image tower to a small LLaMA."""

    def build():
        kind, about = of_transformers(f"{name}ForConditionalGeneration", f"{name}Config")
        clip, words = of_transformers("CLIPVisionConfig", text or "LlamaConfig")
        pixels = clip(**VISION) if name == "Llava" else settings["vision"]
        llama = words(**LLAMA) if text else LLAMA | text_settings
        nested = {"text_config": llama} if "text_config" in about.sub_configs else llama
        image = {"image_token_index": IMAGE_ID} if name == "Llava" else {"image_token_id": IMAGE_ID}
        image |= QWEN2_VL_IDS if name == "Qwen2VL" else {}
        return kind(about(vision_config=pixels, **nested, **image))

    return build


def blip2(name: str):
    def build():
        import transformers

        transformers.logging.set_verbosity_error()
        small = {
            k: TEXT[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        }
        opt = transformers.OPTConfig(**small, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=32)
        qformer = {**small, "initializer_range": 0.2, "intermediate_size": 64, "encoder_hidden_size": 32}
        config = transformers.Blip2Config(
            vision_config={**VISION, "initializer_range": 0.2},
            qformer_config=qformer,
            text_config=opt.to_dict(),
            num_query_tokens=4,
            image_token_index=IMAGE_ID,
        )
        model = getattr(transformers, name)(config)
        nn.init.normal_(model.query_tokens)  # zeros before training: all latents would be equal
        return model

    return build


BLIP2_TEXT = ("patch:4 word:7 eos", "pad:3 patch:4 word:4 eos", "patch:4 word:4 eos pad:3")
QWEN2_VL_TEXT = ("word:3 patch:4 word:6 eos", "word:3 patch:8 word:2 eos", "pad:2 word:3 patch:4 word:4 eos")
QWEN2_VL_IDS = {"video_token_id": 95, "vision_start_token_id": 94}
QWEN2_VL = {
    "text": "",
    "text_settings": {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
    "vision": {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 32,
        "num_heads": 4,
        "patch_size": 8,
        "mlp_ratio": 2,
    },
}
GPT2 = {"n_embd": 32, "n_inner": 64, "n_layer": 3, "n_head": 4, "vocab_size": 99, "n_positions": 32}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4, "vocab_size": 99}


class Fusion(nn.Module):
    """A user's own fusion model of two towers: words look at each other, then at the patches of the image."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.stem, self.words = nn.Conv2d(3, width, 8, 8), nn.Embedding(99, width)
        self.image = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, 4, 64, batch_first=True), 3)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, 4, 64, batch_first=True) for _ in range(3)
        )

    def patches(self, pixel_values):
        return self.image(self.stem(pixel_values).flatten(2).transpose(1, 2))

    def forward(self, input_ids, pixel_values, attention_mask):
        patches = self.patches(pixel_values)
        x = self.words(input_ids)
        for layer in self.layers:
            x = layer(x, patches, tgt_key_padding_mask=attention_mask == 0)
        return x


FUSION = Family(
    "layers",
    {
        "resid.pre": ("", "in"),
        "resid.post": ("", "out"),
        "attn.out": ("dropout1", "out"),
        "cross.out": ("dropout2", "out"),
        "mlp.act": ("linear2", "in"),
        "mlp.out": ("dropout3", "out"),
    },
    Words("sos word*", "mask"),
    "text",
    attention={"attn": "self_attn", "cross": "multihead_attn"},
    keys={"cross": "patch*"},
)
FUSION_IMAGE = Family(
    "image.layers",
    {
        "resid.pre": ("", "in"),
        "resid.post": ("", "out"),
        "attn.out": ("dropout1", "out"),
        "mlp.act": ("linear2", "in"),
        "mlp.out": ("dropout2", "out"),
    },
    "patch*",
    forward="patches",
)


CASES = [
    Case("open_clip ViT", open_clip_vit, {"image": "cls patch:16", "text": "sos word:11"}),
    Case("open_clip CoCa", open_clip_coca, {"image": "cls patch:16", "text": "sos word:11 cls"}),
    Case("open_clip SigLIP", open_clip_siglip, {"image": "patch:16", "text": "word:12"}),
    Case("timm ViT", timm_model, {"image": "cls patch:16"}),
    Case(
        "timm ViT, registers, layer scale",
        lambda: timm_model(reg_tokens=4, init_values=0.1, qk_norm=True),
        {"image": "cls register:4 patch:16"},
    ),
    Case("timm ViT, average pool", lambda: timm_model("avg"), {"image": "patch:16"}),
    Case(
        "HF CLIP",
        hf("CLIPModel", "CLIPConfig", **BOTH | {"text_config": CLIP_TEXT}, projection_dim=16),
        {"image": "cls patch:16", "text": "sos word:11"},
    ),
    Case(
        "HF CLIP image tower", hf("CLIPVisionModel", "CLIPVisionConfig", **VISION), {"image": "cls patch:16"}
    ),
    Case(
        "HF CLIP image tower with projection",
        hf("CLIPVisionModelWithProjection", "CLIPVisionConfig", **VISION),
        {"image": "cls patch:16"},
    ),
    Case(
        "HF CLIP text tower",
        hf("CLIPTextModel", "CLIPTextConfig", **CLIP_TEXT),
        {"text": "sos word:11"},
        mask=True,
    ),
    Case(
        "HF CLIP text tower with projection",
        hf("CLIPTextModelWithProjection", "CLIPTextConfig", **CLIP_TEXT),
        {"text": "sos word:11"},
    ),
    Case("timm DeiT, distilled", distilled, {"image": "cls distill patch:16"}),
    Case("timm EVA, gated", lambda: eva(swiglu_mlp=True, mlp_ratio=2), {"image": "cls patch:16"}),
    Case("timm EVA, norms behind", lambda: eva(use_post_norm=True, mlp_ratio=2), {"image": "cls patch:16"}),
    Case("timm SAM", sam, {"image": "patch:16"}),
    Case("timm NaFlex, one size", naflex, {"image": "cls register:2 patch:16"}),
    Case("timm NaFlex", naflex, {"image": NAFLEX_TIMM}, inputs={"image": naflex_timm}),
    Case("HF SigLIP 2, NaFlex", siglip2, {"image": NAFLEX}, inputs={"image": naflex_hf}),
    Case("HF DeiT", hf("DeiTModel", "DeiTConfig", **VISION), {"image": "cls distill patch:16"}),
    Case("HF DINOv2", hf("Dinov2Model", "Dinov2Config", **VISION, mlp_ratio=2), {"image": "cls patch:16"}),
    Case(
        "HF DINOv2, registers",
        hf("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **VISION, mlp_ratio=2),
        {"image": "cls register:4 patch:16"},
    ),
    Case(
        "HF DINOv3, gated",
        hf("DINOv3ViTModel", "DINOv3ViTConfig", **VISION, use_gated_mlp=True, num_register_tokens=2),
        {"image": "cls register:2 patch:16"},
    ),
    Case("HF AIMv2", hf("Aimv2VisionModel", "Aimv2VisionConfig", **VISION), {"image": "patch:16"}),
    Case(
        "HF SAM",
        hf(
            "SamVisionModel",
            "SamVisionConfig",
            **VISION,
            mlp_dim=64,
            window_size=3,
            global_attn_indexes=[1],
            output_channels=16,
        ),
        {"image": "patch:16"},
    ),
    Case("HF SigLIP", hf("SiglipModel", "SiglipConfig", **BOTH), {"image": "patch:16", "text": "word:12"}),
    Case(
        "HF SigLIP image tower",
        hf("SiglipVisionModel", "SiglipVisionConfig", **VISION),
        {"image": "patch:16"},
    ),
    Case("HF SigLIP text tower", hf("SiglipTextModel", "SiglipTextConfig", **TEXT), {"text": "word:12"}),
    Case("HF ViT", hf("ViTModel", "ViTConfig", **VISION), {"image": "cls patch:16"}),
    Case(
        "HF ViT with head", hf("ViTForImageClassification", "ViTConfig", **VISION), {"image": "cls patch:16"}
    ),
    Case("HF BERT", hf("BertModel", "BertConfig", **TEXT), {"text": "cls word:11"}, mask=True),
    Case(
        "HF BERT with head",
        hf("BertForSequenceClassification", "BertConfig", **TEXT),
        {"text": "cls word:11"},
        mask=True,
    ),
    Case("HF LLaMA", hf("LlamaModel", "LlamaConfig", **LLAMA), {"text": "sos word:11"}, mask=True),
    Case(
        "HF LLaMA with head",
        hf("LlamaForCausalLM", "LlamaConfig", **LLAMA),
        {"text": "sos word:11"},
        mask=True,
    ),
    Case("HF GPT-2", hf("GPT2LMHeadModel", "GPT2Config", **GPT2), {"text": "word:12"}, mask=True),
    Case(
        "HF GPT-2, padded on both sides",
        hf("GPT2LMHeadModel", "GPT2Config", **GPT2),
        {"text": ENCODER},
        inputs={"text": lambda: text_like(ENCODER)},
    ),
    Case(
        "HF LLaMA, padded on both sides",
        hf("LlamaForCausalLM", "LlamaConfig", **LLAMA),
        {"text": MIXED},
        inputs={"text": lambda: text_like(MIXED)},
    ),
    Case(
        "HF T5",
        hf("T5ForConditionalGeneration", "T5Config", **T5),
        {"text": ENCODER, "decoder": ("sos word:3 eos",) * 3},
        inputs={"text": lambda: text_like(ENCODER), "decoder": encoder_decoder},
    ),
    Case(
        "HF LLaVA",
        vision("Llava", "LlamaConfig"),
        {"image": "cls patch:16", "text": WITH_IMAGE},
        inputs={"text": with_image},
    ),
    Case(
        "HF Janus",
        vision("Janus", "LlamaConfig", vision={**VISION, "projection_dim": 32, "mlp_ratio": 2}),
        {"image": "patch:16", "text": WITH_IMAGE},
        inputs={"text": with_image},
    ),
    Case("HF Qwen2-VL", vision("Qwen2VL", **QWEN2_VL), {"text": QWEN2_VL_TEXT}, inputs={"text": qwen2_vl}),
    Case(
        "HF BLIP-2",
        blip2("Blip2ForConditionalGeneration"),
        {"image": "cls patch:16", "qformer": "latent:4", "text": BLIP2_TEXT},
        inputs={"text": lambda: {**text_like(BLIP2_TEXT), "pixel_values": pixels()}},
        needs={"qformer": "get_image_features"},
    ),
    Case("HF BLIP-2 without language", blip2("Blip2Model"), {"qformer": "latent:4"}),
    Case(
        "own fusion module",
        Fusion,
        {"image": "patch:16", "text": MIXED},
        {"image": FUSION_IMAGE, "text": FUSION},
        inputs={"text": lambda: {**text_like(MIXED), "pixel_values": pixels()}},
    ),
    Case("own module", OwnModel, {"image": "cls patch:16"}, OWN),
]
TOWERS = [(case, kind) for case in CASES for kind in case.towers]


def built(case: Case) -> nn.Module:
    """The model of a case, the same each time, with weights large enough for uneven attention."""
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    model = case.build().eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.std() < 0.1:
            parameter.mul_(2)
    return model


def fused(model: nn.Module, tower) -> bool:
    """Whether the library says that the blocks of a tower can call torch's attention kernel."""
    says = [
        m for m in model.modules() if hasattr(m, "_supports_sdpa") and tower.blocks[0] in list(m.modules())
    ]
    return not says or says[-1]._supports_sdpa


def need_kernel(model: nn.Module, kind: str) -> None:
    """Skip what reads attention where this version of the library has none but eager code for it."""
    if not fused(model, towers_of(model)[kind]):
        pytest.skip(f"the {kind} attention of this {type(model).__name__} does not call torch's kernel")


def made_eager(model: nn.Module) -> nn.Module:
    """A model of transformers whose attention calls no kernel; older versions choose that when they build."""
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
        return model
    eager = type(model)._from_config(model.config, attn_implementation="eager")
    eager.load_state_dict(model.state_dict())
    for part in eager.modules():
        if hasattr(part, "config"):
            part.config.output_attentions = True
    return eager.eval().requires_grad_(False)
