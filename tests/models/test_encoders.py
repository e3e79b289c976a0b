"""Models of one tower: what is fixed about their pictures and texts, in numbers."""

import types

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image

from vlmlab.models.encoders import ImageEncoder, TextEncoder
from vlmlab.models.tokenizers import padded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = timm.create_model("test_vit", pretrained=False, num_classes=7)
    return ImageEncoder(module, list("abcdefg"), "little", CPU, "fp32", {"name": "x"})


def test_pictures_are_prepared_for_evaluation(network):
    """The middle of a picture, the same each time, in timm's numbers."""
    said = timm.data.resolve_data_config(model=network.module)
    assert (network.image_size, network.mean, network.std) == (160, said["mean"], said["std"])
    picture = np.zeros((200, 400, 3), dtype=np.uint8)
    picture[:, 100:300] = (255, 128, 0)  # a crop at random would meet the black sides
    prepared = [network.preprocess(Image.fromarray(picture)) for _ in range(4)]
    colour = (torch.tensor([255, 128, 0]) / 255 - torch.tensor(said["mean"])) / torch.tensor(said["std"])
    assert all(torch.allclose(x, colour[:, None, None].expand(3, 160, 160), atol=0.02) for x in prepared)


def test_an_image_encoder_is_a_frozen_model(network):
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network.logits(images), network.module(images))
        features = network.encode_image(images)
        assert torch.equal(network.module.head(features), network.module(images))
    assert torch.equal(features, network.features(images)) and features.shape == (2, 64)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert (network.name, network.precision, network.source) == ("little", "fp32", {"name": "x"})
    facts = network.facts()
    assert facts["images"] == "160 × 160 pixels, 7 classes" and facts["module"] == "VisionTransformer"


class Words:
    """A tokenizer: ids are the lengths of words."""

    model_max_length = 4

    def __init__(self):
        self.asked = []

    def __call__(self, texts, **how):
        self.asked.append((texts, how))
        rows = [[len(word) for word in text.split()] for text in texts]
        return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}


@pytest.fixture
def reader():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    module = hf.BertModel(hf.BertConfig(**sizes, vocab_size=20, max_position_embeddings=8)).train()
    return TextEncoder(module, Words(), "reader", CPU, "fp32", {"name": "y"})


def test_a_text_encoder_is_a_frozen_model(reader):
    assert (reader.name, reader.precision, reader.source) == ("reader", "fp32", {"name": "y"})
    assert not reader.module.training and not any(p.requires_grad for p in reader.parameters())
    facts = reader.facts()
    assert facts["blocks"] == "3 of 8, 2 heads" and facts["context"] == "4 tokens"
    assert facts["module"] == "BertModel" and reader.panel().line == "reader, fp32 on cpu"


def test_a_text_is_as_long_as_the_model_reads(reader):
    texts = ["a bb ccc d", "a bb"]
    found = reader.encode_text(texts)
    with torch.no_grad():
        for text, row in zip(texts, found):
            tokens = reader.module(torch.tensor([[len(w) for w in text.split()]])).last_hidden_state[0]
            assert torch.allclose(row, tokens.mean(dim=0) / tokens.mean(dim=0).norm(), atol=1e-6)
    with pytest.raises(
        ValueError, match=r"^2 texts have more than the 4 tokens that reader reads, .*'b b b b b b' \(6\)"
    ):
        reader.tokenize(["a a a a a", "b b b b b b", "c"])


def test_texts_are_padded_by_us():
    words = Words()
    found = padded(words, ("a bb ccc", "d"), CPU)
    assert found["input_ids"].tolist() == [[1, 2, 3], [1, 0, 0]] and found["input_ids"].dtype == torch.long
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    how = {"return_attention_mask": True, "verbose": False}  # a mask always, no word about long texts
    assert words.asked == [(["a bb ccc", "d"], how)]
    assert padded(words, ["a"], torch.device("meta"))["input_ids"].device.type == "meta"
    for wrong in ("sun", [], ["a", 3], [["a"]]):
        with pytest.raises(ValueError, match="a list with one text or more is expected"):
            padded(words, wrong, CPU)


def test_facts_leave_out_what_is_not_there(network):
    plain = types.SimpleNamespace(**network.facts())
    assert plain.package == "" and plain.source == "name=x"
