"""Own blocks are those of Hugging Face and torch with the same weights; masks hide what they should."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmlab.systems import layers

transformers = pytest.importorskip("transformers")
SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PARTS = {  # own name in a block -> that of Hugging Face's BERT
    "attn.query": "attention.self.query",
    "attn.key": "attention.self.key",
    "attn.value": "attention.self.value",
    "attn.out": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "cross.query": "crossattention.self.query",
    "cross.key": "crossattention.self.key",
    "cross.value": "crossattention.self.value",
    "cross.out": "crossattention.output.dense",
    "cross_norm": "crossattention.output.LayerNorm",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


def copied(own: nn.Module, other: nn.Module, parts: dict[str, str]) -> None:
    """Load what `other` calls by its own names; every weight of `own` must be named."""
    theirs = other.state_dict()
    own.load_state_dict(
        {f"{a}.{end}": theirs[f"{b}.{end}"] for a, b in parts.items() for end in ("weight", "bias")}
    )


def randomised(module: nn.Module) -> nn.Module:
    """Weights and biases large enough that every part shows, norms too."""
    torch.manual_seed(0)
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    return module.eval()


def bert_blocks(theirs, width: int, cross: int | None = None) -> list[layers.Block]:
    found = []
    for layer in theirs:
        block = layers.Block(width, 4, cross=cross)
        copied(block, layer, {a: b for a, b in PARTS.items() if cross or not a.startswith("cross")})
        found.append(block)
    return found


def embedding(theirs) -> layers.Embedding:
    """The words of segment 0, whose vector goes with the places."""
    own = layers.Embedding(30, 12, 16)
    own.words.weight.data = theirs.word_embeddings.weight
    own.places.weight.data = theirs.position_embeddings.weight + theirs.token_type_embeddings.weight[0]
    own.norm.load_state_dict(theirs.LayerNorm.state_dict())
    return own


@pytest.fixture
def texts():
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 30, (3, 9), generator=g)
    return ids, torch.arange(9) < torch.tensor([[9], [5], [2]])


@torch.no_grad()
def test_an_encoder_is_bert(texts):
    ids, real = texts
    bert = randomised(transformers.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False))
    x = embedding(bert.embeddings)(ids)
    for block in bert_blocks(bert.encoder.layer, 16):
        x = block(x, layers.padding(real))
    theirs = bert(ids, attention_mask=real.long()).last_hidden_state
    assert torch.allclose(x[real], theirs[real], atol=1e-5)


@torch.no_grad()
def test_a_decoder_that_looks_at_other_tokens_is_berts(texts):
    ids, real = texts
    config = transformers.BertConfig(**SIZES, is_decoder=True, add_cross_attention=True)
    bert = randomised(transformers.BertLMHeadModel(config))
    seen = torch.randn(3, 7, 16)
    own = embedding(bert.bert.embeddings)
    x = own(ids)
    mask = layers.padding(real) & layers.causal(9)
    for block in bert_blocks(bert.bert.encoder.layer, 16, cross=16):
        x = block(x, mask, seen)
    head = layers.WordHead(own.words)
    theirs = bert.cls.predictions
    head.dense.load_state_dict(theirs.transform.dense.state_dict())
    head.norm.load_state_dict(theirs.transform.LayerNorm.state_dict())
    head.bias.data = theirs.bias
    wanted = bert(ids, attention_mask=real.long(), encoder_hidden_states=seen).logits
    assert torch.allclose(head(x)[real], wanted[real], atol=1e-5)


@torch.no_grad()
def test_kept_probabilities_are_those_of_the_kernel():
    torch.manual_seed(0)
    attention, x, keys = layers.Attention(16, 4, 8), torch.randn(2, 5, 16), torch.randn(2, 6, 8)
    mask = layers.padding(torch.arange(6) < torch.tensor([[6], [4]]))
    plain = attention(x, keys, mask)
    with layers.watched(attention) as kept:
        assert torch.allclose(attention(x, keys, mask), plain, atol=1e-6)
    (probs,) = kept
    assert probs.shape == (2, 4, 5, 6) and torch.allclose(probs.sum(3), torch.ones(2, 4, 5))
    assert (probs[1, :, :, 4:] == 0).all() and (probs[0] > 0).all()
    attention(x, keys, mask)
    assert len(kept) == 1 and attention.kept is None


def test_a_causal_mask_lets_no_word_see_later_ones():
    torch.manual_seed(0)
    block, x = layers.Block(16, 4), torch.randn(1, 6, 16)
    for mask, leaks in ((layers.causal(6), False), (None, True)):
        changed = x.clone()
        changed[:, 3] += 1
        moved = (block(x, mask) - block(changed, mask)).abs().amax(2)[0] > 1e-6
        assert moved[3:].all() and moved[:3].any() == leaks


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="width 10 cannot be divided among 4 heads"):
        layers.Attention(10, 4)


def test_words_are_named_by_their_own_embedding():
    own = layers.Embedding(30, 12, 16)
    head = layers.WordHead(own.words)
    assert head.weight is own.words.weight
    x = torch.randn(2, 3, 16)
    wanted = head.norm(F.gelu(head.dense(x))) @ own.words.weight.T
    assert torch.allclose(head(x), wanted, atol=1e-6)
