"""AlignedNorm: MMRL++ with prompt norms pulled to the class token's (ICML 2026, Eqs. 10-12)."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.towers import Tokens
from ..processes import gather
from .mmrlpp import MMRLpp

# Table 7: loss of a prompt norm n_p (batch,) and the class token's norm n_c (batch,), which has no gradient.
# The paper gives no formulas for the other three; smooth L1 turns quadratic below a gap of 1, the hinge only
# forbids prompts that are shorter, whose gradients Eq. (8) calls noisy.
NORM_LOSSES = {
    "l1": lambda n_p, n_c: (n_p - n_c).abs().mean(),
    "smooth_l1": lambda n_p, n_c: F.smooth_l1_loss(n_p, n_c),
    "hinge": lambda n_p, n_c: F.relu(n_c - n_p).mean(),
}


class AlignedNorm(MMRLpp):
    """MMRL++ plus two norm terms; one unified rule for base and new classes."""

    reports = {}

    @dataclasses.dataclass(frozen=True)
    class Config(MMRLpp.Config):
        """`w_proj` and `w_token` are the paper's beta and gamma (Table 8); defaults are ImageNet's.

        norm_loss: of the projected norms, l1, smooth_l1, hinge or ring (Table 7).
        """

        w_proj: float = 0.005
        w_token: float = 0.005
        norm_loss: str = "l1"

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        if config.norm_loss not in (*NORM_LOSSES, "ring"):
            raise ValueError(
                f"norm_loss must be one of {', '.join(NORM_LOSSES)}, ring; got {config.norm_loss!r}"
            )
        if config.norm_loss == "ring":
            self.radius = nn.Parameter(torch.full((), torch.nan, device=vlm.device))

    def extra_losses(self, z: dict[str, Tensor], trace: list[Tokens]) -> dict[str, Tensor]:
        """L_proj = mean | |z_p| - sg|z_c| |;  L_token = sum_l mean | |mean_k P_lk| - sg|c_l| |, in float32.

        A term of weight zero is left out, so that the rest is MMRL++ to the bit.
        """
        terms = {}
        if self.config.w_proj:
            loss = self.ring if self.config.norm_loss == "ring" else NORM_LOSSES[self.config.norm_loss]
            terms["proj"] = self.config.w_proj * loss(*norms(z["prompt"], z["cls"]))
        if self.config.w_token:
            layers = [norms(t.x[:, t.span("prompt")].float().mean(dim=1), t.x[:, 0]) for t in trace]
            terms["token"] = self.config.w_token * sum(NORM_LOSSES["l1"](*pair) for pair in layers)
        return terms

    def ring(self, n_p: Tensor, n_c: Tensor) -> Tensor:
        """Ring loss, mean (|z_p| - R)^2 / 2 with R learned (Zheng et al. 2018); R starts at the first batch's
        mean |z_c|."""
        if self.radius.isnan():
            with torch.no_grad():
                self.radius.copy_(gather(n_c).mean())
        return 0.5 * (n_p - self.radius).square().mean()


def norms(moving: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Norms in float32 of (batch, width) pairs; only `moving` receives gradients."""
    return moving.float().norm(dim=-1), target.detach().float().norm(dim=-1)
