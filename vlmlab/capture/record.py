"""The record: one labelled array per site, filled batch by batch."""

import dataclasses

import numpy as np
import xarray as xr

from ..token_labels import coordinates, text_roles, union
from .reducers import LABELLED, Axis, Kept

OWN = "@"  # "token@image.attn.probs" is the token axis of that site alone


class Record(xr.Dataset):
    """An xarray.Dataset with one variable per site.

    Dims: layer (block number), sample, head, query, token, and the last axis: feature (residual stream),
    head_feature (q, k, v, z), neuron (mlp.act), joint (final, with dim branch). Coordinates: role and
    index (and row, col of patches) on token, query_role and query_index on query, id and label on sample.

    A Dataset has one axis per name. Sites that keep other layers or tokens than the first one have
    their own axis inside, called "token@site"; `record["site"]` takes the suffix off again.
    """

    __slots__ = ()

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return plain(found) if isinstance(key, str) and key in self.data_vars else found


def plain(x: xr.DataArray) -> xr.DataArray:
    """The array with ordinary axis names, whatever Dataset it comes from."""
    own = {name: name.split(OWN)[0] for name in [*x.dims, *x.coords] if OWN in str(name)}
    return x.rename(own) if own else x


@dataclasses.dataclass
class Column:
    """One site in the making: values (layer, sample, ...) or (sample, ...).

    Where a layer does not have a token, the values are NaN.
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

    def write(self, start: int, layer: int | None, kept: Kept) -> None:
        """Put a batch of one layer into the rows from `start` on, every token at its label."""
        array = kept.values.cpu().numpy()
        target = self.values[self.layers.index(layer)] if self.layers else self.values
        target = target[start : start + len(array)]
        if all(kept.axes[d].tokens == self.axes[d].tokens for d in self.axes):
            target[...] = array
            return
        target[...] = np.nan
        places = [np.arange(n) for n in target.shape]
        for i, d in enumerate(self.dims, start=1):
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


def plan_columns(
    first: dict[str, dict[int | None, Kept]], keep: dict[str, object], samples: int
) -> list[Column]:
    """Axes and shapes of all sites from what the first batch gave: {site: {layer: Kept}}.

    An axis is the union over layers, and over the sites that keep all tokens or share a reducer.
    """

    def group(name, dim, axis):
        return dim, axis.whole or id(keep[name])

    tokens: dict[tuple, list] = {}
    for name, by_layer in first.items():
        if len({k.dims for k in by_layer.values()}) > 1:
            raise ValueError(
                f"the reducer of {name} returned other axes in other layers: "
                f"{sorted({k.dims for k in by_layer.values()})}"
            )
        for kept in by_layer.values():
            for dim, axis in kept.axes.items():
                tokens.setdefault(group(name, dim, axis), []).append(axis.tokens)
    columns = []
    for name, by_layer in first.items():
        one = next(iter(by_layer.values()))
        layers = None if None in by_layer else tuple(by_layer)
        axes = {d: Axis(union(tokens[group(name, d, a)]), a.whole) for d, a in one.axes.items()}
        sizes = [len(axes[d].tokens) if d in axes else n for d, n in zip(one.dims, one.values.shape)][1:]
        shape = (*([len(layers)] if layers else []), samples, *sizes)
        columns.append(Column(name, layers, one.dims[1:], axes, shape))
    return columns


def assemble(
    columns: list[Column],
    samples: dict[str, np.ndarray],
    branches: list[str],
    eos: np.ndarray | None,
    attrs: dict,
) -> Record:
    """The Dataset of filled columns. samples: coordinates on sample. eos: (sample,) index of EOS within the
    run of words, text only."""
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
                coords |= token_coords(dim, suffix, column.axes[dim], eos)
            elif dim == "branch":
                coords["branch"] = np.array(branches)
        variables[column.name] = (dims, column.values)
    return Record(variables, coords, attrs)


def token_coords(dim: str, suffix: str, axis: Axis, eos: np.ndarray | None) -> dict[str, tuple]:
    """role, index, row, col of an axis, prefixed with query_ on the query axis; in text, where a whole axis
    holds words, EOS and padding by sample, role is (sample, token)."""
    prefix = "" if dim == "token" else f"{dim}_"
    out = {f"{prefix}{k}{suffix}": (f"{dim}{suffix}", v) for k, v in coordinates(axis.tokens).items()}
    if axis.whole and eos is not None:
        out[f"{prefix}role{suffix}"] = (("sample", f"{dim}{suffix}"), text_roles(axis.tokens, eos))
    return out
