"""Pretraining: vocabulary, depth growth, exact resume. Tiny widths, real data."""

import dataclasses

import pytest
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer

from vlmlab.tasks.emoji import captions
from vlmlab.train.pretrain import (
    Pretraining,
    Recipe,
    Sampler,
    contrastive,
    grow,
    model_config,
    pretrain,
    write_vocabulary,
)

SMALL = Recipe(samples=96, batch=12, width=32, head_width=16, patch=16, warmup=24)


@pytest.fixture(scope="module")
def sampler():
    return Sampler(SMALL)


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
    small, big = (CLIP(**model_config(SMALL, 600, layers)).eval() for layers in (2, 4))
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


def test_batches_depend_on_the_step_alone_and_hold_no_novel_concept(sampler):
    a, b, c = sampler.batch(3), sampler.batch(3), sampler.batch(4)
    assert torch.equal(a["images"], b["images"]) and a["texts"] == b["texts"] and a["texts"] != c["texts"]
    assert bool(a["match"].diagonal().all())
    assert not sampler.table["novel"].any()


def test_interrupted_pretraining_ends_with_the_same_weights(tmp_path, sampler):
    whole = pretrain(tmp_path / "whole", SMALL, save_every=3)
    part = Pretraining(SMALL, tmp_path / "part")
    while part.step < 6:  # beyond the growth at half of 8 steps
        part.train_step(sampler.batch(part.step))
    part.save()
    part.train_step(sampler.batch(part.step))  # lost work
    again = pretrain(tmp_path / "part", SMALL)
    assert again.step == whole.step == 8 and again.layers == 12
    for (name, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_state_of_another_recipe_is_refused(tmp_path):
    Pretraining(SMALL, tmp_path).save()
    with pytest.raises(ValueError, match="another recipe"):
        Pretraining(dataclasses.replace(SMALL, lr=1e-4), tmp_path).resume()


def test_nan_loss_stops(tmp_path, sampler):
    run = Pretraining(SMALL, tmp_path)
    run.model.logit_scale.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        run.train_step(sampler.batch(0))
