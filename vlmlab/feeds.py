"""Batches of images and what goes with them, as a function of (seed, step): resuming and workers change
nothing. The workers of a feed live as long as it does."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from . import processes
from .image_files import Unreadable
from .learner import Batch

Transform = Callable[[Image.Image], torch.Tensor]


def train_transform(model, crop: tuple[float, float], flip: bool = True) -> v2.Compose:
    """Dassl's: random resized crop (bicubic, ratio 3/4 to 4/3), horizontal flip, normalise.

    model: with `image_size`, `mean` and `std`.
    """
    steps = [
        v2.RandomResizedCrop(model.image_size, scale=crop, interpolation=v2.InterpolationMode.BICUBIC),
        *([v2.RandomHorizontalFlip()] if flip else []),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(model.mean, model.std),
    ]
    return v2.Compose(steps)


def strong_transform(model, crop: tuple[float, float], flip: bool = True) -> v2.Compose:
    """MoCo's and LaFTer's: bilinear crop, flip, colours, grey now and then, always a blur (LaFTer), normalise.

    The blur's standard deviation, 0.1 to 2 pixels where images have 224, goes with their size. model: as above.
    """
    scale = model.image_size / 224
    steps = [
        v2.RandomResizedCrop(model.image_size, scale=crop),
        *([v2.RandomHorizontalFlip()] if flip else []),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.GaussianBlur(2 * math.ceil(6 * scale) + 1, (0.1 * scale, 2 * scale)),
        v2.Normalize(model.mean, model.std),
    ]
    return v2.Compose(steps)


def picture(images, i: int, rng: np.random.Generator | None = None) -> Image.Image:
    """Image i of a set; ValueError names the one that cannot be read."""
    try:
        return images.image(i, rng)
    except Unreadable:  # it names the file
        raise
    except (OSError, SyntaxError, ValueError) as e:  # Pillow raises all three for damaged files
        raise ValueError(f"image {images.ids[i]!r} cannot be read ({e}); repair it or leave it out") from e


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Shuffled passes over `size` samples: which of them batch n holds.

    A last incomplete batch of a pass is dropped unless it is the only one.
    """

    size: int
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        return max(1, self.size // self.batch_size)

    def batches(self, first: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """(epoch, sample) of the batches first..stop-1, this process's share of each."""
        order, epoch = None, -1
        for step in range(first, stop):
            if step // self.steps != epoch:
                epoch = step // self.steps
                order = np.random.default_rng([self.seed, epoch]).permutation(self.size).tolist()
            start = step % self.steps * self.batch_size
            yield [(epoch, i) for i in processes.share(order[start : start + self.batch_size])]


class Augmented(Dataset):
    """Training images: sample (epoch, i) depends on (seed, epoch, i) alone.

    views: name -> transform; each is one more look at the same picture ("image", or "weak" and "strong").
    """

    def __init__(self, images, views: Mapping[str, Transform], seed: int):
        self.images, self.views, self.seed = images, views, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: tuple[int, int]) -> dict[str, object]:
        epoch, i = at
        rng = np.random.default_rng([self.seed, epoch, i])
        image = picture(self.images, i, rng)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reset the GPU's generator, which training may be using
            torch.default_generator.manual_seed(int(rng.integers(2**31)))
            looks = {name: transform(image) for name, transform in self.views.items()}
        return {**looks, **self.images.about(i, rng)}


class Plain(Dataset):
    """Images in order, under one transform, such as a model's own preprocessing."""

    def __init__(self, images, transform: Transform):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, object]:
        return {"image": self.transform(picture(self.images, i)), **self.images.about(i, None)}


def collate(samples: Sequence[Mapping[str, object]]) -> Batch:
    """Samples side by side: numbers and arrays become tensors, texts and lists stay lists."""
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    return {
        name: values if isinstance(values[0], (str, list, tuple, dict)) else default_collate(values)
        for name, values in columns.items()
    }


def loader(dataset: Dataset, batches: Iterable[Sequence], workers: int = 0, pin: bool = False) -> DataLoader:
    """The batches of a dataset that are listed, one after the other, with one set of workers for all."""
    return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=pin)


def epochs(
    images, views: Mapping[str, Transform], batch_size: int, seed: int, stop: int, workers: int = 0, pin=False
) -> Callable[[int], Iterator[Batch]]:
    """The feed of shuffled passes over augmented images, up to step `stop`."""
    order, data = Epochs(len(images), batch_size, seed), Augmented(images, views, seed)
    return lambda first: iter(loader(data, order.batches(first, stop), workers, pin))


def in_order(images, model, batch_size: int | None = None, workers: int = 0) -> DataLoader:
    """All images as the model wants them, in order, in batches {"image": ..., and what goes with it}.

    batch_size: by default what suits the model's device.
    """
    size, cuda = batch_size or batch_for(model.device), model.device.type == "cuda"
    rows = [range(start, min(start + size, len(images))) for start in range(0, len(images), size)]
    return loader(Plain(images, model.preprocess), rows, workers, cuda)


def batch_for(device: torch.device) -> int:
    """Images at a time without gradients: few on a CPU, whose caches more would overflow."""
    return 16 if device.type == "cpu" else 256


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device; from pinned memory, without waiting for them."""
    return {
        k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()
    }
