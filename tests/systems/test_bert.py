"""BERT: pairs of sentences, hidden words, what it says of texts."""

import numpy as np
import pytest
import torch

import vlmlab
from vlmlab.systems.bert import Bert, halves
from vlmlab.systems.documents import documents, translations
from vlmlab.systems.words import CLS, MASK, SEP

SMALL = {"width": 32, "layers": 1, "heads": 2, "vocabulary": 40}


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("bert")
    return vlmlab.fit("bert", {}, pairs, out=out, steps=60, batch=16, lr=3e-3, **SMALL)


def test_documents_of_scenes_and_of_several_captions(pairs, one, tmp_path):
    found = documents(pairs)
    assert len(found) == len(pairs.train) and all(len(d) == 3 for d in found)
    (source, target), text = translations(pairs)[0], pairs.train.texts[0]
    assert source == text and target == found[0][2]
    emoji = vlmlab.task("emoji/captions", protocol="retrieval")
    assert translations(emoji)[0] == (documents(emoji)[0][0], documents(emoji)[0][-1])
    several = documents(emoji)
    assert several[0] == [emoji.train.texts[j] for j in emoji.train.texts_of[0]] and len(several[0]) > 1
    with pytest.raises(ValueError, match="shapes/one under few_shot has no training captions"):
        documents(one)
    many = vlmlab.task("shapes/many", protocol="retrieval")
    with pytest.raises(ValueError, match="shapes/many has no images with two texts that say the same"):
        translations(many)
    assert min(map(len, documents(many))) == 2


def test_halves_are_of_one_document_or_of_two():
    found = [(f"{i} a", f"{i} b", f"{i} c") for i in range(5)]
    rng, own, cuts = np.random.default_rng(0), 0, set()
    for _ in range(400):
        a, b, follows = halves(found, 2, rng)
        cuts.add(a)
        assert a in ("2 a", "2 a . 2 b")
        ends = {i: ({f"{i} b . {i} c"} if a == "2 a" else {f"{i} c"}) for i in range(5)}
        assert b in ends[2] if follows else any(b in ends[i] for i in (0, 1, 3, 4))
        own += follows
    assert len(cuts) == 2 and 160 < own < 240


def test_two_texts_as_bert_reads_them(pairs):
    torch.manual_seed(0)
    model = Bert({}, Bert.Config(**SMALL))
    model.prepared = {"words": ["a", "red", "heart", "circle"]}
    a, red, heart, circle = (model.words.place[w] for w in ("a", "red", "heart", "circle"))
    given = model.two(["a red heart", "a"], ["a circle", "red"])
    assert given["input_ids"].tolist()[0] == [CLS, a, red, heart, SEP, a, circle, SEP]
    assert given["token_type_ids"].tolist() == [[0] * 5 + [1] * 3, [0, 0, 0, 1, 1, 0, 0, 0]]
    assert given["attention_mask"].sum(1).tolist() == [8, 5]
    plain = Bert({}, Bert.Config(**SMALL, segments=False))
    plain.prepared = model.prepared
    assert plain.two(["a"], ["red"])["token_type_ids"].sum() == 0
    with pytest.raises(ValueError, match=r"two texts have 83 tokens together; raise context \(48\)"):
        model.two(["a " * 40], ["red " * 40])


def test_it_learns_words_and_both_heads_train(run, pairs):
    """To compare two texts takes it hundreds of steps more."""
    log = run.metrics
    assert log["mlm"].iloc[-8:].mean() < 0.9 * log["mlm"].iloc[:8].mean() and "follows_right" in log
    model = run.model
    batch = next(model.stages(pairs, model.Options(batch=8), 0)[0].feed(0))
    for term, head in (("mlm", "predictions.transform.dense"), ("nsp", "seq_relationship")):
        weight = model.bert.cls.get_parameter(f"{head}.weight")
        (gradient,) = torch.autograd.grad(model.losses(batch)[term], weight)
        assert gradient.abs().sum() > 0, term


def test_predictions_are_told_by_the_kind_of_corruption(run):
    texts = ["a small red circle"] * 40, ["a large blue heart"] * 40
    hidden, words = run.model.predicted(*texts, seed=3)
    assert hidden.kind.shape == words.shape == hidden.labels.shape
    assert set(hidden.kind.unique().tolist()) == {0, 1, 2, 3}
    again, same = run.model.predicted(*texts, seed=3)
    assert torch.equal(again.ids, hidden.ids) and torch.equal(same, words)
    p = run.model.follows(*texts)
    assert p.shape == (40,) and (p > 0).all() and (p < 1).all()
    assert run.model.fill(None, ["a [MASK] red circle"])[0].split()[2:] == ["red", "circle"]


@torch.no_grad()
def test_pseudo_log_likelihood_hides_each_word_alone(run):
    model, text = run.model, "a small red circle"
    sums, counts = model.log_likelihood(None, [text, "a"])
    assert counts.tolist() == [4, 1]
    ids, total = model.one([text])["input_ids"], 0.0
    for at in range(1, 5):
        hidden = ids.clone()
        hidden[0, at] = MASK
        log_p = model.known(model.bert(hidden).prediction_logits)[0, at].log_softmax(0)
        total += log_p[ids[0, at]].item()
    assert sums[0].item() == pytest.approx(total, rel=1e-4)


def test_images_do_not_matter_to_it(run, pairs):
    scores = vlmlab.evaluate(run, pairs).set_index("metric")["value"]
    assert scores["nll_true_image"] == scores["nll_shuffled_image"] > 0
    assert scores["nll_true_image"] == pytest.approx(scores["nll_no_image"], rel=1e-5)  # in other batches
