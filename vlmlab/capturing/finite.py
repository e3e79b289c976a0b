"""Numbers that are none: overflows in half precision, damaged weights, a record's type that is too narrow."""

import dataclasses

import torch
from torch import Tensor

from ..precision import not_finite
from .reducers import Table


@dataclasses.dataclass(frozen=True)
class Finite:
    """What is known of one site in one batch, on the device: whole, whether all it held was finite; fits, whether
    what is kept of it is within the record's type; kind, the type of the model there."""

    whole: Tensor
    fits: Tensor
    kind: torch.dtype


def check_finite(hooks, output: dict[str, Tensor]) -> None:
    """ValueError where a site or the output held NaN or infinity, or the record's type is too narrow."""
    for (name, layer, step), found in hooks.finite.items():
        where = name if layer is None else f"{name}[{layer}]"
        where += "" if step is None else f" in step {step}"
        if not found.whole:
            raise ValueError(f"{where} holds NaN or infinity: {why_not(hooks.source, found.kind)}")
        if not found.fits:
            raise ValueError(too_narrow(where, hooks.dtype))
    tower = hooks.source.kind
    for branch, x in output.items():
        if not x.isfinite().all():
            raise ValueError(
                f"the output {branch!r} of the {tower} tower holds NaN or infinity: {why_not(hooks.source, x.dtype)}"
            )
        if "final" in hooks.sites and not x.to(hooks.dtype).isfinite().all():
            raise ValueError(too_narrow(f"{tower}.final", hooks.dtype))


def too_narrow(where: str, kind: torch.dtype) -> str:
    return (
        f"{where} holds numbers above {torch.finfo(kind).max:,.0f}, the largest of {name_of(kind)}; capture with "
        "dtype='float32', or keep less with keep="
    )


def why_not(source, kind: torch.dtype) -> str:
    """Why a number of a model may be none: its weights, or its precision."""
    if (name := not_finite(source.weights())) is not None:
        return f"the weight {name} does; load the model from an undamaged file"
    if kind in (torch.float16, torch.bfloat16):
        return (
            f"the model runs in {name_of(kind)}, which ends at {torch.finfo(kind).max:.4g}; run it in bfloat16 or "
            "float32"
        )
    return "its weights do not, so it comes about in the model; capture earlier blocks to find where"


def name_of(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def shown(x: Tensor, table: Table) -> Tensor:
    """Which entries are finite, or belong to padding, along the axes of x."""
    fine = x.isfinite()
    for axis, dim in enumerate(table.dims):
        roles = table.roles.get(dim)
        if roles is not None and "pad" in roles.names:
            shape = [n if i in (0, axis) else 1 for i, n in enumerate(x.shape)]
            fine = fine | (roles.codes == roles.names.index("pad")).to(x.device).view(shape)
    return fine
