"""What the student of cmapkd minimises: its named terms with their weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import processes
from . import contrast, terms
from .builder import Levels

BALANCE_STEPS = 50
TERMS = ("intra_v", "intra_l", "align_single", "align_pyr", "rel_sample", "rel_layer", "task")


class StudentTerms(nn.Module):
    """The terms of the student that have a weight in a `CMAPKD.Config`; keeps their means over the first steps."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.register_buffer("sums", torch.zeros(2, len(TERMS)))  # sums, and how many

    def forward(
        self, s: Levels, t: Levels, costs: Tensor, w: Tensor, active: Tensor, scale: Tensor, logit_scale
    ) -> dict[str, Tensor]:
        """Name -> weighted term of these levels. costs, w: (batch, side, level); active: bool (side, level); scale: of
        the levels' cosines, logit_scale: of the embeddings'."""
        c, every = self.config, processes.gather
        sv, sl, tv, tl = (every(x) for x in (s.vision, s.language, t.vision, t.language))
        few = 4 if "quarter" in c.literal else 1
        alpha = terms.compatibility(*active, c.compatibility == "uniform")
        said = {
            "intra_v": (c.w_intra, lambda: terms.weighted(w[:, 0], costs[:, 0]) / few),
            "intra_l": (c.w_intra, lambda: terms.weighted(w[:, 1], costs[:, 1]) / few),
            "align_single": (
                c.w_align,
                lambda: self.single(sv[:, -1], sl[:, -1], tv[:, -1], tl[:, -1], scale),
            ),
            "align_pyr": (
                c.w_align * c.w_align_pyr,
                lambda: (
                    terms.literal_align((sv, sl), (tv, tl), alpha)
                    if "raw_products" in c.literal
                    else terms.align((sv, sl), (tv, tl), alpha, scale, c.T_kd)
                ),
            ),
            "rel_sample": (c.w_rel, lambda: self.samples(sv, sl, tv, tl)),
            "rel_layer": (
                c.w_rel * c.w_rel_layer * (active[0].sum() > 1).item(),
                lambda: self.layers(sv[:, active[0]], tv[:, active[0]]),
            ),
            "task": (c.w_task, lambda: self.task(s, sv, sl, logit_scale)),
        }
        return {name: self.balanced(name, weight, term()) for name, (weight, term) in said.items() if weight}

    def single(self, v: Tensor, t: Tensor, tv: Tensor, tt: Tensor, scale: Tensor) -> Tensor:
        """CLIP's loss of P5 and L4 (batch, C), or of each with the teacher's other side."""
        v, t, tv, tt = (F.normalize(x, dim=-1) for x in (v, t, tv, tt))
        if self.config.align_single == "student":
            return contrast.pairs(contrast.cosines(v, t, scale))
        return sum(contrast.pairs(contrast.cosines(a, b, scale)) for a, b in ((v, tt), (tv, t))) / 2

    def samples(self, sv: Tensor, sl: Tensor, tv: Tensor, tl: Tensor) -> Tensor:
        """The relation of samples at the deepest levels."""
        of = self.config.relation_of
        if of == "concat":
            both = (torch.cat([v[:, -1], x[:, -1]], dim=1) for v, x in ((sv, sl), (tv, tl)))
            return terms.relation_of_samples(*both)
        sides = [(sv, tv)] * (of != "L4") + [(sl, tl)] * (of != "P5")
        return sum(terms.relation_of_samples(a[:, -1], b[:, -1]) for a, b in sides) / len(sides)

    def layers(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The relation of the levels of vision."""
        if "batch_means" in self.config.literal:
            return terms.literal_relation_of_levels(student, teacher)
        cka = self.config.relation_levels == "cka"
        return (terms.relation_of_levels_cka if cka else terms.relation_of_levels)(student, teacher)

    def task(self, s: Levels, sv: Tensor, sl: Tensor, logit_scale) -> Tensor:
        """CLIP's loss on the embeddings that are deployed; in the plan on P5 and L4, which are not."""
        if "heads_only" in self.config.literal:
            heads = (F.normalize(x[:, -1], dim=-1) for x in (sv, sl))
            return contrast.pairs(contrast.cosines(*heads, 1 / 0.07))
        image, text = (contrast.gathered(x.embed) for x in (s.image, s.text))
        return contrast.pairs(contrast.cosines(image, text, logit_scale))

    def balanced(self, name: str, weight: float, value: Tensor) -> Tensor:
        """A weighted term, with balance relative to its mean over its first steps."""
        if self.config.balance == "none":
            return weight * value
        sums, at = self.sums, TERMS.index(name)
        if self.training and sums[1, at] < BALANCE_STEPS:
            now = value.detach().clone()
            processes.average([now])
            sums[0, at] += now
            sums[1, at] += 1
        return weight * value / (sums[0, at] / sums[1, at].clamp(min=1)).clamp(min=1e-12).clone()
