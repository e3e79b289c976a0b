"""What a dual tower (CLIP, SigLIP) says of candidates, at its last and at an earlier block: DoLa on the vision side.

An earlier block is read by the same norm, pooling head and projection as the last. They only ever saw the last one's
features: what they make of an earlier block is off their training, as with any lens without tuning; look at the curve
over layers before trusting one.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..display import Panel, Shown
from ..image_files import rgb
from ..models.vlm import VLM
from .distributions import contrast, log_probabilities
from .settings import PLAN, Dola
from .words_of_candidates import check_names


@dataclasses.dataclass(frozen=True, repr=False)
class Candidates(Shown):
    """Log-probabilities of candidates, (image, candidate) each, natural logarithm.

    final, early: of the last block and of the earlier one. log_p: of their contrast, -inf for candidates that the
    threshold cut; where the contrast is off, `final`. layer: the earlier block; None where it is off.
    """

    names: tuple[str, ...]
    final: Tensor
    early: Tensor
    log_p: Tensor
    layer: int | None

    @property
    def left(self) -> Tensor:
        """(image,) how many candidates the threshold left; 1 means that the contrast changed nothing."""
        return (self.log_p > -math.inf).sum(dim=1)

    def ranking(self) -> Tensor:
        """(image, candidate) places in `names`, best first: those left by contrast, the others behind by `final`."""
        by_final = self.final.argsort(dim=1, descending=True, stable=True)
        again = self.log_p.gather(1, by_final).argsort(dim=1, descending=True, stable=True)
        return by_final.gather(1, again)

    def panel(self) -> Panel:
        images, count = self.log_p.shape
        best = [self.names[i] for i in self.ranking()[:5, 0].tolist()]
        facts = {
            "best": ", ".join(best) + (", ..." if images > 5 else ""),
            "left": f"{self.left.float().mean():.1f}",
        }
        return Panel(
            "Candidates", f"{count} candidates of {images} images, block {self.layer or 'last'}", facts
        )


def candidates(
    vlm: VLM, images, names: Sequence[str], dola: Dola = PLAN, template: str = "a photo of a {}."
) -> Candidates:
    """What a dual tower says of candidates: softmax of scaled cosines, contrasted with an earlier block.

    images: (image, 3, height, width) as `vlm.preprocess` makes them, or a list of PIL images. names: texts to put into
    `template`. dola: the switch `image`, `image_contrast_layer` and `image_apc_threshold` of the settings.
    The temperature is the model's own; the bias of a SigLIP cancels. A candidate is left when its cosine is within
    `apc_width` of the best: with a released SigLIP that is 0.02, and often one is left, which no contrast changes.

    >>> found = decode.candidates(vlm, images, ["cat", "dog", "fox"], decode.Dola(image_contrast_layer=3))
    >>> found.ranking()[:, 0], found.left
    """
    check_model(vlm)
    depth = vlm.image.depth
    layer = dola.image_layer(depth) if dola.image else None
    layers = (depth,) if layer is None else (layer, depth)
    logits = candidate_logits(vlm, images, names, layers, template)
    return contrasted(names, logits[-1], logits[0], layer, dola.image_apc_threshold)


def contrasted(
    names: Sequence[str], final: Tensor, early: Tensor, layer: int | None, alpha: float
) -> Candidates:
    """Candidates of logits (image, candidate) of the last block and of block `layer`; None leaves the contrast out."""
    final, early = log_probabilities(final), log_probabilities(early)
    log_p = final if layer is None else contrast(final, early, alpha)
    return Candidates(tuple(names), final, early, log_p, layer)


def candidate_logits(
    vlm: VLM, images, names: Sequence[str], layers: Sequence[int], template: str = "a photo of a {}."
) -> Tensor:
    """(layer, image, candidate) exp(t) cos(z_j, t_c) of blocks read through the model's own norm, pooling and projection.

    layers: 0 (the embedding) to the depth of the image tower, in any order; all in one pass. See `candidates`.
    Raises ValueError for layers that there are not, names that are no list, and a template without {}.
    """
    check_model(vlm)
    names, layers, depth = check_names(names), tuple(layers), vlm.image.depth
    if not layers or min(layers) < 0 or max(layers) > depth:
        raise ValueError(f"layers are {layers}; the image tower of {vlm.name} has layers 0 to {depth}")
    if "{}" not in template:
        raise ValueError(f"the template {template!r} has no {{}} for the candidate")
    with torch.no_grad(), vlm.autocast():
        texts = F.normalize(vlm.encode_text([template.format(name) for name in names]).float(), dim=-1)
        tokens, at, found = vlm.image.embed(pixels(vlm, images)), 0, {}
        for layer in sorted(set(layers)):
            tokens = vlm.image.run(tokens, start=at + 1, stop=layer)
            at, z = layer, vlm.image.project(vlm.image.pool(tokens))
            found[layer] = float(vlm.logit_scale) * F.normalize(z.float(), dim=-1) @ texts.T
    return torch.stack([found[layer] for layer in layers])


def check_model(vlm) -> None:
    if not isinstance(vlm, VLM):
        raise ValueError(
            f"candidates are scored by a dual tower, an image and a text tower (vlmlab.load of a CLIP or SigLIP); got "
            f"{type(vlm).__name__}"
        )


def pixels(vlm: VLM, images) -> Tensor:
    """(image, 3, height, width) on the model's device."""
    if not isinstance(images, Tensor):
        images = torch.stack([vlm.preprocess(rgb(image)) for image in images])
    return images.to(vlm.device)


def apc_width(logit_scale: float, alpha: float = 0.1) -> float:
    """How far below the best cosine a candidate may be and still be left by the threshold: ln(1 / alpha) / exp(t)."""
    return math.log(1 / alpha) / logit_scale if alpha else math.inf
