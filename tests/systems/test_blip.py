"""BLIP: its three ways to read and write, shared parameters, the cleaning of its own captions."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from test_layers import PARTS, SIZES, copied, randomised

import vlmlab
from vlmlab.systems import capfilt
from vlmlab.systems.blip import Blip
from vlmlab.systems.blip_tuned import BlipTuned
from vlmlab.systems.words import DEC
from vlmlab.tasks import shapes
from vlmlab.tasks.shapes.composition import scene
from vlmlab.tasks.shapes.texts import captions
from vlmlab.train.run import Run

SMALL = {"width": 16, "patch": 16, "image_layers": 1, "text_layers": 3, "joint": 16}
SMALL |= {"vocabulary": 30, "context": 16, "queue": 16}


def made(pairs, **config):
    torch.manual_seed(0)
    model = Blip({}, Blip.Config(**SMALL | config))
    model.prepared = model.prepare(pairs)
    return model


def batch_of(model, pairs, n=8):
    (stage,) = model.stages(pairs, model.Options(steps=4, batch=n), 0)
    return next(stage.feed(0)), stage


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    return vlmlab.fit(
        "blip", {}, pairs, out=tmp_path_factory.mktemp("blip"), steps=24, batch=16, lr=3e-3, **SMALL
    )


@torch.no_grad()
def test_its_three_ways_are_those_of_hugging_face_with_the_same_weights(pairs):
    transformers = pytest.importorskip("transformers")
    config = {k: v for k, v in SIZES.items() if k != "max_position_embeddings"}
    config |= {"encoder_hidden_size": 16, "max_position_embeddings": 16}
    theirs = randomised(
        transformers.BlipTextModel(
            transformers.BlipTextConfig(**config | {"num_hidden_layers": 3}), add_pooling_layer=False
        )
    )
    model = made(pairs).eval()
    embedding = model.online.embedding
    embedding.words.weight.data = theirs.embeddings.word_embeddings.weight
    embedding.places.weight.data = theirs.embeddings.position_embeddings.weight
    embedding.norm.load_state_dict(theirs.embeddings.LayerNorm.state_dict())
    for own, decoder, other in zip(model.online.text, model.decoder.blocks, theirs.encoder.layer):
        copied(own, other, PARTS)
        copied(decoder, other, PARTS)
    ids = torch.randint(8, 30, (2, 6), generator=torch.Generator().manual_seed(0))
    real = torch.arange(6) < torch.tensor([[6], [4]])
    seen = torch.randn(2, 5, 16)
    own = {
        "alone": lambda ids, seen: model.online.read(ids, real),
        "seeing": lambda ids, seen: model.online.read(ids, real, seen),
        "writing": lambda ids, seen: model.decoder(embedding(ids), real, seen),
    }

    def hugging_face(ids, seen, decoder):
        kept = {} if seen is None else {"encoder_hidden_states": seen}
        if seen is not None:
            kept["encoder_attention_mask"] = torch.ones(seen.shape[:2], dtype=torch.long)
        return theirs(ids, attention_mask=real.long(), is_decoder=decoder, **kept).last_hidden_state

    other = {
        "alone": lambda ids, seen: hugging_face(ids, None, False),
        "seeing": lambda ids, seen: hugging_face(ids, seen, False),
        "writing": lambda ids, seen: hugging_face(ids, seen, True),
    }
    changed, moved = ids.clone(), seen + 1
    changed[0, 4] = 8 + (ids[0, 4] - 7) % 22
    # whether words before a changed one change, and whether words change with the image
    for way, early, image in (("alone", True, False), ("seeing", True, True), ("writing", False, True)):
        for f in (own[way], other[way]):
            base = f(ids, seen)[0]
            assert ((f(changed, seen)[0] - base)[:4].abs().max() > 1e-6) == early, way
            assert ((f(ids, moved)[0] - base).abs().max() > 1e-6) == image, way
        assert torch.allclose(own[way](ids, seen)[real], other[way](ids, seen)[real], atol=1e-5), way


def test_encoder_and_decoder_share_all_but_self_attention(pairs):
    model = made(pairs)
    for encoder, decoder in zip(model.online.text, model.decoder.blocks):
        pairs_of = zip(encoder.named_parameters(), decoder.named_parameters())
        for (name, a), (_, b) in pairs_of:
            assert (a.data_ptr() == b.data_ptr()) == (not name.startswith("attn")), name
    assert model.head.weight is model.online.embedding.words.weight
    names = [n for n in model.own() if n.startswith("decoder.")]
    assert names and all(".attn" in n for n in names)


def test_its_terms_have_gradients_and_its_teacher_none(pairs):
    model = made(pairs, momentum=0.5)
    batch, stage = batch_of(model, pairs)
    terms = model.losses(batch | {"alpha": 0.4}, stage)
    assert set(terms) == {"itc", "itm", "lm"}
    sum(terms.values()).backward()
    assert not [n for n, p in model.trainable().items() if p.grad is None]
    assert all(p.grad is None for p in model.teacher.parameters())
    keys, before = model.keys, copy.deepcopy(model.teacher.text[0].attn.query.weight)
    with torch.no_grad():
        model.online.text[0].attn.query.weight.add_(2)
    model.after_step(stage, 0)
    assert torch.allclose(model.teacher.text[0].attn.query.weight, before + 1, atol=1e-6)
    assert torch.equal(model.text_queue.rows[:8], keys[1])


@torch.no_grad()
def test_language_loss_is_the_cross_entropy_of_each_next_word(pairs):
    model = made(pairs).eval()
    images, texts = torch.randn(2, 3, 48, 48), ["a small red circle", "a heart"]
    sums, counts = model.log_likelihood(images, texts)
    seen = model.online.see(images)
    for i, text in enumerate(texts):
        ids, real = model.ids([text], first=DEC)
        logits = model.known(model.write(ids, real, seen[i : i + 1]))[0, :-1]
        assert counts[i] == len(text.split()) + 1
        assert sums[i].item() == pytest.approx(
            -F.cross_entropy(logits, ids[0, 1:], reduction="sum").item(), 1e-4
        )
    blind, _ = model.log_likelihood(None, texts)
    assert not torch.allclose(blind, sums)
    model.objectives = ("lm",)
    found = model.losses({"image": images, "text": texts, "smoothing": 0.0})["lm"]
    assert found.item() == pytest.approx(-(sums.sum() / counts.sum()).item(), rel=1e-4)


def test_it_learns_writes_and_is_measured(run, pairs):
    log = run.metrics
    for term in ("itc", "itm", "lm"):  # at the very first the queue is empty, and there is less to tell apart
        assert log[term].iloc[-6:].mean() < log[term].iloc[1:7].mean(), term
    scores = vlmlab.evaluate(run, pairs).set_index("metric")["value"]
    wanted = {"i2t R@1", "AUC", "pointing", "attributes_right", "nll_true_image", "nll_shuffled_image"}
    assert wanted <= set(scores.index)
    images = torch.randn(3, 3, 48, 48)
    with torch.inference_mode():
        said = run.model.generate(images, ["", "a small", ""], length=4)
        alone = run.model.generate(images[2:], [""], length=4)
        assert run.model.generate(images[:1], [""], how="greedy", length=3)[0] is not None
    assert said[1].startswith("a small") and said[2] == alone[0]
    assert all(len(text.split()) <= 6 for text in said)


@pytest.mark.parametrize(("part", "terms"), [("captioner", {"lm"}), ("filter", {"itc", "itm"})])
def test_captioner_and_filter_go_on_from_the_same_weights(run, pairs, tmp_path, part, terms):
    before = {n: v.clone() for n, v in run.model.own().items()}
    tuned = vlmlab.fit("blip_tuned", {"start": run}, pairs, out=tmp_path, part=part, steps=3, batch=8)
    assert terms <= set(tuned.metrics) and not ({"itc", "itm", "lm"} - terms) & set(tuned.metrics)
    assert all(torch.equal(before[n], v) for n, v in run.model.own().items())
    own = tuned.model.own()
    moved = {n for n, v in own.items() if n in before and not torch.equal(before[n], v)}
    attention = "decoder.blocks.0.attn.query.weight"
    assert (attention in moved) == (part == "captioner") and ("itm.weight" in moved) == (part == "filter")
    assert tuned.model.words.all == run.model.words.all
    again = Run(tuned.path).attach({"start": run}, pairs)
    with torch.inference_mode():
        x = torch.randn(1, 3, 48, 48)
        assert again.model.generate(x, [""]) == tuned.model.generate(x, [""])
    assert tuned.model.head.weight is tuned.model.online.embedding.words.weight
    assert isinstance(tuned.model, BlipTuned)


class Writer:
    """Writes one of two captions at random, by torch's generator; judges by what the pixels show."""

    device = torch.device("cpu")

    def __init__(self, learner, data):
        self.preprocess = learner.preprocess
        self.true = [(self.preprocess(data.image(i)), captions(scene(id))) for i, id in enumerate(data.ids)]

    def eval(self):
        return self

    def texts(self, image):
        return next(texts for pixels, texts in self.true if torch.equal(pixels, image))

    def generate(self, images, texts, how, p):
        assert how == "nucleus" and p == 0.9 and set(texts) == {""}
        draws = torch.rand(len(images)) < 0.5
        return [min(self.texts(x)) if draw else "a red dog" for x, draw in zip(images, draws)]

    def match(self, images, texts):
        return torch.tensor([1.0 if text in self.texts(x) else -1.0 for x, text in zip(images, texts)])


def test_a_perfect_filter_keeps_exactly_what_is_true(run):
    noisy = shapes.scenes(120, 5, "pairs", "train", noise=0.3)
    writer = Writer(run.model, noisy)
    clean, table = capfilt.bootstrapped(writer, writer, noisy, seed=1)
    found, written = table[table["source"] == "found"], table[table["source"] == "written"]
    assert len(found) == len(written) == 120
    assert (found["kept"] == (found["flaw"] == "")).all() and 0 < found["kept"].sum() < 120
    assert (written["kept"] == (written["text"] != "a red dog")).all() and 30 < written["kept"].sum() < 90
    assert len(clean.texts) == table["kept"].sum() and set(clean.ids) == set(table[table["kept"]]["image"])
    for text, owner in zip(clean.texts, clean.image_of):
        assert text in captions(scene(clean.ids[owner]))
    again, same = capfilt.bootstrapped(writer, writer, noisy, seed=1)
    assert same.equals(table) and again.texts == clean.texts
    assert not capfilt.bootstrapped(writer, writer, noisy, seed=2)[1]["text"].equals(table["text"])
    assert all(clean.masks(i).any() for i in range(5)) and clean.shows is not None


def test_a_new_model_is_trained_on_what_is_kept(run, pairs, tmp_path):
    writer = Writer(run.model, pairs.train)
    clean, _ = capfilt.bootstrapped(writer, writer, pairs.train)
    task = dataclasses.replace(pairs, train=clean)
    again = vlmlab.fit("blip", {}, task, out=tmp_path, steps=2, batch=8, **SMALL)
    assert again.key != run.key and len(again.metrics) == 2


def test_a_filter_that_keeps_nothing_is_said(run, pairs, monkeypatch):
    writer = Writer(run.model, pairs.train)
    monkeypatch.setattr(writer, "match", lambda images, texts: -torch.ones(len(texts)))
    with pytest.raises(ValueError, match="the filter dropped all 96 texts; train it longer"):
        capfilt.bootstrapped(writer, writer, pairs.train)
