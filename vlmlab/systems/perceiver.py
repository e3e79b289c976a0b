"""What Flamingo puts between an image encoder and a language model: a resampler and gated blocks (Alayrac et al. 2022)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .layers import Attention


def mlp(width: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """A norm, then four times as wide and back, without biases."""
    layers = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
    return nn.Sequential(nn.LayerNorm(width), layers[0], activation(), layers[1])


class ResamplerBlock(nn.Module):
    """Latents (batch, latent, width) look at what is seen (batch, key, width) and at themselves."""

    def __init__(self, width: int, heads: int, head: int, activation: Callable[[], nn.Module] = nn.GELU):
        super().__init__()
        self.norm, self.seen_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross = Attention(width, heads, head=head, bias=False)
        self.mlp = mlp(width, activation)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.cross(y, torch.cat([self.seen_norm(seen), y], 1))
        return x + self.mlp(x)


class Resampler(nn.Module):
    """As many vectors for any number of patches and frames: learnt latents that look at them.

    heads, head: number and width of the heads of attention; frames: most of a video. Places within a frame get no
    vectors here; they are the image encoder's.
    """

    def __init__(
        self,
        width: int,
        latents: int,
        layers: int,
        heads: int,
        head: int,
        frames: int = 1,
        activation: Callable[[], nn.Module] = nn.GELU,
    ):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.times = nn.Parameter(torch.randn(frames, 1, width))
        self.blocks = nn.ModuleList(ResamplerBlock(width, heads, head, activation) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, seen: Tensor) -> Tensor:
        """(image, frame, patch, width) -> (image, latent, width). ValueError for more frames than there are times."""
        if seen.shape[1] > len(self.times):
            raise ValueError(f"a video has {seen.shape[1]} frames; raise frames ({len(self.times)})")
        seen = (seen + self.times[: seen.shape[1]]).flatten(1, 2)
        x = self.latents.expand(len(seen), -1, -1)
        for block in self.blocks:
            x = block(x, seen)
        return self.norm(x)


class GatedBlock(nn.Module):
    """Before a block of a language model: words look at what is seen, then an MLP, each behind a gate.

    What is added is tanh(gate) times what is found, and gates start at 0: at first nothing is.
    """

    def __init__(self, width: int, of: int, heads: int, head: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cross = Attention(width, heads, of, head, bias=False)
        self.mlp = mlp(width, nn.GELU)
        self.cross_gate, self.mlp_gate = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
        """x (batch, token, width), seen (batch, key, of), mask bool (batch, 1, token, key), true where a word looks; to a
        word that looks nowhere attention adds 0."""
        looks = mask.any(3, keepdim=True)
        found = self.cross(self.norm(x), seen, mask | ~looks) * looks[:, 0]
        x = x + self.cross_gate.tanh() * found
        return x + self.mlp_gate.tanh() * self.mlp(x)
