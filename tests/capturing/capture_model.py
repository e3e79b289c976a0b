"""A small CLIP with random weights, the same each time."""

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer

from vlmlab.models.load import VLM


def small_vlm() -> VLM:
    torch.manual_seed(0)
    clip = CLIP(
        embed_dim=32,
        quick_gelu=True,
        vision_cfg={"image_size": 32, "patch_size": 8, "layers": 4, "width": 64, "head_width": 32},
        text_cfg={"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 4},
    )
    return VLM(clip, SimpleTokenizer(context_length=16), "small", torch.device("cpu"), "fp32")
