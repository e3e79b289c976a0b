"""Names of the places where a tower can be read (`models/families.py` says where a model keeps them).

A site is a tower (`image.`, `text.`, in other libraries' modules also `decoder.`, `qformer.`) and a name
below; layers follow in brackets and are block numbers, counted from 1 as everywhere in vlmlab: `[3]` is
block 3, `[-1]` the last block, `[2:6]` blocks 2 to 5, `[6:]` block 6 and all behind it, `[-4:]` the last four.
No bracket means all blocks.
Globs match names: `image.resid.*`, `*.attn.probs[-1]`.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence

from ..models.families import has

# site -> axes behind `sample`. `attn.q|k|v|z` are per head and before the output projection (k and v of
# grouped queries: those of their group), `probs` is the softmax, (query, token) = (who looks, who is looked
# at); `cross` is the same where who is looked at stands on another side: image tokens, words of an encoder.
# `attn.out`, `cross.out` and `mlp.out` are what is added to the residual stream: mid = pre + attn.out, post =
# mid + mlp.out. `embed` is the input of block 1, `final` the tower's features in the joint space, one row per
# branch (a method may have two).
ATTENTION: dict[str, tuple[str, ...]] = {
    "q": ("head", "token", "head_feature"),
    "k": ("head", "token", "head_feature"),
    "v": ("head", "token", "head_feature"),
    "z": ("head", "token", "head_feature"),
    "probs": ("head", "query", "token"),
}
SITES: dict[str, tuple[str, ...]] = {
    "embed": ("token", "feature"),
    "resid.pre": ("token", "feature"),
    "resid.mid": ("token", "feature"),
    "resid.post": ("token", "feature"),
    **{f"attn.{part}": axes for part, axes in ATTENTION.items()},
    "attn.out": ("token", "feature"),
    **{f"cross.{part}": axes for part, axes in ATTENTION.items()},
    "cross.out": ("token", "feature"),
    "mlp.act": ("token", "neuron"),
    "mlp.out": ("token", "feature"),
    "final": ("branch", "joint"),
}
KEYS = tuple(
    f"{name}.{part}" for name in ("attn", "cross") for part in ("k", "v", "probs")
)  # axis token: keys
ONCE = ("embed", "final")  # sites without layers


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One requested site: its tower, its name without tower, and block numbers (None: has no layers)."""

    tower: str
    site: str
    layers: tuple[int, ...] | None

    @property
    def name(self) -> str:
        return f"{self.tower}.{self.site}"


def usual() -> list[str]:
    """The sites of an image and a text tower, all blocks; a model may have fewer."""
    return [f"{tower}.{site}" for tower in ("image", "text") for site in SITES]


def is_tapped(site: str) -> bool:
    """Whether a site is read where the attention kernel is called."""
    name, _, part = site.partition(".")
    return name in ("attn", "cross") and part in ATTENTION


def path_of(site: str, tower) -> str | None:
    """Path of the submodule of a block in which a site is read; None when the tower's family has none."""
    if is_tapped(site):
        return tower.family.attention.get(site.partition(".")[0])
    return "" if site in ONCE else tower.family.sites.get(site, (None,))[0]


def blocks_with(site: str, tower) -> tuple[int, ...]:
    """Numbers of the blocks that have a site; a path that no block has is for the hook to complain about."""
    path = path_of(site, tower)
    if path is None:
        return ()
    found = tuple(n for n, block in enumerate(tower.blocks, start=1) if has(block, path))
    return found if site.startswith("cross.") or found else tuple(range(1, len(tower.blocks) + 1))


def names(towers: Mapping[str, object]) -> list[str]:
    """All sites of some towers: those of their family, those of the attention kernel, embed and final."""
    return [f"{kind}.{site}" for kind, tower in towers.items() for site in SITES if blocks_with(site, tower)]


def resolve(patterns: str | Sequence[str], towers: Mapping[str, object]) -> list[Wanted]:
    """Requested sites in the order asked for; what is asked twice is merged.

    towers: {"image": tower, "text": tower} with `blocks` and `family`. Raises ValueError for a pattern that
    matches nothing (lists the sites), bad brackets, or a block that does not exist.
    """
    patterns, there = [patterns] if isinstance(patterns, str) else list(patterns), names(towers)
    if not patterns:
        raise ValueError(f"no site was asked for; there are {', '.join(there)}")
    found: dict[str, Wanted] = {}
    for pattern in patterns:
        name, bracket = split_pattern(pattern)
        for match in matching(name, there):
            tower, site = match.split(".", 1)
            layers = None if site in ONCE else layers_of(site, towers[tower], bracket, pattern)
            if site in ONCE and bracket is not None:
                raise ValueError(f"{match} has no layers; leave out {bracket!r} in {pattern!r}")
            old = found[match].layers if match in found else ()
            found[match] = Wanted(tower, site, layers and tuple(sorted({*layers, *old})))
    return list(found.values())


def layers_of(site: str, tower, bracket: str | None, pattern: str) -> tuple[int, ...]:
    """Blocks that brackets ask for; without, all that have the site. ValueError for one that has not."""
    there, asked = blocks_with(site, tower), block_numbers(bracket, len(tower.blocks), pattern)
    if bracket is None:
        return there
    if lacking := sorted(set(asked) - set(there)):
        raise ValueError(f"{pattern!r}: blocks {lacking} have no {site}; those that have are {list(there)}")
    return asked


def split_pattern(pattern: str) -> tuple[str, str | None]:
    """'image.resid.post[2:6]' -> ('image.resid.post', '2:6')."""
    parts = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]*)\])?", pattern.strip())
    if not parts:
        raise ValueError(f"site {pattern!r} is not a name or name[layers], as in image.resid.post[2:6]")
    return parts[1], parts[2]


def matching(pattern: str, there: list[str]) -> list[str]:
    """Site names that a glob matches; ValueError lists what there is when none does."""
    matches = [name for name in there if fnmatch.fnmatchcase(name, pattern)]
    if not matches:
        raise ValueError(f"this model has no site {pattern!r}; it has {', '.join(there)}")
    return matches


def block_numbers(bracket: str | None, depth: int, pattern: str) -> tuple[int, ...]:
    """'2:6' -> (2, 3, 4, 5); '-1' -> (depth,). Ends are exclusive, -1 is the last block."""
    if bracket is None:
        return tuple(range(1, depth + 1))
    try:
        ends = [int(part) if part.strip() else None for part in bracket.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2, 3) or ends == [None]:
        raise ValueError(f"layers {bracket!r} in {pattern!r} are not a block number or a slice such as 2:6")

    def place(number: int, last: int) -> int:
        absolute = number if number > 0 else depth + 1 + number
        if number == 0 or not 1 <= absolute <= last:
            raise ValueError(
                f"block {number} in {pattern!r} does not exist; blocks are 1 to {depth}, -1 is the last"
            )
        return absolute

    if len(ends) == 1:
        return (place(ends[0], depth),)
    start, stop, step = [*ends, None][:3]
    step = 1 if step is None else step
    if step < 1:
        raise ValueError(f"step {step} in {pattern!r} must be at least 1")
    chosen = tuple(
        range(
            place(1 if start is None else start, depth),
            depth + 1 if stop is None else place(stop, depth + 1),
            step,
        )
    )
    if not chosen:
        raise ValueError(f"layers {bracket!r} in {pattern!r} are empty; [6:13] is blocks 6 to 12")
    return chosen
