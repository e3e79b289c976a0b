"""ResNet (He et al. 2016): a classifier of any depth, with its shortcuts or without.

Without them a deep network trains worse than a shallow one; with them it does not.
"""

import dataclasses

import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from .. import feeds
from ..learner import Batch, Stage
from ..schema import Amount, Count
from .residual import ResidualNet
from .system import System


class ResNet(System):
    """Tells the classes apart that it was trained on."""

    @dataclasses.dataclass(frozen=True)
    class Config:
        """blocks: in each of three stages, the depth is 6 blocks + 2; width: channels of the first stage;
        stride: of the first convolution, 1 in the paper."""

        image: Count = 32
        blocks: Count = 3
        width: Count = 16
        shortcut: bool = True
        stride: Count = 2

    @dataclasses.dataclass(frozen=True)
    class Options(System.Options):
        steps: Count = 200
        batch: Count = 64
        lr: Amount = 0.03
        weight_decay: float = 1e-4

    def __init__(self, models, config, classnames: tuple[str, ...]):
        super().__init__(models, config)
        widths = [config.width * 2**i for i in range(3)]
        self.net = ResidualNet(widths, config.blocks, len(classnames), config.shortcut, config.stride)
        self.known = tuple(classnames)
        self.set_classes(self.known, "{}")

    @classmethod
    def build(cls, models, classes, config) -> "ResNet":
        """ValueError where there are no classes."""
        if classes is None:
            raise ValueError("resnet needs images with labels, for example shapes/one under few_shot")
        return cls(models, config, tuple(classes[0]))

    @classmethod
    def real(cls) -> Config:
        """ResNet-56 of CIFAR-10 (0.85 M parameters with its 10 classes)."""
        return cls.Config(32, 9, 16, stride=1)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        if not len(task.train):
            raise ValueError(f"{task.id} under {task.protocol} has no training images; use few_shot")
        flipped = v2.Compose([self.preprocess, v2.RandomHorizontalFlip()])
        view = flipped if task.train.flip else self.preprocess
        o = options
        feed = feeds.epochs(task.train, {"image": view}, o.batch, seed, o.steps, self.workers)
        return [self.stage("train", o, feed, "sgd", options={"momentum": 0.9}, clip=None)]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Cross-entropy of image (batch, 3, height, width) and label."""
        logits = self.net(batch["image"])
        self.right = (logits.argmax(1) == batch["label"]).float().mean()
        return {"ce": F.cross_entropy(logits, batch["label"])}

    def beside(self, batch: Batch, terms) -> dict[str, Tensor]:
        """accuracy on the batch."""
        return {"accuracy": self.right}

    def set_classes(self, classnames, template: str) -> None:
        """The classes asked about, some of those that it knows. ValueError for others."""
        if unknown := [name for name in classnames if name not in self.known]:
            raise ValueError(
                f"ResNet was not trained on {unknown[0]!r}; it knows {', '.join(self.known[:8])} ..."
            )
        self.classnames, self.template = tuple(classnames), template
        self.rows = [self.known.index(name) for name in classnames]

    def image_features(self, images: Tensor) -> Tensor:
        """images (batch, 3, height, width) -> (batch, channels of the last stage)."""
        return self.net.features(images)

    def classify(self, features: Tensor, rule: str = "unified", split: str | None = None) -> Tensor:
        """(batch, class) logits."""
        return self.net.head(features)[:, self.rows]
