"""Batches of a split, as a function of (seed, epoch): resuming and workers change nothing."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ..models.load import VLM
from ..tasks.split import Split


def train_transform(vlm: VLM, crop: tuple[float, float], flip: bool = True) -> v2.Compose:
    """Dassl's: random resized crop (bicubic, ratio 3/4 to 4/3), horizontal flip, normalise."""
    steps = [
        v2.RandomResizedCrop(vlm.image_size, scale=crop, interpolation=v2.InterpolationMode.BICUBIC),
        *([v2.RandomHorizontalFlip()] if flip else []),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(vlm.mean, vlm.std),
    ]
    return v2.Compose(steps)


def picture(split: Split, i: int, rng: np.random.Generator | None = None) -> Image.Image:
    """Image i of a split; ValueError names the one that cannot be read."""
    try:
        return split.image(i, rng)
    except (OSError, SyntaxError, ValueError) as e:  # Pillow raises all three for damaged files
        raise ValueError(f"image {split.ids[i]!r} cannot be read ({e}); repair it or leave it out") from e


class Augmented(Dataset):
    """Training images of one epoch: image i depends on (seed, epoch, i) alone."""

    def __init__(self, split: Split, transform: v2.Compose, seed: int, epoch: int):
        self.split, self.transform, self.seed, self.epoch = split, transform, seed, epoch

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng([self.seed, self.epoch, i])
        image = picture(self.split, i, rng)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also reset the GPU's generator, which training may be using
            torch.default_generator.manual_seed(int(rng.integers(2**31)))
            return self.transform(image), int(self.split.labels[i])


class Plain(Dataset):
    """Evaluation images under the model's own preprocessing."""

    def __init__(self, split: Split, vlm: VLM):
        self.split, self.preprocess = split, vlm.preprocess

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.preprocess(picture(self.split, i)), int(self.split.labels[i])


def batch_for(device: torch.device) -> int:
    """Images at a time without gradients: few on a CPU, whose caches more would overflow."""
    return 16 if device.type == "cpu" else 256


def train_loader(
    split: Split,
    vlm: VLM,
    *,
    batch_size: int,
    crop: tuple[float, float],
    seed: int,
    epoch: int,
    workers: int = 0,
) -> DataLoader:
    """Shuffled batches of one epoch; a last incomplete batch is dropped unless it is the only one.

    A split whose pictures would mean something else in a mirror says `flip = False`.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(split)).tolist()
    transform = train_transform(vlm, crop, split.flip)
    return DataLoader(
        Augmented(split, transform, seed, epoch),
        batch_size=batch_size,
        sampler=order,
        drop_last=len(split) >= batch_size,
        num_workers=workers,
        pin_memory=vlm.device.type == "cuda",
    )


def test_loader(split: Split, vlm: VLM, *, batch_size: int, workers: int = 0) -> DataLoader:
    """All images in order."""
    return DataLoader(
        Plain(split, vlm), batch_size=batch_size, num_workers=workers, pin_memory=vlm.device.type == "cuda"
    )
