"""A small Janus: how its vision tower begins, what it is taught, one short training, export. Few blocks, real data."""

import pytest
import torch
from PIL import Image

import vlmlab
from vlmlab.learner import grouped
from vlmlab.mini.clip import prepared
from vlmlab.mini.janus import DESCRIBE, NAME, Batches, Janus, corpus, names
from vlmlab.mini.vision_start import begin
from vlmlab.mini.words import END, TOKENS
from vlmlab.tasks.shapes import pretraining as shapes

pytest.importorskip("transformers", minversion="5")
SMALL = dict(blocks=2, image_blocks=2, samples=10, one=1, pairs=2, many=1, described=2, emoji=1)


@pytest.fixture(scope="module")
def siglip():
    return vlmlab.load("tiny-siglip", device="cpu")


@pytest.fixture(scope="module")
def run(siglip, tmp_path_factory):
    task = vlmlab.task("emoji/pretraining", protocol="retrieval")
    return vlmlab.fit("janus", siglip, task, out=tmp_path_factory.mktemp("janus"), **SMALL)


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    return vlmlab.load(run.model.export(tmp_path_factory.mktemp("model"), {"samples": 10}), device="cpu")


def test_the_vision_tower_begins_nearly_as_that_of_the_siglip(siglip):
    learner = Janus({"vlm": siglip}, Janus.Config(blocks=1))
    tower = learner.module.model.vision_model.eval()
    images = prepared(shapes.images(shapes.stream({"pairs": 16}, 0, 1)), 48)
    with torch.no_grad():
        own = tower.encoder(tower.embeddings(images)).last_hidden_state
        tokens = siglip.image.run(siglip.image.embed(images), start=1, stop=6).x[:, 1:]
    alike = torch.cosine_similarity(own, tokens, dim=-1).mean()
    for layer in tower.encoder.layers:
        torch.nn.init.normal_(layer.mlp.fc1.weight, std=0.1)
    with torch.no_grad():
        other = tower.encoder(tower.embeddings(images)).last_hidden_state
    assert alike > 0.8 > torch.cosine_similarity(other, tokens, dim=-1).mean()
    begin(tower, siglip.clip.visual, images)  # what was broken is as it was
    with torch.no_grad():
        again = tower.encoder(tower.embeddings(images)).last_hidden_state
    assert torch.cosine_similarity(again, tokens, dim=-1).mean() > 0.8


def test_batches_are_a_function_of_the_step_and_say_what_is_there():
    options = Janus.Options()
    batches = Batches(options, 0)
    a, b, c = batches.batch(3), next(Batches(options, 0).feed(3)), batches.batch(4)
    assert a["text"] == b["text"] != c["text"] and torch.equal(a["image"], b["image"])
    assert len(a["image"]) == len(a["text"]) == len(a["prompt"]) == batches.size == 32
    assert a["prompt"].count(DESCRIBE) == options.described and a["prompt"].count(NAME) == options.emoji
    assert set(a["text"][-options.emoji :]) <= set(names().values())


def test_every_word_that_scenes_need_is_known_and_spelt_back():
    run = Janus.Config()
    from vlmlab.mini.words import processor_of

    tokenizer = processor_of(corpus(), run).tokenizer
    for text in ("a small red circle left of a large blue heart", "three green squares", "zzyzx qwxv"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids).strip() == text
    assert len(tokenizer("a red circle", add_special_tokens=False)["input_ids"]) == 3
    assert [tokenizer.convert_tokens_to_ids(t) for t in TOKENS.values()] == [3, 4, 5]


def test_only_what_is_written_is_scored(run):
    ids, labels = run.model.words([DESCRIBE, NAME], ["a red circle", "dog"])
    tokenizer = run.model.processor.tokenizer
    for row, text in zip(labels, ("a red circle", "dog")):
        assert tokenizer.decode(row[row >= 0]).strip() == text + END
    assert torch.equal(ids[0][labels[0] >= 0], labels[0][labels[0] >= 0])
    assert (ids == tokenizer.convert_tokens_to_ids(TOKENS["image_token"])).sum(1).tolist() == [36, 36]


def test_all_but_the_idle_part_trains(run, siglip):
    assert run.info["steps"] == 2 and run.metrics["loss"].notna().all()
    stage = run.model.stages(None, Janus.Options(), 0)[0]
    members = grouped(run.model.trainable(), stage.groups)
    assert not any("vqmodel" in n or "generation_" in n for of in members for n in of)
    assert all(("vision_model" in n) == (g.lr == 3e-4) for g, of in zip(stage.groups, members) for n in of)
    decayed = [n for g, of in zip(stage.groups, members) if g.weight_decay for n in of]
    assert decayed and not any("norm" in n or n.endswith("bias") for n in decayed)


def test_what_is_exported_loads_and_says_the_same(run, model):
    assert len(model.language) == 2 and type(model.wrapped).__name__ == "JanusForConditionalGeneration"
    scenes = shapes.stream({"one": 3}, 0, 0)
    texts = ["a red circle", "a large blue heart", "a dog"]
    with torch.no_grad():
        loss = run.model.losses({"image": shapes.images(scenes), "prompt": [DESCRIBE] * 3, "text": texts})[
            "text"
        ]
    pictures = [
        Image.fromarray((255 * x).round().byte().permute(1, 2, 0).numpy()) for x in shapes.images(scenes)
    ]
    prompts = [model.processor.image_token + DESCRIBE] * 3
    found = model.log_likelihood([text + END for text in texts], pictures, prompts)
    assert -(found.total.sum() / found.scored.sum()).item() == pytest.approx(loss.item(), abs=2e-2)


def test_it_is_asked_as_it_was_taught(model):
    words = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DESCRIBE}]}]
    assert model.processor.apply_chat_template(words) == TOKENS["image_token"] + DESCRIBE
