"""How much each level counts for a pair: ALSN's weights, and what it learns them by."""

import torch
from torch import Tensor, nn

from .. import processes
from . import alsn, contrast
from .builder import Levels

FADING = 0.99  # of the running means of level losses


class Selection(nn.Module):
    """ALSN with its inputs and its objective, as a `CMAPKD.Config` says, on so many channels of both sides; keeps running means of the level losses."""

    def __init__(self, config, channels: int, levels: int):
        super().__init__()
        inputs = channels * (2 if config.alsn_inputs == "both" else 1)
        self.net = alsn.ALSN(inputs, levels, config.tau_alsn, "sigmoid" in config.literal)
        self.config = config
        self.register_buffer("means", torch.zeros(2, levels))

    def forward(self, s: Levels, t: Levels, active: Tensor) -> Tensor:
        """(batch, side, level) weights from the deepest levels of both sides; active: bool (side, level)."""
        given = {"teacher": [t], "student": [s], "both": [t, s]}[self.config.alsn_inputs]
        features = [x.detach() for g in given for x in (g.vision[:, -1], g.language[:, -1])]
        # dropout then falls on the joined batch, the same in every process
        joined = processes.gather(torch.cat(features, dim=1))
        return self.net(joined, active)[processes.rank() :: processes.count()]

    def term(
        self, w: Tensor, s: Levels, costs: Tensor, active: Tensor, entropy: bool, scale: float
    ) -> Tensor:
        """What ALSN minimises, by its objective; nothing of the student has a gradient from it. costs: (batch, side,
        level); entropy: whether it counts; scale: of the student's embeddings."""
        c = self.config
        if c.objective == "utility":
            return alsn.agreement(w, self.utilities(s, costs, active, scale))
        costs = costs.detach()
        if c.objective == "relative":
            costs = costs / self.running_means(costs, active).clamp(min=1e-12)
        return alsn.objective(w, costs, active, c.eta_entropy * entropy, c.kappa_spread)

    @torch.no_grad()
    def running_means(self, costs: Tensor, active: Tensor) -> Tensor:
        """(side, level) running means of level losses over steps and processes."""
        now = costs.mean(0)
        processes.average([now])
        if self.training:
            old = torch.where(self.means > 0, self.means, now)
            self.means.copy_(torch.where(active, FADING * old + (1 - FADING) * now, self.means))
        return torch.where(self.means > 0, self.means, now)

    def utilities(self, s: Levels, costs: Tensor, active: Tensor, scale: float) -> Tensor:
        """(batch, side, level) how well each level's gradient agrees with that of CLIP's loss, per sample, at the
        student's first tap of the same side; on images that the student does not learn from."""
        image, text = (contrast.gathered(x.embed) for x in (s.image, s.text))
        clip = contrast.pairs(contrast.cosines(image, text, scale))
        firsts = s.image.first, s.text.first
        wanted = torch.autograd.grad(clip, firsts, retain_graph=True)
        found = torch.zeros_like(costs)
        for side, first in enumerate(firsts):
            at = active[side].nonzero().flatten().tolist()
            grads = [torch.autograd.grad(costs[:, side, k].sum(), first, retain_graph=True)[0] for k in at]
            found[:, side, at] = alsn.utility(wanted[side], grads, self.config.tau_utility)
        return found.detach()
