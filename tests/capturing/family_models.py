"""One small model with random weights per family, with data for its towers."""

import dataclasses
import logging
from collections.abc import Callable

import torch
from torch import nn

from vlmlab.models.families import Family

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
    """name; build: () -> module; towers: kind -> layout of block 1; family for a module unknown to vlmlab."""

    name: str
    build: Callable[[], nn.Module]
    towers: dict[str, str]
    family: Family | None = None
    mask: bool = False  # texts come with an attention mask

    def data(self, kind: str):
        """Three images, or three texts of different lengths that end in the largest id."""
        draw = torch.Generator().manual_seed(1)
        if kind == "image":
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


def hf(model: str, config: str, **settings):
    def build():
        import transformers

        transformers.logging.set_verbosity_error()
        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return build


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
        hf("CLIPModel", "CLIPConfig", **BOTH, projection_dim=16),
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
        hf("CLIPTextModel", "CLIPTextConfig", **TEXT),
        {"text": "sos word:11"},
        mask=True,
    ),
    Case(
        "HF CLIP text tower with projection",
        hf("CLIPTextModelWithProjection", "CLIPTextConfig", **TEXT),
        {"text": "sos word:11"},
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
