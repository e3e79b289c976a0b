"""Batches depend on (seed, epoch) alone; what cannot be read is named."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlab
from vlmlab.tasks.split import Split
from vlmlab.train import data

CROP = (0.5, 1.0)


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture
def split():
    def read(id, rng=None):
        noise = np.random.default_rng(int(id)).integers(0, 256, (80, 70, 3), dtype=np.uint8)
        return Image.fromarray(noise)

    return Split(
        [str(i) for i in range(11)],
        np.arange(11) % 3,
        ("a", "b", "c"),
        "a {}.",
        read=read,
        content=str.encode,
    )


def batches(split, vlm, seed=1, epoch=0, workers=0, batch_size=4):
    loader = data.train_loader(
        split, vlm, batch_size=batch_size, crop=CROP, seed=seed, epoch=epoch, workers=workers
    )
    return list(loader)


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for p, q in zip(a, b) for x, y in zip(p, q))


def test_workers_and_the_global_generator_change_nothing(split, vlm):
    torch.manual_seed(1)
    first = batches(split, vlm)
    torch.manual_seed(2)
    assert equal(batches(split, vlm, workers=2), first)


def test_images_leave_the_global_generator_alone(split, vlm):
    dataset = data.Augmented(split, data.train_transform(vlm, CROP), 1, 0)
    before = torch.get_rng_state()
    dataset[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_and_epoch_change_order_and_crop(split, vlm):
    first = batches(split, vlm)
    for other in (batches(split, vlm, seed=2), batches(split, vlm, epoch=1)):
        assert not equal(other, first)
        assert [y.tolist() for _, y in other] != [y.tolist() for _, y in first]
    one, two = (data.Augmented(split, data.train_transform(vlm, CROP), 1, e)[0][0] for e in (0, 1))
    assert not torch.equal(one, two)


def test_the_last_batch_is_dropped_unless_it_is_the_only_one(split, vlm):
    assert [len(y) for _, y in batches(split, vlm)] == [4, 4]
    assert [len(y) for _, y in batches(split, vlm, batch_size=16)] == [11]


def test_pictures_that_lose_their_meaning_in_a_mirror_are_not_flipped(split, vlm):
    def sides(flip):
        transform = data.train_transform(vlm, (1.0, 1.0), flip)
        ramp = Image.fromarray(np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3)))
        return {bool(x[0, :, 0].mean() < x[0, :, -1].mean()) for x in (transform(ramp) for _ in range(40))}

    assert sides(True) == {True, False} and sides(False) == {True}
    for flip in (True, False):
        told = dataclasses.replace(split, flip=flip)
        loader = data.train_loader(told, vlm, batch_size=4, crop=CROP, seed=1, epoch=0)
        names = [type(t).__name__ for t in loader.dataset.transform.transforms]
        assert ("RandomHorizontalFlip" in names) is flip


def test_normalised_as_in_evaluation(vlm):
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    assert torch.allclose(data.train_transform(vlm, CROP)(grey), vlm.preprocess(grey), atol=1e-6)


@pytest.mark.parametrize("name", ["Augmented", "Plain"])
def test_an_image_that_cannot_be_read_is_named(split, vlm, tmp_path, name):
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    bad = dataclasses.replace(
        split,
        ids=["pets/7.png"],
        labels=[0],
        read=lambda id, rng: Image.open(tmp_path / "cut.png").convert("RGB"),
    )
    dataset = (
        data.Plain(bad, vlm)
        if name == "Plain"
        else data.Augmented(bad, data.train_transform(vlm, CROP), 1, 0)
    )
    with pytest.raises(ValueError, match=r"image 'pets/7.png' cannot be read .*repair it or leave it out"):
        dataset[0]
