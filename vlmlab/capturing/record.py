"""The record: one labelled array per site, filled batch by batch."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import xarray as xr

from ..display import Panel, size, table
from ..token_labels import Grid, SampleRoles, coordinates, union
from .reducers import LABELLED, Axis, Kept

Key = tuple[int | None, int | None]  # layer and step, None where a site has none
GRIDS = {"": "grid", "cross": "cross_grid"}  # by side of an axis, the attribute [rows, columns]
OWN = "@"  # "token@image.attn.probs" is the token axis of that site alone


class Record(xr.Dataset):
    """An xarray.Dataset with one variable per site.

    Dims: layer (block number), sample, step (of a generation: 0 the prompt), head, query, token, and the last
    axis: feature (residual stream), head_feature (q, k, v, z), neuron (mlp.act), joint (final, with dim
    branch). Coordinates: role and index (and row, col of patches) on token, query_role and query_index on
    query, id and label on sample. In text role is (sample, token).

    NaN stands where a layer has no such token or, in networks whose layers differ in width, no such feature.

    A Dataset has one axis per name. Sites that keep other layers or tokens than the first one have
    their own axis inside, called "token@site"; `record["site"]` takes the suffix off again.
    """

    __slots__ = ()

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return plain(found) if isinstance(key, str) and key in self.data_vars else found

    def panel(self) -> Panel:
        rows = [
            (
                str(name),
                " × ".join(f"{n} {dim.split(OWN)[0]}" for dim, n in array.sizes.items()),
                spans(array.coords[d].values) if (d := axis(array, "layer")) else "–",
                roles_in(array),
                size(array.nbytes),
            )
            for name, array in self.data_vars.items()
        ]
        samples = self.sizes.get("sample", 0)
        total = size(sum(array.nbytes for array in self.data_vars.values()))
        line = f"{len(rows)} sites of {samples:,} samples, {total}"
        columns = ("site", "shape", "blocks", "roles", "size")
        return Panel("Record", line, {}, lambda: [table(columns, rows)])

    def __repr__(self) -> str:
        return f"{self.panel().text()}\n{super().__repr__()}"

    def _repr_html_(self) -> str:
        return self.panel().html() + super()._repr_html_()


def axis(array: xr.DataArray, name: str) -> str | None:
    """The dimension of this kind, whatever its site calls it."""
    return next((d for d in array.dims if str(d).split(OWN)[0] == name), None)


def spans(blocks: np.ndarray) -> str:
    """'1 to 12', or the numbers where some between are missing."""
    blocks = [int(b) for b in blocks]
    whole = len(blocks) > 1 and blocks == list(range(blocks[0], blocks[-1] + 1))
    return f"{blocks[0]} to {blocks[-1]}" if whole else ", ".join(map(str, blocks))


def roles_in(array: xr.DataArray) -> str:
    """'cls 1, patch 64': how many tokens of each role; names alone where that depends on the sample."""
    token = axis(array, "token")
    if token is None or (role := array.coords.get(token.replace("token", "role", 1))) is None:
        return "–"
    names, counts = np.unique(role.values.astype(str), return_counts=True)
    return ", ".join(f"{n} {c}" if role.ndim == 1 else str(n) for n, c in zip(names, counts))


def plain(x: xr.DataArray) -> xr.DataArray:
    """The array with ordinary axis names, whatever Dataset it comes from."""
    own = {name: name.split(OWN)[0] for name in [*x.dims, *x.coords] if OWN in str(name)}
    return x.rename(own) if own else x


@dataclasses.dataclass
class Column:
    """One site in the making: values (layer, sample, ...) or (sample, ...); of a generation step is the first
    axis behind sample.

    Where a layer or a step does not have a token, the values are NaN.
    """

    name: str
    layers: tuple[int, ...] | None
    dims: tuple[str, ...]  # behind sample
    axes: dict[str, Axis]
    shape: tuple[int, ...]
    values: np.ndarray | None = None

    def nbytes(self, dtype: np.dtype) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize

    def allocate(self, dtype: np.dtype) -> None:
        self.values = np.full(self.shape, np.nan, dtype)

    def write(self, start: int, key: Key, kept: Kept) -> None:
        """Put a batch of one layer and step into the rows from `start` on, every token at its label."""
        (layer, step), array, dims = key, kept.values.cpu().numpy(), self.dims
        target = self.values[self.layers.index(layer)] if self.layers else self.values
        target = target[start : start + len(array)]
        if step is not None:
            target, dims = target[:, step], dims[1:]
        if all(kept.axes[d].tokens == self.axes[d].tokens for d in self.axes) and target.shape == array.shape:
            target[...] = array
            return
        target[...] = np.nan
        places = [np.arange(n) for n in array.shape]
        for i, d in enumerate(dims, start=1):
            if d in self.axes:
                at = {token: p for p, token in enumerate(self.axes[d].tokens)}
                places[i] = np.array([at[token] for token in kept.axes[d].tokens], dtype=int)
        target[np.ix_(*places)] = array

    def signature(self, dim: str) -> object:
        """Two sites share an axis when this is equal."""
        if dim == "layer":
            return self.layers
        size = self.shape[self.dims.index(dim) - len(self.dims)]
        return self.axes.get(dim, size)


def plan_columns(first: dict[str, dict[Key, Kept]], keep: dict[str, object], samples: int) -> list[Column]:
    """Axes and shapes of all sites from what the first batch gave: {site: {(layer, step): Kept}}.

    An axis is the union over layers and steps, and over the sites that keep all tokens or share a reducer.
    """

    def group(name, dim, axis):
        return dim, axis.side, axis.whole or id(keep[name])

    tokens: dict[tuple, list] = {}
    for name, found in first.items():
        if len({k.dims for k in found.values()}) > 1:
            raise ValueError(
                f"the reducer of {name} returned other axes in other layers: "
                f"{sorted({k.dims for k in found.values()})}"
            )
        for kept in found.values():
            for dim, axis in kept.axes.items():
                tokens.setdefault(group(name, dim, axis), []).append(axis.tokens)
    columns = []
    for name, found in first.items():
        one = next(iter(found.values()))
        layers, steps = (tuple(dict.fromkeys(k for k in keys if k is not None)) for keys in zip(*found))
        axes = {
            d: dataclasses.replace(a, tokens=union(tokens[group(name, d, a)])) for d, a in one.axes.items()
        }
        widest = [max(sizes) for sizes in zip(*(kept.values.shape for kept in found.values()))]
        sizes = [len(axes[d].tokens) if d in axes else n for d, n in zip(one.dims, widest)][1:]
        shape = (*([len(layers)] if layers else []), samples, *([len(steps)] if steps else []), *sizes)
        dims = (*(["step"] if steps else []), *one.dims[1:])
        columns.append(Column(name, layers or None, dims, axes, shape))
    return columns


def assemble(
    columns: list[Column],
    samples: dict[str, np.ndarray],
    branches: list[str],
    roles: Mapping[str, SampleRoles],
    attrs: dict,
) -> Record:
    """The Dataset of filled columns. samples: coordinates on sample; rows and cols among them are the grids of
    the images' patches, which are in attrs where all have the same. roles: those that depend on the sample, of
    each side that has such."""
    grids = {side: attrs[name] for side, name in GRIDS.items() if name in attrs}
    grids |= {"": (samples["rows"], samples["cols"])} if "rows" in samples else {}
    suffixes: dict[str, dict] = {}  # dim -> {signature: suffix}; the first axis of a name needs none
    variables, coords = {}, {name: ("sample", value) for name, value in samples.items()}
    for column in columns:
        dims = []
        for dim in [*(["layer"] if column.layers else []), "sample", *column.dims]:
            if dim == "sample":
                dims.append(dim)
                continue
            known = suffixes.setdefault(dim, {})
            suffix = known.setdefault(column.signature(dim), f"{OWN}{column.name}" if known else "")
            dims.append(f"{dim}{suffix}")
            if dim == "layer":
                coords[f"layer{suffix}"] = np.array(column.layers)
            elif dim in LABELLED:
                coords |= token_coords(dim, suffix, column.axes[dim], roles, grids)
            elif dim == "step":
                coords[f"step{suffix}"] = np.arange(column.shape[column.dims.index(dim) - len(column.dims)])
            elif dim == "branch":
                coords["branch"] = np.array(branches)
        variables[column.name] = (dims, column.values)
    return Record(variables, coords, attrs)


def token_coords(
    dim: str, suffix: str, axis: Axis, roles: Mapping[str, SampleRoles], grids: Mapping[str, Grid]
) -> dict[str, tuple]:
    """role, index, row, col of an axis, prefixed with query_ on the query axis; where a whole axis holds words,
    EOS, padding or image tokens by sample, role is (sample, token), and so are row and col where images have
    grids of their own."""
    prefix, own = "" if dim == "token" else f"{dim}_", f"{dim}{suffix}"
    found = coordinates(axis.tokens, grids.get(axis.side))
    out = {f"{prefix}{k}{suffix}": (own if v.ndim == 1 else ("sample", own), v) for k, v in found.items()}
    if axis.whole and axis.side in roles:
        names = roles[axis.side].of(axis.tokens).text()
        out[f"{prefix}role{suffix}"] = (("sample", own), names)
    return out
