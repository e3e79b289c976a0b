"""MMRL++: MMRL with low-rank aligners and tokens that are carried from block to block (Guo & Gu 2025)."""

import dataclasses
import math

import torch
from torch import Tensor, nn

from .mmrl import MMRL, uniform


class Aligner(nn.Module):
    """Tokens of one tower: token_l = (W + A_l B_l) R + b_l, W shared, the low-rank residual per block.

    B starts at zero, so all blocks begin with the same map.
    """

    def __init__(self, blocks: int, width: int, rep_dim: int, rank: int):
        super().__init__()
        bound = 1 / math.sqrt(rep_dim)
        self.weight = uniform(width, rep_dim, bound=bound)
        self.bias = uniform(blocks, width, bound=bound)
        self.A = uniform(blocks, width, rank, bound=1 / math.sqrt(rank))
        self.B = nn.Parameter(torch.zeros(blocks, rank, rep_dim))

    def forward(self, space: Tensor) -> Tensor:
        """space R (token, rep_dim) -> (block, token, width)."""
        return space @ (self.weight + self.A @ self.B).transpose(1, 2) + self.bias[:, None]


class MMRLpp(MMRL):
    """MMRL with fewer parameters and progressive mixing of the tokens."""

    reports = {"base_to_new": ("unified", "decoupled")}  # the paper decouples, AlignedNorm asks for one rule

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Names of the word list in the README; defaults are MMRL++'s for ImageNet."""

        first_block: int = 6
        tokens: int = 5
        rep_dim: int = 512
        rank: int = 4
        proj_rank: int = 64
        token_mix: float = 0.9  # share of the generated token at blocks J+1..L
        prompt_weight: float = 0.3  # share of the prompt branch at fusion
        anchor_weight: float = 0.2  # self-regularisation towards the frozen features

    @property
    def token_mix(self) -> float:
        return self.config.token_mix

    def aligner(self, blocks: int, width: int) -> nn.Module:
        return Aligner(blocks, width, self.config.rep_dim, self.config.rank)

    def add_projection(self, width: int, joint: int) -> None:
        """CLIP's projection P plus a low-rank residual AB that starts at zero."""
        rank = self.config.proj_rank
        self.proj_A = uniform(width, rank, bound=1 / math.sqrt(rank))
        self.proj_B = nn.Parameter(torch.zeros(rank, joint))

    def prompt_projection(self) -> Tensor:
        """P + AB, (width, joint)."""
        return self.vlm.clip.visual.proj + self.proj_A @ self.proj_B
