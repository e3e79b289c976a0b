"""The sizes of the papers, on the meta device: as many parameters as published, within 1 %."""

import pytest
import torch

from vlmlab.systems.albef import Albef
from vlmlab.systems.bert import Bert
from vlmlab.systems.blip import Blip
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
