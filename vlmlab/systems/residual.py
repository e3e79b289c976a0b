"""A residual network for small images, its shortcuts switchable (He et al. 2016, section 4.2)."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and where `shortcut` the input added before the last ReLU.

    A shortcut has no parameters: where the block halves maps and has more channels, it takes every second pixel and
    the channels that are missing are 0 (the paper's option A).
    """

    def __init__(self, channels: int, out: int, stride: int = 1, shortcut: bool = True):
        super().__init__()
        self.stride, self.more, self.shortcut = stride, out - channels, shortcut
        self.conv1, self.norm1 = conv(channels, out, stride), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = conv(out, out), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, row, column) -> (batch, out, row / stride, column / stride)."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.shortcut:
            y = y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(y)


class ResidualNet(nn.Module):
    """A convolution, stages of blocks each half as wide in pixels as the one before, the mean over pixels, a layer.

    channels: of each stage; blocks: in each; stride: of the first convolution. `depth` counts layers with weights: 2 in a block, the first and the last.
    """

    def __init__(
        self, channels: Sequence[int], blocks: int, outputs: int, shortcut: bool = True, stride: int = 1
    ):
        super().__init__()
        self.depth = 2 * blocks * len(channels) + 2
        self.conv, self.norm = conv(3, channels[0], stride), nn.BatchNorm2d(channels[0])
        found, before = [], channels[0]
        for stage, out in enumerate(channels):
            for i in range(blocks):
                found.append(ResidualBlock(before, out, 2 if stage and not i else 1, shortcut))
                before = out
        self.blocks, self.head = nn.Sequential(*found), nn.Linear(before, outputs)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def features(self, images: Tensor) -> Tensor:
        """images (batch, 3, height, width) -> (batch, channels of the last stage)."""
        return self.blocks(F.relu(self.norm(self.conv(images)))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, output)."""
        return self.head(self.features(images))


def conv(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, 1, bias=False)


SWITCHES = ("shortcut", "has_skip")  # whether a block has one: ours, and timm's


def blocks_of(net: nn.Module) -> list[nn.Module]:
    """The blocks that may have a shortcut, from the input on."""
    return [part for part in net.modules() if any(hasattr(part, name) for name in SWITCHES)]


def gradient_norms(net: nn.Module) -> Tensor:
    """(block,) Frobenius norm of the last gradient of each block's first convolution, from the input on."""
    first = [next(m for m in block.modules() if isinstance(m, nn.Conv2d)) for block in blocks_of(net)]
    return torch.stack([conv.weight.grad.norm() for conv in first])


def norms_of_trained(net: nn.Module, images: Tensor, shortcut: bool = True) -> Tensor:
    """The same of the log-probability that a classifier gives its first choice, mean over images (batch, 3, height,
    width); without any shortcut where told. The net stays as it is."""
    net = copy.deepcopy(net).requires_grad_(True)
    for block in blocks_of(net) if not shortcut else ():
        for name in SWITCHES:
            if hasattr(block, name):
                setattr(block, name, False)
    net(images).log_softmax(1).amax(1).mean().backward()
    return gradient_norms(net)
