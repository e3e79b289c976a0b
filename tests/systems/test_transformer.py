"""The Transformer: its three masks, parity with Marian, decoding."""

import pytest
import torch
from test_layers import randomised

import vlmlab
from vlmlab.systems import layers
from vlmlab.systems.transformer import Transformer, places

SMALL = {"width": 32, "heads": 2, "layers": 1, "hidden": 64, "vocabulary": 40}
PARTS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("transformer")
    return vlmlab.fit("transformer", {}, pairs, out=out, steps=60, batch=24, lr=5e-3, warmup=0.2, **SMALL)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Transformer({}, Transformer.Config(**SMALL)).eval()


def real(*lengths, n=6):
    return torch.arange(n) < torch.tensor(lengths)[:, None]


def test_the_three_masks():
    model = Transformer({}, Transformer.Config(**SMALL))
    found = model.masks(real(3, 1, n=3), real(2, 2, n=2))
    assert found["encoder"].int().tolist() == [[[1, 1, 1]] * 3, [[1, 0, 0]] * 3]
    assert found["decoder"].int().tolist() == [[[1, 0], [1, 1]]] * 2
    assert found["cross"].int().tolist() == [[[1, 1, 1]] * 2, [[1, 0, 0]] * 2]
    assert model.masks(real(1, n=1), real(1, n=3))["decoder"].int().tolist() == [[[1, 0, 0]] * 3]


@torch.no_grad()
def test_who_depends_on_whom(model):
    source, target = torch.randint(8, 40, (2, 1, 6), generator=torch.Generator().manual_seed(0))
    everything = real(6)

    def changed(ids, at):
        other = ids.clone()
        other[0, at] = 8 + (other[0, at] - 7) % 32
        return other

    read = model.read(source, everything)
    before = model.write(target, read, everything)
    moved = (read - model.read(changed(source, 2), everything)).abs().amax(2)[0] > 1e-6
    assert moved.all()  # in the encoder all see all
    after = model.write(target, model.read(changed(source, 2), everything), everything)
    assert ((before - after).abs().amax(2)[0] > 1e-6).all()  # and the decoder sees all of it
    later = (before - model.write(changed(target, 3), read, everything)).abs().amax(2)[0] > 1e-6
    assert later.tolist() == [False] * 3 + [True] * 3  # itself and earlier ones only
    short, few = source[:, :4], real(4, n=4)
    hidden = model.write(target, model.read(source, real(4)), real(4))
    assert torch.allclose(hidden, model.write(target, model.read(short, few), few), atol=1e-5)


def named(own, theirs, names):
    state = theirs.state_dict()
    return {f"{a}.{end}": state[f"{b}.{end}"] for a, b in names.items() for end in ("weight", "bias")}


def attention(own: str, theirs: str) -> dict[str, str]:
    return {f"{own}.{a}": f"{theirs}.{b}" for a, b in PARTS.items()}


@torch.no_grad()
def test_it_is_marian_with_the_same_weights(model):
    """Hugging Face's encoder-decoder of this kind; its places are replaced by the paper's, which it orders otherwise."""
    transformers = pytest.importorskip("transformers")
    sizes = {"d_model": 32, "vocab_size": 40, "max_position_embeddings": 32, "scale_embedding": True}
    sizes |= {f"{side}_layers": 1 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    sizes |= {"activation_function": "relu", "dropout": 0.0, "pad_token_id": 0, "decoder_start_token_id": 2}
    marian = randomised(transformers.MarianModel(transformers.MarianConfig(**sizes)))
    for side in (marian.encoder, marian.decoder):
        side.embed_positions.weight.data = places(32, 32)
    own = Transformer({}, Transformer.Config(**SMALL)).eval()
    own.embedding.weight.data = marian.shared.weight
    rest = {
        "attn_norm": "self_attn_layer_norm",
        "mlp.0": "fc1",
        "mlp.2": "fc2",
        "mlp_norm": "final_layer_norm",
    }
    names = attention("attn", "self_attn") | rest
    cross = attention("cross", "encoder_attn") | {"cross_norm": "encoder_attn_layer_norm"}
    own.encoder[0].load_state_dict(named(own.encoder[0], marian.encoder.layers[0], names))
    own.decoder[0].load_state_dict(named(own.decoder[0], marian.decoder.layers[0], names | cross))
    g = torch.Generator().manual_seed(0)
    source, target = torch.randint(8, 40, (2, 3, 6), generator=g)
    seen = real(6, 4, 2)
    out = marian(
        input_ids=source, attention_mask=seen.long(), decoder_input_ids=target, decoder_attention_mask=None
    )
    read = own.read(source, seen)
    assert torch.allclose(read[seen], out.encoder_last_hidden_state[seen], atol=1e-5)
    logits = out.last_hidden_state @ own.embedding.weight.T
    assert torch.allclose(own.write(target, read, seen), logits, atol=1e-4, rtol=1e-5)


def test_places_are_those_of_the_paper():
    found = places(50, 16)
    assert found[0].tolist() == [0.0, 1.0] * 8
    assert found[3, 4].item() == pytest.approx(
        torch.sin(torch.tensor(3 / 10000 ** (4 / 16))).item(), abs=1e-6
    )
    assert found[3, 5].item() == pytest.approx(
        torch.cos(torch.tensor(3 / 10000 ** (4 / 16))).item(), abs=1e-6
    )


def test_it_learns(run):
    loss = run.metrics["ce"]
    assert loss.iloc[-5:].mean() < 0.7 * loss.iloc[:5].mean()


def test_loss_is_the_cross_entropy_of_the_next_word(run):
    model = run.model
    source, target = ["a small red circle left of a large blue heart", "a red heart"], ["the red circle", "a"]
    with torch.no_grad():
        loss = model.losses({"source": source, "target": target})["ce"].item()
        total, n = 0.0, 0
        for one, other in zip(source, target):
            ids, seen = model.ids([one])
            said, _ = model.ids([other])
            log_p = model.known(model.write(said, model.read(ids, seen), seen)).log_softmax(2)[0]
            total -= sum(log_p[i, said[0, i + 1]].item() for i in range(said.shape[1] - 1))
            n += said.shape[1] - 1
    assert loss == pytest.approx(total / n, rel=1e-4)


def test_all_ways_of_decoding_write_known_words(run, pairs):
    texts = list(pairs.train.texts[:4])
    with torch.no_grad():
        greedy = run.model.translate(texts)
        assert run.model.translate(texts, "beam", beams=1) == greedy
        assert run.model.translate(texts[:1]) == greedy[:1]  # padding changes nothing
        wide = run.model.translate(texts, "beam", beams=4, length=8)
        torch.manual_seed(0)
        drawn = run.model.translate(texts, "nucleus", p=0.9)
    known = set(run.model.words.all)
    for text in (*greedy, *wide, *drawn):
        assert set(text.split()) <= known
    assert max(len(t.split()) for t in wide) <= 8


def test_causal_masks_are_shared():
    assert layers.causal(3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
