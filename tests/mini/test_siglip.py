"""The sigmoid loss on the towers of tiny: what matches, one short training, export."""

import pytest
import torch
import torch.nn.functional as F

import vlmlab
from vlmlab import cli
from vlmlab.mini.siglip import SCALE, Siglip, sigmoid
from vlmlab.tasks.shapes import pretraining as shapes
from vlmlab.tasks.shapes.composition import sides
from vlmlab.tasks.shapes.texts import caption, captions

SMALL = dict(samples=20, batch=6, one=1, pairs=2, many=1)


@pytest.fixture(scope="module")
def tiny():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    task = vlmlab.task("emoji/pretraining", protocol="retrieval")
    return vlmlab.fit("siglip", tiny, task, out=tmp_path_factory.mktemp("siglip"), **SMALL)


def test_the_loss_asks_about_every_pair_by_itself():
    image, text = (
        F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(i)), dim=1) for i in (0, 1)
    )
    match = torch.eye(3, dtype=torch.bool)
    match[0, 2] = True
    total = 0.0
    for i in range(3):
        for j in range(3):
            z = 10 * float(text[i] @ image[j]) - 10
            total -= F.logsigmoid(torch.tensor(z if match[i, j] else -z)).item()
    found = sigmoid(image, text, torch.tensor(10.0), torch.tensor(-10.0), match)
    assert found.item() == pytest.approx(total / 3, rel=1e-5)


def test_batches_are_of_the_training_side_and_know_all_pairs_that_are_true():
    counts = {"one": 24, "pairs": 24, "many": 24}
    scenes = shapes.stream(counts, 0, 5)
    assert scenes == shapes.stream(counts, 0, 5) and scenes != shapes.stream(counts, 0, 6)
    assert {of.kind for of in scenes} == set(counts)
    assert all(sides(of.kind)[of.key] == 0 for of in scenes)  # train
    match = shapes.match(scenes)
    assert bool(match.diagonal().all()) and shapes.images(scenes).shape == (72, 3, 64, 64)
    for i, j in match.nonzero().tolist():
        assert caption(scenes[i]) in captions(scenes[j])
    assert match.sum() > len(scenes)  # one shape of the same kind twice


def test_it_begins_as_tiny_does_and_trains_all_of_it(tiny, run):
    fresh = Siglip({"vlm": tiny}, run.model.config)
    assert fresh.clip.visual.grid_size == (6, 6) and fresh.layers == 12
    blocks = tiny.clip.state_dict()
    for name, value in fresh.clip.state_dict().items():
        if name in blocks and value.shape == blocks[name].shape and name != "logit_scale":
            assert torch.equal(value, blocks[name]), name
    assert fresh.clip.logit_scale.exp().item() == pytest.approx(SCALE)
    still = [
        n
        for n, value in run.model.clip.state_dict().items()
        if torch.equal(value, fresh.clip.state_dict()[n])
    ]
    assert set(still) <= {"attn_mask"} and run.info["steps"] == 2
    assert run.metrics["loss"].notna().all()


def test_what_is_exported_loads_with_its_bias_and_says_the_same(run, tmp_path):
    vlm = vlmlab.load(run.model.export(tmp_path / "model", {"samples": 20}), device="cpu")
    assert vlm.image_size == 48 and vlm.image.depth == vlm.text.depth == 12
    assert vlm.logit_bias == pytest.approx(run.model.clip.logit_bias.item(), abs=1e-2)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    run.model.clip.visual.patch_dropout.prob = 0.0
    with torch.no_grad():
        here, there = run.model.encode_image(images), vlm.encode_image(images)
        assert torch.allclose(F.normalize(here, dim=1), F.normalize(there, dim=1), atol=2e-2)
        texts = ["a red circle", "a dog and a car."]
        here, there = run.model.encode_text(texts), vlm.encode_text(texts)
        assert torch.allclose(F.normalize(here, dim=1), F.normalize(there, dim=1), atol=2e-2)


def test_one_command_trains_it_from_tiny(tmp_path, capsys):
    words = ["pretrain", "tiny-siglip", "--out", str(tmp_path), "--export", str(tmp_path / "model")]
    words += [w for k, v in SMALL.items() for w in ("--set", f"{k}={v}")]
    assert cli.main(words) == 0 and "exported to" in capsys.readouterr().out
    assert vlmlab.load(tmp_path / "model", device="cpu").logit_bias < 0
