"""Images of different sizes in one batch (NaFlex): which tokens are pieces of an image, and where in it."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..models.families import Patches
from ..token_labels import Layout, SampleRoles, tokens_of


def of_patches(patches: Patches, batch: Mapping[str, Tensor], layout: Layout) -> SampleRoles:
    """Roles of an image tower's tokens in a batch: as the layout says, pad where the mask hides a patch."""
    tokens, shown = tokens_of(layout), batch[patches.mask].bool()
    names = tuple(dict.fromkeys([*(role for role, _ in tokens), "pad"]))
    codes = torch.tensor([names.index(role) for role, _ in tokens], device=shown.device).repeat(len(shown), 1)
    places = [place for place, (role, _) in enumerate(tokens) if role == "patch"]
    if shown.ndim != 2 or shown.shape[1] != len(places):
        raise ValueError(
            f"{patches.mask} has shape {tuple(shown.shape)}; expected (sample, {len(places)}), one for each patch"
        )
    codes[:, places] = codes[:, places].masked_fill(~shown, names.index("pad"))
    return SampleRoles(tokens, names, codes)


def grids_of(patches: Patches, data: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """{"rows": (sample,), "cols": (sample,)}: the grids of images whose patches follow their rows; {} else."""
    if patches.sizes in data:
        rows, cols = data[patches.sizes].cpu().numpy().T
        return {"rows": rows.astype(int), "cols": cols.astype(int)}
    if patches.places not in data:
        return {}
    shown, places = (data[name].cpu().numpy() for name in (patches.mask, patches.places))
    rows, cols = (np.where(shown, places[..., i], -1).max(axis=1) + 1 for i in (0, 1))
    number = np.arange(shown.shape[1])
    in_rows = (number // cols[:, None] == places[..., 0]) & (number % cols[:, None] == places[..., 1])
    return {"rows": rows, "cols": cols} if (in_rows | ~shown.astype(bool)).all() else {}
