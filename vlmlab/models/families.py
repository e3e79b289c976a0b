"""Families: where the models of other libraries keep what vlmlab looks at, as data.

A family describes one tower of a module that vlmlab did not load itself. `FAMILIES` is the list of those it
knows; the first whose paths a module has is used. A family for a module of one's own is passed to
`vlmlab.capture(..., family=...)`:

    Family("layers", {"resid.pre": ("", "in"), "resid.post": ("", "out"), "mlp.out": ("mlp", "out")},
           tokens="cls patch*")
"""

from typing import Any

from .families_of_pairs import PAIRS
from .families_of_systems import SYSTEMS
from .families_with_language import LANGUAGE
from .family import Family, Patches, Words, at, has

__all__ = ["FAMILIES", "Family", "Patches", "Words", "at", "families_of", "fits", "has"]

FAMILIES: dict[str, Family] = SYSTEMS | LANGUAGE | PAIRS
# what would fit a family by its paths and does not by what it does: paths that tell it, and why
REFUSED = {
    "Hiera": (
        ("unroll", "reroll", "blocks"),
        "its blocks pool tokens on the way and keep them in the order of windows, so that no token has one place",
    ),
}


def fits(module: Any, family: Family) -> bool:
    """Whether a module has all the paths of a family; cross-attention need not be in all blocks."""
    if not all(has(module, path) for path in (family.blocks, *family.marks, family.forward)):
        return False
    blocks = at(module, family.blocks)
    paths = {path for site, (path, _) in family.sites.items() if not site.startswith("cross.")}
    if not hasattr(blocks, "__len__") or not len(blocks):
        return False
    fitting = not family.block_types or type(blocks[0]).__name__ in family.block_types
    return fitting and all(has(blocks[0], path) for path in paths)


def families_of(module: Any) -> dict[str, Family]:
    """The towers of a module, {"image": Family, "text": Family}; ValueError when none is known."""
    for name, (marks, why) in REFUSED.items():
        if all(has(module, path) for path in marks):
            raise ValueError(f"{type(module).__name__} ({name}) cannot be captured: {why}")
    found: dict[str, Family] = {}
    for family in FAMILIES.values():
        if family.kind not in found and fits(module, family):
            found[family.kind] = family
    if not found:
        raise ValueError(
            f"{type(module).__name__} is of no family that vlmlab knows "
            f"({', '.join(FAMILIES)}); describe its blocks with a vlmlab.models.families.Family "
            "and pass family="
        )
    return found
