"""BLIP-2: who looks at whom in its three tasks, its terms, its two stages."""

import pytest
import torch
import torch.nn.functional as F

import vlmlab
from vlmlab.systems.blip2 import Blip2, allowed
from vlmlab.systems.words import CLS, DEC, IMG
from vlmlab.train.run import Run

transformers = pytest.importorskip("transformers")
SMALL = {"width": 16, "heads": 2, "layers": 2, "queries": 3, "joint": 8}
TEXTS = ["a small red circle", "a large blue heart left of a small red circle"]


def made(tiny, language, **config):
    torch.manual_seed(0)
    model = Blip2({"vlm": tiny, "language": language.model}, Blip2.Config(**SMALL | config)).eval()
    return model


@pytest.fixture(scope="module")
def run(tiny, language, pairs, tmp_path_factory):
    settings = {"steps": 6, "write_steps": 4, "batch": 8, "lr": 3e-3, "save_every": 3} | SMALL
    models = {"vlm": tiny, "language": language}
    return vlmlab.fit("blip2", models, pairs, out=tmp_path_factory.mktemp("blip2"), **settings)


# of each mask: whether queries change with a text, a text with the image, early words with later ones
@pytest.mark.parametrize(
    ("how", "query_text", "text_image", "early_late"),
    [("apart", False, False, True), ("together", True, True, True), ("writing", False, True, False)],
)
@torch.no_grad()
def test_who_looks_at_whom(tiny, language, how, query_text, text_image, early_late):
    model = made(tiny, language)
    with torch.no_grad():
        for p in model.qformer.parameters():
            p.add_(0.2 * torch.randn(p.shape))
    seen, real = torch.randn(1, 5, 128), torch.ones(1, 6, dtype=torch.bool)
    ids = torch.randint(8, 20, (1, 6), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 4] = 8 + (ids[0, 4] - 7) % 12
    base, moved = (
        model.attended(seen, ids, real, how)[0],
        model.attended(torch.randn(1, 5, 128), ids, real, how)[0],
    )
    changed = (model.attended(seen, other, real, how)[0] - base).abs().amax(1) > 1e-5
    assert changed[:3].any() == query_text
    assert ((moved - base)[3:].abs().max() > 1e-5) == text_image
    assert changed[3:7].any() == early_late and changed[7:].all()
    assert ((moved - base)[:3].abs().amax(1) > 1e-5).all()
    longer = torch.cat([ids, ids[:, :2]], 1)
    there = torch.arange(8)[None] < 6
    assert torch.allclose(model.attended(seen, longer, there, how)[0, :9], base, atol=1e-5)  # padding
    assert allowed(how, 3, there)[0, 0, :, 9:].sum() == 0


@torch.no_grad()
def test_writing_in_one_pass_is_that_of_queries_first_and_words_one_by_one(tiny, language):
    model = made(tiny, language)
    images = torch.randn(2, 3, 64, 64)
    ids, real = model.ids(TEXTS[:1] * 2, first=DEC)
    seen = model.see(images)
    whole = model.attended(seen, ids, real, "writing")
    assert torch.allclose(whole[:, :3], model.queries(images), atol=1e-5)
    for n in range(1, ids.shape[1]):
        part = model.attended(seen, ids[:, :n], real[:, :n], "writing")
        assert torch.allclose(part[:, -1], whole[:, 2 + n], atol=1e-5)


@torch.no_grad()
def test_without_a_mask_it_is_hugging_faces_q_former(tiny, language):
    model, seen = made(tiny, language), torch.randn(2, 5, 128)
    ids, real = model.ids(TEXTS)
    x = model.words_of(ids) + model.places.weight[: ids.shape[1]]
    theirs = model.qformer(
        torch.cat([model.query.expand(2, -1, -1), x], 1),
        query_length=3,
        attention_mask=F.pad(real, (3, 0), value=True).long(),
        encoder_hidden_states=model.seen_norm(seen),
    ).last_hidden_state
    own = model.attended(seen, ids, real, "together")
    there = F.pad(real, (3, 0), value=True)
    assert torch.allclose(own[there], theirs[there], atol=1e-5)


@torch.no_grad()
def test_a_pair_is_as_similar_as_its_most_similar_query(tiny, language):
    model = made(tiny, language, joint=2, width=2, heads=1)
    for layer in (model.image_joint, model.text_joint):
        layer.weight.copy_(torch.eye(2)), layer.bias.zero_()
    queries = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[-3.0, 0.0], [-1.0, -1.0]]])
    texts = torch.tensor([[0.0, 5.0], [-1.0, 0.0]])
    wanted = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(model.similarity(queries, texts), wanted, atol=1e-6)


def test_its_stages_train_what_they_should(tiny, language, pairs):
    model = made(tiny, language)
    first, second = model.stages(pairs, model.Options(batch=8, steps=2, write_steps=3), 0)
    assert (first.steps, second.steps) == (2, 3)
    (only,) = model.stages(pairs, model.Options(align=False), 0)
    assert only.name == "write"
    terms = model.losses(next(first.feed(0)), first)
    assert set(terms) == {"itc", "itm", "itg"}
    sum(terms.values()).backward()
    idle = {n for n, p in model.trainable().items() if p.grad is None}
    assert idle == {"project.weight", "project.bias"}
    model.zero_grad(set_to_none=True)
    terms = model.losses(next(second.feed(0)), second)
    assert set(terms) == {"lm"}
    terms["lm"].backward()
    text = ("output.", "intermediate.", "itm", "head", "places", "words_of", "_joint", "temperature")
    for name, p in model.trainable().items():
        of_text = any(part in name.replace("attention.output", "") for part in text)
        assert (p.grad is None or not p.grad.any()) == of_text, name
    assert all(p.grad is None for p in model.vision.parameters())
    assert not any(n.startswith(("language", "vision")) for n in model.own())


def test_it_trains_is_measured_and_opened_again(run, tiny, language, pairs, handful):
    log = run.metrics
    assert log["itg"].iloc[5] < log["itg"].iloc[0] and log["stage"].tolist() == ["align"] * 6 + ["write"] * 4
    scores = vlmlab.evaluate(run, handful).set_index("metric")["value"]
    assert {"AUC", "nll_true_image", "nll_no_image", "attributes_right"} <= set(scores.index)
    again = Run(run.path).attach({"vlm": tiny, "language": language}, pairs)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.model.match(images, TEXTS), run.model.match(images, TEXTS))
        said = run.model.generate(images, ["", "a small"], how="greedy", length=3)
    assert said[1].startswith("a small")


@torch.no_grad()
def test_the_language_model_reads_what_queries_found_before_the_text(tiny, language):
    model, images = made(tiny, language), torch.randn(2, 3, 64, 64)
    given = model.inputs(images, TEXTS)
    assert given["input_ids"][0, :4].tolist() == [IMG] * 3 + [CLS]
    logits, llama = model(**given), language.model.llama
    x = torch.cat([model.look(images), llama.get_input_embeddings()(given["input_ids"][:, 3:])], 1)
    wanted = llama(inputs_embeds=x, attention_mask=given["attention_mask"]).logits
    assert torch.allclose(logits, wanted, atol=1e-6)
    sums, counts = model.log_likelihood(images, TEXTS)
    log_p = model.known(logits)[0, 3:7].log_softmax(1).gather(1, given["input_ids"][0, 4:8, None])
    assert counts[0] == 5 and sums[0] < log_p.sum()
    blind, _ = model.log_likelihood(None, TEXTS)
    assert torch.allclose(blind, language.model.log_likelihood(None, TEXTS)[0])
