"""The small LLaMA that reads captions, and what else is said of their images before them."""

import itertools

import torch

from vlmlab.systems import documents

TEXTS, TOLD = (
    ["a small red circle left of a large blue heart", "a large red square"],
    ["a large blue heart", ""],
)


def some(language, pairs, seed=3, **options):
    stage = language.model.stages(pairs, language.model.Options(batch=8, **options), seed)[0]
    return [batch for batch in itertools.islice(stage.feed(0), 4)]


def test_a_caption_follows_what_else_is_said_of_its_image(language, pairs):
    said = {pairs.train.texts[i]: d for i, d in zip(range(len(pairs.train)), documents.sentences(pairs))}
    batches = some(language, pairs, gap=9)
    both = [each for b in batches for each in zip(b["text"], b["told"], b["gap"])]
    for text, told, gap in both:
        for sentence in said[text]:
            told = told.replace(sentence, "")
        assert not told.strip() and 0 <= gap <= 9
    assert 0.4 < sum(bool(told) for _, told, _ in both) / len(both) < 1
    assert len({gap for *_, gap in both}) > 3
    assert not any(told for b in some(language, pairs, told=0.0) for told in b["told"])
    stage = language.model.stages(pairs, language.model.Options(batch=8, gap=9), 3)[0]
    assert next(stage.feed(2)) == batches[2]


@torch.no_grad()
def test_its_loss_asks_for_the_words_of_the_caption_alone(language):
    model, words = language.model.eval(), language.model.words
    asked = {"text": TEXTS[:1], "told": TOLD[:1], "gap": [0]}
    found = model.losses(asked)["lm"]
    ids = torch.tensor([[*words.ids(TOLD[0]), 2, *words.ids(TEXTS[0]), 3]])
    log_p = model.known(model.llama(ids).logits).log_softmax(2)
    start = len(words.ids(TOLD[0]))
    wanted = -log_p[0, start:-1].gather(1, ids[0, start + 1 :, None]).mean()
    assert torch.isclose(found, wanted, atol=1e-5)
    apart = model.losses(asked | {"gap": [20]})["lm"]
    assert not torch.isclose(found, apart, atol=1e-5)  # the places left free are seen


@torch.no_grad()
def test_where_nothing_is_told_its_loss_is_that_of_texts_alone(language):
    model = language.model.eval()
    found = model.losses({"text": TEXTS, "told": ["", ""], "gap": [5, 0]})["lm"]
    assert torch.isclose(found, model.lm_loss(TEXTS, None), atol=1e-5)
