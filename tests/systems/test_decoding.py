"""Greedy, beam and nucleus decoding choose what Hugging Face's do on the same small model."""

import pytest
import torch
from torch import nn

from vlmlab.systems import decoding
from vlmlab.systems.words import PAD, SEP, Words

transformers = pytest.importorskip("transformers")
LENGTH = 9


@pytest.fixture(scope="module")
def lm():
    """A GPT-2 with strong opinions, whose texts end now and then."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 14, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24}
    ends = {"bos_token_id": 2, "eos_token_id": SEP, "pad_token_id": PAD}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends)).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.8)
    return model


@pytest.fixture(scope="module")
def start():
    return torch.randint(8, 14, (6, 3), generator=torch.Generator().manual_seed(0))


def following(lm):
    return lambda ids: lm(ids).logits[:, -1]


def theirs(lm, start, **how):
    how = {"max_new_tokens": LENGTH, "pad_token_id": PAD, "eos_token_id": SEP, "do_sample": False} | how
    return lm.generate(start, attention_mask=torch.ones_like(start), return_dict_in_generate=True, **how)


def test_greedy_takes_what_hugging_face_takes(lm, start):
    wanted = theirs(lm, start).sequences
    found = decoding.greedy(following(lm), start, LENGTH, SEP)
    assert torch.equal(found, wanted)
    assert (found == SEP).any() and not (found == SEP).any(1).all()  # some texts end, some do not


@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("beams", [1, 3, 5])
def test_beams_and_their_scores_are_those_of_hugging_face(lm, start, beams, penalty):
    if beams == 1:
        found, scores = decoding.beam(following(lm), start, LENGTH, SEP, 1, penalty)
        wanted = decoding.greedy(following(lm), start, LENGTH, SEP).tolist()
        assert [text + [PAD] * (len(wanted[0]) - len(text)) for text in found] == wanted
        return
    out = theirs(lm, start, num_beams=beams, length_penalty=penalty, output_scores=True)
    found, scores = decoding.beam(following(lm), start, LENGTH, SEP, beams, penalty)
    rows = out.sequences.tolist()  # behind the end stands anything
    assert found == [row[: row.index(SEP, 3) + 1] if SEP in row[3:] else row for row in rows]
    assert torch.allclose(torch.tensor(scores), out.sequences_scores, atol=1e-5)


def test_a_score_is_the_log_probability_of_its_text(lm, start):
    (found, *_), (score, *_) = decoding.beam(following(lm), start[:1], LENGTH, SEP, 4, 0.0)
    with torch.no_grad():
        log_p = lm(torch.tensor([found])).logits[0].log_softmax(1)
    assert score == pytest.approx(sum(log_p[i - 1, found[i]].item() for i in range(3, len(found))), abs=1e-4)


def test_nucleus_draws_the_same_from_the_same_words(lm, start):
    transformers.set_seed(5)
    wanted = theirs(lm, start, do_sample=True, top_p=0.7, top_k=0).sequences
    transformers.set_seed(5)
    assert torch.equal(decoding.nucleus(following(lm), start, LENGTH, SEP, 0.7), wanted)
    warper = transformers.TopPLogitsWarper(0.7)
    logits = 3 * torch.randn(50, 14, generator=torch.Generator().manual_seed(1))
    inside = decoding.within(logits, 0.7)
    assert torch.equal(inside, warper(None, logits))
    kept = inside.isfinite()
    share = (logits.softmax(1) * kept).sum(1)
    least = logits.softmax(1).masked_fill(~kept, 2).amin(1)
    assert (share >= 0.7 - 1e-6).all() and (share - least < 0.7 + 1e-6).all()  # enough, and not one more
    assert torch.equal(decoding.within(logits, 1.0), logits)
    with pytest.raises(ValueError, match="p of the nucleus must be above 0 and at most 1; it is 0"):
        decoding.within(logits, 0)


def test_texts_by_name(lm, start):
    words = Words("a b c d e f g".split())
    found = decoding.texts(words, following(lm), start, LENGTH, SEP, "greedy")
    rows = decoding.greedy(following(lm), start, LENGTH, SEP)[:, 3:].tolist()
    assert found == [words.text(row) for row in rows]
    assert len(decoding.texts(words, following(lm), start, LENGTH, SEP, "beam", beams=2)) == 6
    with pytest.raises(ValueError, match="there is no decoding 'beams'; there are greedy, beam, nucleus"):
        decoding.texts(words, following(lm), start, LENGTH, SEP, "beams")
