"""CLIP from nothing: vocabulary, depth growth, exact resume, export. Tiny widths, real data."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer

import vlmlab
from vlmlab.learner import grouped
from vlmlab.mini.clip import Clip, contrastive, grow, model_config, refine
from vlmlab.mini.vocabulary import write_vocabulary
from vlmlab.tasks.emoji import captions
from vlmlab.tasks.emoji.pretraining import Sampler
from vlmlab.train.loop import Loop

SIZES = dict(width=32, head_width=16, patch=16)
SMALL = dict(samples=96, batch=12, warmup=24, save_every=3)


@pytest.fixture(scope="module")
def task():
    return vlmlab.task("emoji/pretraining", protocol="retrieval")


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    return vlmlab.fit("clip", {}, task, out=tmp_path_factory.mktemp("whole"), **SIZES, **SMALL)


def test_reduced_vocabulary_reads_like_the_full_one(tmp_path):
    texts = captions.corpus()
    write_vocabulary(tmp_path / "bpe.txt.gz", texts)
    small, full = (
        SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz"), context_length=32),
        SimpleTokenizer(context_length=32),
    )
    for text in texts[::50]:
        assert [small.decoder[i] for i in small.encode(text)] == [full.decoder[i] for i in full.encode(text)]
    assert small.vocab_size < full.vocab_size / 5
    ids = small(["zzyzx qwxv"])[0]
    assert ids.max() == small.eot_token_id  # unknown words fall into pieces, EOS stays the largest id


def test_growing_nearly_keeps_the_function_and_leaves_no_block_idle():
    torch.manual_seed(0)
    small, big = (CLIP(**model_config(Clip.Config(**SIZES), 600, layers)).eval() for layers in (2, 4))
    grow(small, big)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.cosine_similarity(small.encode_image(images), big.encode_image(images)).min() > 0.99
    old, new = small.visual.transformer.resblocks, big.visual.transformer.resblocks
    for block in (2, 3):
        assert torch.equal(new[block].mlp.c_proj.weight, old[1].mlp.c_proj.weight / 2)
        assert torch.equal(new[block].mlp.c_fc.weight, old[1].mlp.c_fc.weight)


def test_loss_shares_weight_among_positives():
    image = torch.nn.functional.normalize(
        torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    text, match = image.flip(0), torch.eye(4, dtype=torch.bool)
    match[0, 1] = True
    logits = 5 * text @ image.T
    rows = [-(logits[i].log_softmax(0)[match[i]]).mean() for i in range(4)]
    columns = [-(logits[:, j].log_softmax(0)[match[:, j]]).mean() for j in range(4)]
    assert contrastive(image, text, torch.tensor(5.0), match).item() == pytest.approx(
        ((sum(rows) + sum(columns)) / 8).item(), rel=1e-6
    )


def test_batches_depend_on_the_step_alone_and_hold_no_novel_concept():
    sampler = Sampler(Clip.Options(**SMALL), seed=0)
    a, b, c = sampler.batch(3), next(sampler.feed(3)), sampler.batch(4)
    assert torch.equal(a["image"], b["image"]) and a["text"] == b["text"] and a["text"] != c["text"]
    assert bool(a["match"].diagonal().all())
    assert not sampler.table["novel"].any()


def test_a_stop_before_and_behind_the_growth_ends_with_the_same_weights(whole, task, tmp_path, monkeypatch):
    step, calls = Loop.step, []

    def stop(self, *args):
        calls.append(1)
        if len(calls) in (4, 8):  # of 8 steps, the growth comes after the fourth
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Loop, "step", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            vlmlab.fit("clip", {}, task, out=tmp_path, **SIZES, **SMALL)
    again = vlmlab.fit("clip", {}, task, out=tmp_path, **SIZES, **SMALL)
    assert again.model.layers == whole.model.layers == 12 and again.key == whole.key
    for name, value in whole.model.own().items():
        assert torch.equal(value, again.model.own()[name]), name
    assert (again.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()


FINE = {"fine": 8, "fine_samples": 48}


def test_a_fine_patch_follows_and_a_stop_within_it_changes_nothing(whole, task, tmp_path, monkeypatch):
    run = vlmlab.fit("clip", {}, task, out=tmp_path / "whole", **SIZES, **SMALL, **FINE)
    assert run.model.clip.visual.grid_size == (8, 8) and whole.model.clip.visual.grid_size == (4, 4)
    both = [log.metrics.drop(columns="seconds", errors="ignore") for log in (whole, run)]
    assert both[1].iloc[:8].equals(both[0]) and both[1]["lr"].iloc[8:].max() <= Clip.Options.fine_lr
    step, calls = Loop.step, []

    def stop(self, *args):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Loop, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        vlmlab.fit("clip", {}, task, out=tmp_path, **SIZES, **SMALL, **FINE)
    again = vlmlab.fit("clip", {}, task, out=tmp_path, **SIZES, **SMALL, **FINE)
    assert all(torch.equal(v, again.model.own()[n]) for n, v in run.model.own().items())
    vlm = vlmlab.load(again.model.export(tmp_path / "model", {}), device="cpu")
    assert vlm.clip.visual.patch_size == (8, 8)


def test_lines_follow_at_last_with_all_patches_and_leave_the_steps_before_alone(whole, task, tmp_path):
    run = vlmlab.fit("clip", {}, task, out=tmp_path, **SIZES, **SMALL, line_samples=48)
    both = [log.metrics.drop(columns="seconds", errors="ignore") for log in (whole, run)]
    assert both[1].iloc[:8].equals(both[0]) and set(both[1]["stage"].iloc[8:]) == {"lines"}
    stage = run.model.stages(task, Clip.Options(**SMALL, line_samples=48), seed=0)[-1]
    fed = [next(stage.feed(n)) for n in range(stage.steps)]
    assert [b["patch_dropout"] for b in fed] == [0.25, 0.25, 0.0, 0.0]
    plain = Sampler(Clip.Options(**SMALL), seed=0).batch(8)
    assert fed[0]["text"] == plain["text"] and not torch.equal(fed[0]["image"], plain["image"])


def refined(**sizes) -> tuple[CLIP, CLIP]:
    """The trained tiny model, and the same with other patches."""
    old = vlmlab.load("tiny", device="cpu").clip
    new = CLIP(**model_config(Clip.Config(**sizes), old.vocab_size)).eval()
    new.visual.patch_dropout = torch.nn.Identity()
    refine(old, new)
    return old, new


def test_a_picture_enlarged_as_much_as_its_patches_looks_the_same():
    old, new = refined(patch=16, image=128)
    split, preprocess = vlmlab.task("emoji/animals").tests["test"], vlmlab.load("tiny").preprocess
    images = torch.stack([preprocess(split.image(i)) for i in range(8)])
    with torch.no_grad():
        a = old.encode_image(images, normalize=True)
        b = new.encode_image(F.interpolate(images, scale_factor=2.0, mode="bicubic"), normalize=True)
    assert (a * b).sum(1).min() > 0.98, (a * b).sum(1)


def test_positions_of_finer_patches_lie_between_the_old_ones():
    old, new = (m.visual.positional_embedding.detach() for m in refined(patch=4))
    assert torch.equal(old[0], new[0])  # that of the class token
    cells = new[1:].T.reshape(1, -1, 16, 16)
    means = F.avg_pool2d(cells, 2)[0].flatten(1).T
    assert F.cosine_similarity(means, old[1:]).min() > 0.9


def test_weight_decay_is_for_matrices_only():
    clip = Clip({}, Clip.Config(**SIZES))
    *plain, decayed = grouped(clip.trainable(), clip.groups(Clip.Options()))
    assert all(p.ndim >= 2 and not name.endswith("positional_embedding") for name, p in decayed.items())
    assert {n for n, p in clip.named_parameters() if p.ndim < 2} <= set().union(*plain)


def test_what_is_exported_loads_and_says_the_same(whole, tmp_path):
    folder = whole.model.export(tmp_path / "model", {"samples": 96})
    vlm, images = vlmlab.load(folder, device="cpu"), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        there, here = vlm.encode_image(images), whole.model.encode_image(images)
    assert torch.allclose(there, here, atol=2e-2)  # the weights are kept in half precision
    assert vlm.tokenizer(["a dog"]).tolist() == whole.model.tokenizer(["a dog"]).tolist()


def test_it_is_scored_by_retrieval(whole, task):
    frame = vlmlab.evaluate(whole, task)
    assert {"i2t R@1", "t2i R@10"} <= set(frame["metric"]) and "test" in set(frame["split"])


def test_pictures_are_drawn_at_the_size_of_the_model(task, tmp_path):
    """Another size is another grid of patches; drawings of 64 pixels are scaled to it."""
    run = vlmlab.fit(
        "clip", {}, task, out=tmp_path, **(SIZES | SMALL | {"image": 72, "patch": 12, "samples": 24})
    )
    vlm = vlmlab.load(run.model.export(tmp_path / "model", {}), device="cpu")
    assert vlm.clip.visual.grid_size == (6, 6) and vlm.preprocess(
        task.tests[next(iter(task.tests))].image(0)
    ).shape == (
        3,
        72,
        72,
    )
    assert run.metrics["loss"].notna().all()


def test_every_recipe_fits_into_the_repository():
    """At most 15 MB for tiny and 25 MB for the others, as half precision."""
    from vlmlab.mini.recipes import RECIPES

    fields = {f.name for f in dataclasses.fields(Clip.Config)}
    for name, given in ((n, r.settings) for n, r in RECIPES.items() if r.learner == "clip"):
        sizes = {k: v for k, v in given.items() if k in fields}
        with torch.device("meta"):
            model = CLIP(**model_config(Clip.Config(**sizes), 9000))
        megabytes = 2e-6 * sum(p.numel() for p in model.parameters())
        assert megabytes < (15 if name == "tiny" else 25), name
