"""LLaVA: what each stage trains, which words are asked for, Hugging Face's class around a frozen CLIP."""

import pytest
import torch

import vlmlab
from vlmlab.systems.llava import Llava
from vlmlab.systems.words import CLS, IMG
from vlmlab.train.run import Run

pytest.importorskip("transformers")
TEXTS = ["a small red circle", "a large blue heart left of a small red circle"]
SETTINGS = {"steps": 4, "instruct_steps": 4, "batch": 8, "save_every": 2}


def made(tiny, language):
    torch.manual_seed(0)
    model = Llava({"vlm": tiny, "language": language.model}, Llava.Config()).eval()
    return model


@pytest.fixture(scope="module")
def run(tiny, language, pairs, tmp_path_factory):
    models = {"vlm": tiny, "language": language}
    return vlmlab.fit("llava", models, pairs, out=tmp_path_factory.mktemp("llava"), **SETTINGS)


@torch.no_grad()
def test_it_is_hugging_faces_with_the_patches_of_the_frozen_clip(tiny, language):
    model, images = made(tiny, language), torch.randn(2, 3, 64, 64)
    given = model.inputs(images, TEXTS)
    assert given["input_ids"][0, :66].tolist() == [CLS] + [IMG] * 64 + [model.words.ids("a")[0]]
    assert torch.allclose(model(**given), model.llava(**given).logits, atol=1e-5)
    hidden = vlmlab.capture(tiny, images, "image.resid.post[-2]", progress=False)
    wanted = torch.tensor(hidden["image.resid.post"].values[0, :, 1:])  # without the class token
    assert torch.allclose(model.see(images), wanted, atol=1e-5)
    sums, counts = model.log_likelihood(images, TEXTS)
    log_p = model.known(model(**given))[0, 64:69].log_softmax(1)
    ids = model.ids(TEXTS)[0][0, 1:6]
    assert counts[0] == 5 and sums[0].item() == pytest.approx(
        log_p.gather(1, ids[:, None]).sum().item(), 1e-4
    )


@torch.no_grad()
def test_without_an_image_it_starts_as_its_language_model(tiny, language):
    model = made(tiny, language)
    blind, plain = (m.log_likelihood(None, TEXTS)[0] for m in (model, language.model))
    assert torch.allclose(blind, plain, atol=1e-5)


def test_only_words_of_the_answer_are_asked_for(tiny, language, pairs):
    model, images = made(tiny, language), torch.randn(2, 3, 64, 64)
    batch = {"image": images, "text": TEXTS, "given": [3, 7]}
    with torch.no_grad():
        log_p, real = model.log_p(TEXTS, model.look(images))
        wanted = -torch.cat([log_p[0, 3:5], log_p[1, 7:11]]).mean()
        assert real.sum(1).tolist() == [5, 11]
        assert model.losses(batch)["lm"].item() == pytest.approx(wanted.item(), rel=1e-5)
    _, second = model.stages(pairs, model.Options(batch=8), 3)
    batches = [batch for batch, _ in zip(second.feed(0), range(4))]
    lengths = [len(t.split()) for b in batches for t in b["text"]]
    given = [n for b in batches for n in b["given"]]
    assert all(0 <= a < n for a, n in zip(given, lengths)) and len(set(given)) > 3
    assert next(second.feed(2))["given"] == batches[2]["given"]


def test_stages_train_the_projector_then_the_language_model_too(
    run, tiny, language, pairs, tmp_path, monkeypatch
):
    models, moved, enter = {"vlm": tiny, "language": language}, [], Llava.enter
    before = {n: v.clone() for n, v in language.model.own().items()}

    def watched(self, stage):
        moved.append({n: p.detach().clone() for n, p in self.named_parameters()})
        enter(self, stage)

    monkeypatch.setattr(Llava, "enter", watched)
    again = vlmlab.fit("llava", models, pairs, out=tmp_path, **SETTINGS)
    start, middle, *_ = moved  # a run that is opened enters its stages again
    end = again.model.own()
    first = {n for n in start if not torch.equal(start[n], middle[n])}
    second = {n for n in start if not torch.equal(middle[n], end[n])}
    assert first == {n for n in start if "multi_modal_projector" in n}
    assert any("layers.0" in n for n in second) and first < second
    assert not any("vision" in n for n in end)
    assert again.digest == run.digest
    assert all(torch.equal(before[n], v) for n, v in language.model.own().items())


def test_without_steps_there_is_no_second_stage(tiny, language, pairs):
    model = made(tiny, language)
    (only,) = model.stages(pairs, model.Options(batch=8, instruct_steps=0), 3)
    assert only.name == "project"


def test_it_resumes_in_its_second_stage(run, tiny, language, pairs, tmp_path, monkeypatch):
    count, losses = iter(range(100)), Llava.losses

    def killed(self, batch, stage=None):
        if next(count) == 7:
            raise KeyboardInterrupt
        return losses(self, batch, stage)

    models = {"vlm": tiny, "language": language}
    monkeypatch.setattr(Llava, "losses", killed)
    with pytest.raises(KeyboardInterrupt):
        vlmlab.fit("llava", models, pairs, out=tmp_path, **SETTINGS)
    monkeypatch.undo()
    again = vlmlab.fit("llava", models, pairs, out=tmp_path, **SETTINGS)
    assert again.digest == run.digest and again.metrics.equals(run.metrics)


def test_it_is_measured_and_opened_again(run, tiny, language, pairs, handful):
    scores = vlmlab.evaluate(run, handful).set_index("metric")["value"]
    assert {"nll_true_image", "nll_shuffled_image", "nll_no_image", "attributes_right"} <= set(scores.index)
    again, images = (
        Run(run.path).attach({"vlm": tiny, "language": language}, pairs),
        torch.randn(2, 3, 64, 64),
    )
    with torch.inference_mode():
        given = run.model.inputs(images, TEXTS)
        assert torch.equal(again.model(**given), run.model(**given))
        assert run.model.generate(images, ["", "a small"], how="greedy", length=2)[1].startswith("a small")


@torch.no_grad()
def test_it_never_says_the_mark_of_an_image(tiny, language):
    model = made(tiny, language)
    head, kept = model.llava.get_output_embeddings(), []
    head.register_forward_hook(lambda m, args, out: out.index_fill_(2, torch.tensor([CLS, IMG]), 1e3))
    handle = model.llava.get_decoder().register_forward_hook(
        lambda m, args, out: kept.append(out[0].shape[1])
    )
    for how in ("greedy", "beam", "nucleus"):
        said = model.generate(torch.randn(2, 3, 64, 64), ["a", "a"], how=how, length=4)
        assert all(text.startswith("a") and "[" not in text for text in said)
    handle.remove()
    assert max(kept) <= 1 + 64 + 1 + 4
    marked = model.log_likelihood(torch.randn(1, 3, 64, 64), ["a [IMG] circle"])[
        0
    ]  # of one's own, a word like others
    assert torch.isfinite(marked).all()
