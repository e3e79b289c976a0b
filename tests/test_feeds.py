"""Batches depend on (seed, step) alone; workers start once; what cannot be read is named."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import vlmlab
from vlmlab import feeds
from vlmlab.tasks.split import Split

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


def batches(split, vlm, seed=1, first=0, stop=4, workers=0, batch_size=4):
    views = {"image": feeds.train_transform(vlm, CROP)}
    return list(feeds.epochs(split, views, batch_size, seed, stop, workers)(first))


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x[k], y[k]) for x, y in zip(a, b) for k in ("image", "label"))


def test_workers_and_the_global_generator_change_nothing(split, vlm):
    torch.manual_seed(1)
    first = batches(split, vlm)
    torch.manual_seed(2)
    assert equal(batches(split, vlm, workers=2), first)


def test_a_feed_goes_on_at_any_step(split, vlm):
    whole = batches(split, vlm, stop=5)
    for first in (1, 2, 3):
        assert equal(batches(split, vlm, first=first, stop=5), whole[first:])


def test_workers_start_once_for_all_epochs(split, vlm, monkeypatch):
    started = []
    iterator = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    init = iterator.__init__
    monkeypatch.setattr(
        iterator, "__init__", lambda self, loader: (started.append(loader.num_workers), init(self, loader))[1]
    )
    assert len(batches(split, vlm, stop=9, workers=1)) == 9  # four passes
    assert started == [1]


def test_images_leave_the_global_generator_alone(split, vlm):
    dataset = feeds.Augmented(split, {"image": feeds.train_transform(vlm, CROP)}, 1)
    before = torch.get_rng_state()
    dataset[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_and_epoch_change_order_and_crop(split, vlm):
    first = batches(split, vlm, stop=2)
    for other in (batches(split, vlm, seed=2, stop=2), batches(split, vlm, first=2)):
        assert not equal(other, first)
        assert [b["label"].tolist() for b in other] != [b["label"].tolist() for b in first]
    dataset = feeds.Augmented(split, {"image": feeds.train_transform(vlm, CROP)}, 1)
    assert not torch.equal(dataset[0, 0]["image"], dataset[1, 0]["image"])


def test_the_last_batch_is_dropped_unless_it_is_the_only_one(split, vlm):
    assert [len(b["label"]) for b in batches(split, vlm)] == [4, 4, 4, 4]
    assert feeds.Epochs(11, 4, 1).steps == 2
    assert [len(b["label"]) for b in batches(split, vlm, batch_size=16, stop=1)] == [11]


def test_two_views_are_two_looks_at_the_same_picture(split):
    whole = v2.Compose([v2.Resize((8, 8)), v2.PILToTensor()])
    batch = next(feeds.epochs(split, {"weak": whole, "strong": whole}, 4, 1, 1)(0))
    assert torch.equal(batch["weak"], batch["strong"])
    noisy = v2.Compose([whole, v2.ToDtype(torch.float32), v2.GaussianNoise(sigma=1.0, clip=False)])
    batch = next(feeds.epochs(split, {"weak": noisy, "strong": noisy}, 4, 1, 1)(0))
    assert not torch.equal(batch["weak"], batch["strong"])


def test_soft_labels_and_texts_come_along(split):
    class Captioned(Split):
        def about(self, i, rng):
            soft = np.eye(3, dtype=np.float32)[self.labels[i]]
            return super().about(i, rng) | {
                "distribution": soft,
                "text": f"picture {self.ids[i]}",
                "answers": ["a"],
            }

    images = Captioned(**{f.name: getattr(split, f.name) for f in dataclasses.fields(split)})
    batch = next(feeds.epochs(images, {}, 4, 1, 1)(0))
    assert batch["distribution"].shape == (4, 3) and batch["distribution"].dtype == torch.float32
    assert batch["distribution"].argmax(1).tolist() == batch["label"].tolist()
    assert (
        len(batch["text"]) == 4
        and batch["text"][0].startswith("picture ")
        and batch["answers"] == [["a"]] * 4
    )


def test_pictures_that_lose_their_meaning_in_a_mirror_are_not_flipped(vlm):
    def sides(flip):
        transform = feeds.train_transform(vlm, (1.0, 1.0), flip)
        ramp = Image.fromarray(np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3)))
        return {bool(x[0, :, 0].mean() < x[0, :, -1].mean()) for x in (transform(ramp) for _ in range(40))}

    assert sides(True) == {True, False} and sides(False) == {True}


@pytest.mark.parametrize(
    ("pixels", "kernel", "widths"), [(224, 13, (0.1, 2.0)), (64, 5, (0.1 * 2 / 7, 4 / 7))]
)
def test_the_blur_of_the_strong_view_goes_with_the_size_of_the_images(pixels, kernel, widths):
    like = SimpleNamespace(image_size=pixels, mean=(0.5,) * 3, std=(0.25,) * 3)
    strong = feeds.strong_transform(like, (0.2, 1.0))
    (blur,) = (step for step in strong.transforms if isinstance(step, v2.GaussianBlur))
    assert tuple(blur.kernel_size) == (kernel, kernel) and blur.sigma == pytest.approx(widths)
    assert strong(Image.new("RGB", (90, 70), "white")).shape == (3, pixels, pixels)
    assert sum(isinstance(step, v2.RandomHorizontalFlip) for step in strong.transforms) == 1
    plain = feeds.strong_transform(like, (0.2, 1.0), flip=False)
    assert not any(isinstance(step, v2.RandomHorizontalFlip) for step in plain.transforms)


def test_normalised_as_in_evaluation(vlm):
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    assert torch.allclose(feeds.train_transform(vlm, CROP)(grey), vlm.preprocess(grey), atol=1e-6)


@pytest.mark.parametrize("augmented", [True, False])
def test_an_image_that_cannot_be_read_is_named(split, vlm, tmp_path, augmented):
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    bad = dataclasses.replace(
        split,
        ids=["pets/7.png"],
        labels=[0],
        read=lambda id, rng: Image.open(tmp_path / "cut.png").convert("RGB"),
    )
    with pytest.raises(ValueError, match=r"image 'pets/7.png' cannot be read .*repair it or leave it out"):
        if augmented:
            feeds.Augmented(bad, {"image": feeds.train_transform(vlm, CROP)}, 1)[0, 0]
        else:
            feeds.Plain(bad, vlm.preprocess)[0]
