"""Which token is which: layouts, their strings, one axis for layers that hold different tokens.

A layout is runs of (role, count), in order; a token is (role, index within its role). As a string:
"cls prompt:5 patch*", where * takes what is left. Roles: cls, distill (DeiT's second class token), register,
prompt, patch, latent (a learned query token, as of a Q-Former); sos, prompt, word; new (a generated token). In
text a run of words holds EOS and padding too, among patches of images of different sizes there is padding, and
`SampleRoles` say which is which in every sample.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

Layout = tuple[tuple[str, int], ...]
Token = tuple[str, int]
Grid = tuple[int | np.ndarray, int | np.ndarray]  # rows and columns of patches, of all images or (sample,)
FIXED_ROLES = (
    "cls",
    "distill",
    "register",
    "prompt",
    "sos",
)  # they enter a tower without having seen the input


def parse_layout(text: str, total: int, empty: bool = False) -> Layout:
    """'cls prompt:5 patch*', 70 -> (("cls", 1), ("prompt", 5), ("patch", 64)).

    empty: whether * may take nothing. Raises ValueError when the string is malformed or does not fit `total` tokens.
    """
    runs = [re.fullmatch(r"([a-z]+)(?::(\d+)|(\*))?", part) for part in text.split()]
    stars = sum(bool(r and r[3]) for r in runs)
    if not runs or not all(runs) or stars > 1:
        raise ValueError(f"layout {text!r} is not words like 'cls prompt:5 patch*' with at most one *")
    fixed = sum(int(r[2] or 1) for r in runs if not r[3])
    if fixed > total or (not stars and fixed != total) or (stars and fixed == total and not empty):
        named = f"{fixed} and more" if stars else fixed
        raise ValueError(f"layout {text!r} names {named} tokens, but there are {total}")
    counted = ((r[1], total - fixed if r[3] else int(r[2] or 1)) for r in runs)
    return tuple((role, count) for role, count in counted if count)


def describe_layout(layout: Layout) -> str:
    """(("cls", 1), ("patch", 64)) -> 'cls patch:64'."""
    return " ".join(role if count == 1 else f"{role}:{count}" for role, count in layout)


def size(layout: Layout) -> int:
    """Tokens in a layout."""
    return sum(count for _, count in layout)


@functools.lru_cache(maxsize=256)
def tokens_of(layout: Layout) -> tuple[Token, ...]:
    """Every token as (role, index); a role in two runs goes on counting."""
    counted: dict[str, int] = {}
    out = []
    for role, count in layout:
        first = counted.get(role, 0)
        out += [(role, i) for i in range(first, first + count)]
        counted[role] = first + count
    return tuple(out)


def as_words(layout: Layout) -> Layout:
    """The layout of a text in which any place may hold any word, for example after padding on the left."""
    return tuple((role if role in ("prompt", "new") else "word", count) for role, count in layout)


def layouts_by_layer(
    given: str | Mapping[int, str], counts: Mapping[int, int], empty: bool = False
) -> dict[int, Layout]:
    """Layouts of all layers from one string, or from {first layer: string} where they change.

    empty: as in `parse_layout`. counts: tokens at the input of each block. {1: "cls patch*", 6: "cls prompt:5 patch*"} is MMRL's.
    """
    changes = {1: given} if isinstance(given, str) else dict(given)
    out = {}
    for layer, count in counts.items():
        since = max((start for start in changes if start <= layer), default=None)
        if since is None:
            raise ValueError(f"no layout for block {layer}; give one from block 1 on, got {changes}")
        try:
            out[layer] = parse_layout(changes[since], count, empty)
        except ValueError as e:
            raise ValueError(f"block {layer}: {e}") from e
    return out


def union(axes: Sequence[tuple[Token, ...]]) -> tuple[Token, ...]:
    """One axis that holds the tokens of all layers (or steps), in their order.

    A token that only some layers have stands behind the token it follows there, and behind those of its role
    with smaller numbers that do too; tokens of an axis that shares none with the others stand behind these.
    """
    distinct = sorted(dict.fromkeys(axes), key=len, reverse=True)
    merged = list(distinct[0])
    for tokens in distinct[1:]:
        have = set(merged)
        if have.isdisjoint(tokens):
            merged += tokens
            continue
        for before, token in zip([None, *tokens], tokens):
            if token not in have:
                place = 0 if before is None else merged.index(before) + 1
                while place < len(merged) and (token[0], -1) < merged[place] < token:
                    place += 1
                merged.insert(place, token)
                have.add(token)
    return tuple(merged)


def coordinates(tokens: Sequence[Token], grid: Grid | None = None) -> dict[str, np.ndarray]:
    """role and index, each (token,), and with a grid row and col of the patches, -1 elsewhere: (token,), or
    (sample, token) where images have grids of their own. Patches count along the rows; what does not fit a
    grid has none."""
    role, index = np.array([t[0] for t in tokens], dtype="U8"), np.array([t[1] for t in tokens], dtype=int)
    out, is_patch = {"role": role, "index": index}, role == "patch"
    if grid is None or not is_patch.any():
        return out
    rows, cols = (np.asarray(side)[..., None] for side in grid)
    there = is_patch & (index < rows * cols)
    if rows.ndim == 1 and index[is_patch].max() + 1 > rows[0] * cols[0]:
        return out
    return out | {"row": np.where(there, index // cols, -1), "col": np.where(there, index % cols, -1)}


def grid_by_shape(patches: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of so many square patches that cover an image exactly; None where none do."""
    rows = math.isqrt(max(0, patches * height // max(1, width)))
    fits = rows and patches % rows == 0 and rows * width == patches // rows * height
    return (rows, patches // rows) if fits else None


@dataclasses.dataclass(frozen=True)
class SampleRoles:
    """Roles of tokens that depend on the sample, as in texts of different lengths.

    tokens: labels of the columns. codes: (sample, token) numbers in `names`, a numpy array or a tensor.
    """

    tokens: tuple[Token, ...]
    names: tuple[str, ...]
    codes: Any

    def of(self, tokens: Sequence[Token]) -> "SampleRoles":
        """Those of an axis with these tokens; tokens that are not known here have the role of their label."""
        if tuple(tokens) == self.tokens:
            return self
        column = {token: place for place, token in enumerate(self.tokens)}
        fixed = [(place, role) for place, (role, i) in enumerate(tokens) if (role, i) not in column]
        names = tuple(dict.fromkeys([*self.names, *(role for _, role in fixed)]))
        codes = self.codes[:, [column.get(token, 0) for token in tokens]]
        for place, role in fixed:
            codes[:, place] = names.index(role)
        return SampleRoles(tuple(tokens), names, codes)

    def text(self) -> np.ndarray:
        """(sample, token) names; of numpy codes."""
        return np.array(self.names, dtype="U8")[self.codes]


def is_role(x: xr.DataArray, *roles: str, dim: str = "token") -> xr.DataArray:
    """Boolean mask of the tokens (or queries) that have one of these roles, (token,) or (sample, token).

    Raises ValueError when x has no labelled axis `dim` or no token of any of these roles.
    """
    name = "role" if dim == "token" else f"{dim}_role"
    if name not in x.coords:
        raise ValueError(
            f"the array has dims {x.dims} and no {name!r} coordinate; it does not come from "
            f"capture, or its {dim} axis was reduced away"
        )
    mask = x[name].isin(list(roles))
    if not mask.any():
        raise ValueError(f"no {dim} has role {' or '.join(roles)}; there are {', '.join(roles_of(x, dim))}")
    return mask


def roles_of(x: xr.DataArray, dim: str = "token") -> list[str]:
    """Roles on an axis, in order of first appearance."""
    return list(dict.fromkeys(x["role" if dim == "token" else f"{dim}_role"].values.ravel().tolist()))
