"""A small student and a wider, deeper teacher of another grid, on drawn pictures with captions."""

import numpy as np
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

import vlmlab
from vlmlab.paths import data_dir
from vlmlab.tasks.captions import Captions

WORDS = ("red", "blue", "green", "dark", "pale", "square", "disc", "cross")
MERGES = data_dir() / "models/tiny/bpe.txt.gz"  # few words: small models step quickly
VOCABULARY = SimpleTokenizer(bpe_path=str(MERGES)).vocab_size
STUDENT = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 4, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 4},
}
TEACHER = {
    "embed_dim": 40,
    "vision_cfg": {"image_size": 40, "patch_size": 8, "width": 48, "layers": 8, "head_width": 16},
    "text_cfg": {"context_length": 32, "vocab_size": VOCABULARY, "width": 48, "heads": 3, "layers": 6},
}


def small(config: dict, seed: int):
    """A random CLIP as `load` gives it, with the words of the embedded model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = CLIP(**config)
        with torch.no_grad():  # open_clip draws projections small
            clip.visual.proj.mul_(4)
    words = SimpleTokenizer(bpe_path=str(MERGES), context_length=config["text_cfg"]["context_length"])
    return vlmlab.load(clip, name=f"small{seed}", device="cpu", tokenizer=words)


def picture(id: str, rng=None) -> Image.Image:
    pixels = np.random.default_rng(int(id)).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def captions(count: int = 24) -> Captions:
    """Pictures of noise, each with two captions of different lengths."""
    texts = [
        text
        for i in range(count)
        for text in (f"{WORDS[i % 8]} {i}", f"a {WORDS[i % 8]} {WORDS[i // 8]} on a ground, no {i}")
    ]
    ids = [str(i) for i in range(count)]
    return Captions(
        ids, tuple(texts), np.repeat(np.arange(count), 2), read=picture, content=lambda id: id.encode()
    )
