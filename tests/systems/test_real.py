"""The sizes of the papers, on the meta device: as many parameters as published, within 1 %."""

import dataclasses

import pytest
import torch

from vlmlab.systems.albef import Albef
from vlmlab.systems.bert import Bert
from vlmlab.systems.blip import Blip
from vlmlab.systems.blip2 import Blip2
from vlmlab.systems.flamingo import Flamingo
from vlmlab.systems.language import Language
from vlmlab.systems.llava import Llava
from vlmlab.systems.moco import Moco
from vlmlab.systems.resnet import ResNet
from vlmlab.systems.transformer import Transformer


def built(cls, *more):
    with torch.device("meta"):
        return cls({}, cls.real(), *more)


def million(module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_albef():
    """Li et al. 2021, section 3.5: ViT-B/16 with 85.8 M and BERT-base with 123.7 M."""
    model = built(Albef)
    online = model.online
    bert = (online.embedding, online.text, online.fusion, online.head)
    words = million(online.embedding.words)  # the head names words by their embedding
    assert million(online.vision) == pytest.approx(85.8, rel=0.01)
    assert sum(map(million, bert)) - words == pytest.approx(123.7, rel=0.01)
    assert len(model.image_queue) == len(model.text_queue) == 65536
    assert len(model.own()) > len(model.trainable())


@pytest.mark.parametrize(
    ("cls", "more", "published"),
    [
        (Bert, (), 110),  # Devlin et al. 2019, section 3: BERT-base
        (Blip, (), 252),  # Li et al. 2022, table of shared parameters: all shared but self-attention
        (Moco, (), 24),  # He et al. 2020, table 1: R50
        (ResNet, (tuple(map(str, range(10))),), 0.85),  # He et al. 2016, table 6: ResNet-56
        (Transformer, (), 213),  # Vaswani et al. 2017, table 3: big
    ],
)
def test_others(cls, more, published):
    trained = sum(p.numel() for p in built(cls, *more).trainable().values()) / 1e6
    assert trained == pytest.approx(published, rel=0.01)


class Tower(torch.nn.Module):
    """The sizes of a frozen image encoder."""

    def __init__(self, width):
        super().__init__()
        self.image, self.width, self.precision = self, width, "fp32"
        self.image_size, self.mean, self.std, self.preprocess = 224, (0,) * 3, (1,) * 3, None
        self.device = torch.device("meta")


def standing(cls, seen, **sizes):
    with torch.device("meta"):
        config = dataclasses.replace(Language.real(), **sizes)
        language = Language({}, config).requires_grad_(False)
        return cls({"vlm": Tower(seen), "language": language}, cls.real()), language


def test_language():
    """Touvron et al. 2023, table 2: LLaMA-7B has 6.7 G."""
    assert million(standing(Blip2, 1408)[1]) == pytest.approx(6700, rel=0.01)


def test_blip2():
    """Li et al. 2023, section 3.1: the Q-Former has 188 M, on a ViT-g, with BERT's words."""
    model, _ = standing(Blip2, 1408, vocabulary=30523, context=512)
    assert sum(p.numel() for p in model.trainable().values()) / 1e6 - million(model.project) == pytest.approx(
        188, rel=0.01
    )
    assert len(model.query) == 32


def test_llava(monkeypatch):
    """Hugging Face's llava-1.5-7b: what its configuration gives by itself, without the image encoder."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(Llava, "tokens", 576)
    model, language = standing(Llava, 1024)
    with torch.device("meta"):
        theirs = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig())
    projector = sum(p.numel() for n, p in theirs.named_parameters() if "vision_tower" not in n) / 1e6
    assert sum(p.numel() for p in model.trainable().values()) / 1e6 == pytest.approx(projector, rel=1e-6)
    assert million(language) == pytest.approx(6738.4, rel=1e-3)


def test_flamingo():
    """Builds; its gated blocks and resampler are those of the 3B in depth and width."""
    model, _ = standing(Flamingo, 1536, width=2048, heads=16, layers=24, hidden=5461)
    assert len(model.gated) == 24 and model.resampler.latents.shape == (64, 1536)
    assert model.gated[0].cross.query.weight.shape == (2048, 2048)
