"""`edit`: write to named sites while a model runs, to ablate, to steer, to patch from a record.

Reading and writing are different verbs: `capture` never changes an output, `edit` is there to do so.
What can be written is the residual stream around a block and what a block adds to it.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from ..models.families import at
from ..token_labels import size, tokens_of
from .module_tower import ModuleTower, first, tokens_first, towers_of, unwrapped
from .reducers import Axis, Table
from .sites import SITES, resolve

EDITABLE = ("resid.pre", "resid.post", "attn.out", "mlp.out")
Edit = Callable[[Tensor, Table], Tensor]


class _Now(threading.local):
    """What capture tells open edits: the number of the batch's first sample, how many there are in all
    (None outside capture), where its texts end, and whether edits rest (the layout check is about the model
    as it is)."""

    first: int | None = None
    total: int | None = None
    eos: Tensor | None = None
    paused: bool = False


NOW = _Now()
_OPEN: list[nn.Module] = []  # first blocks of towers with open edits


@contextlib.contextmanager
def now(**values) -> Iterator[None]:
    """Set fields of NOW for the length of a block."""
    before = {name: getattr(NOW, name) for name in values}
    NOW.__dict__.update(values)
    try:
        yield
    finally:
        NOW.__dict__.update(before)


def is_edited(tower: nn.Module) -> bool:
    """Whether an `edit` is open on this tower."""
    return any(tower.blocks[0] is open_ for open_ in _OPEN)


@contextlib.contextmanager
def edit(model, edits: Mapping[str, Edit], family=None) -> Iterator[None]:
    """Change what named sites hold in every run of the model inside the block.

    model, family: as in `capture`. edits: {site with layers: fn}, e.g. {"image.resid.post[5]":
    ablate("prompt"), "image.attn.out[-1]": lambda x, table: x + 3 * direction}. fn(tensor, table) gets a copy
    of the tensor (batch, token, feature), `table` says which token is which, and returns a tensor of the same
    shape.
    Two edits of one site apply in the order given. `capture` inside the block sees edited values. Exact
    shortcuts of the towers are off meanwhile. Everything is removed at the end, after an exception too.

    Writable: resid.pre, resid.post, attn.out, mlp.out. The others raise ValueError: resid.mid is read at the
    norm behind which it goes on unchanged (edit attn.out), embed is resid.pre[1], and attention is not
    written. ValueError too for another shape, and at the end for an edit that no run has reached.
    In texts of another library's module, eos and pad are known inside `capture` only; elsewhere all tokens
    behind the first are of role "word".
    """
    towers = towers_of(model, family)
    writers = writers_of(edits, towers)
    used = [towers[kind] for kind in dict.fromkeys(w.tower.kind for w in writers)]
    with contextlib.ExitStack() as stack:
        for tower in towers.values():
            stack.callback(setattr, tower, "shortcuts", tower.shortcuts)
            tower.shortcuts = False
        for tower in used:
            _OPEN.append(tower.blocks[0])
            stack.callback(_close, tower)
            stack.enter_context(tower.watch())
            stack.enter_context(watched_eos(tower, [w for w in writers if w.tower is tower]))
        for writer in writers:
            stack.callback(writer.hook().remove)
        yield
    missed = [f"{w.name}[{w.layer}]" for w in writers if not w.hits]
    if missed:
        raise ValueError(
            f"the edits of {', '.join(missed)} were never applied: no run of that tower went "
            "through these blocks (or the model is compiled)"
        )


def _close(tower: nn.Module) -> None:
    _OPEN.pop(next(i for i, open_ in enumerate(_OPEN) if open_ is tower.blocks[0]))


def writers_of(edits: Mapping[str, Edit], towers: Mapping[str, nn.Module]) -> list["Writer"]:
    """One writer per site and block, in the order given; ValueError for a site that cannot be written."""
    out = []
    for pattern, fn in edits.items():
        for wanted in resolve(pattern, towers):
            if wanted.site not in EDITABLE:
                there = [s for s in EDITABLE if s in towers[wanted.tower].family.sites]
                raise ValueError(
                    f"{pattern!r} asks to edit {wanted.name}; what can be edited is "
                    f"{', '.join(f'{wanted.tower}.{site}' for site in there)}"
                )
            if not callable(fn):
                raise ValueError(
                    f"the edit of {pattern!r} is a {type(fn).__name__}, not a function "
                    "(tensor, table) -> tensor; patch(values) makes one of an array"
                )
            out += [Writer(towers[wanted.tower], wanted.site, n, fn) for n in wanted.layers]
    return out


@contextlib.contextmanager
def watched_eos(tower: nn.Module, writers: list["Writer"]) -> Iterator[None]:
    """Tell the writers of a text tower where EOS stands at the start of every run of blocks.

    Blocks only see the tensor; what `run` is given knows.
    """
    if tower.kind != "text" or isinstance(tower, ModuleTower):
        yield
        return
    run, before = tower.run, tower.__dict__.get("run")

    def watched(tokens, *args, **kwargs):
        for writer in writers:
            writer.eos = tokens.eos, size(tokens.layout)
        return run(tokens, *args, **kwargs)

    tower.run = watched
    try:
        yield
    finally:
        if before is None:
            del tower.run
        else:
            tower.run = before


@dataclasses.dataclass(eq=False)
class Writer:
    """One edit of one block. eos: (positions (batch,), tokens there) at the start of the text run."""

    tower: object
    site: str
    layer: int
    fn: Edit
    hits: int = 0
    eos: tuple[Tensor, int] | None = None

    @property
    def name(self) -> str:
        return f"{self.tower.kind}.{self.site}"

    def hook(self):
        """Register on the block; returns the handle."""
        path, side = self.tower.family.sites[self.site]
        module = at(self.tower.blocks[self.layer - 1], path)
        if side == "in":

            def replace(module, args, kwargs):
                if NOW.paused:
                    return None
                x = self.write(unwrapped(args, kwargs))
                return (
                    ((swapped(args[0], x), *args[1:]), kwargs)
                    if args
                    else (
                        args,
                        {name: x if i == 0 else value for i, (name, value) in enumerate(kwargs.items())},
                    )
                )

            return module.register_forward_pre_hook(replace, with_kwargs=True)

        def replace(module, args, output):
            return None if NOW.paused else swapped(output, self.write(first(output)))

        return module.register_forward_hook(replace)

    def write(self, x: Tensor) -> Tensor:
        """The edited tensor, on the device and in the dtype of the model."""
        self.hits += 1
        x = tokens_first(x, self.tower.family)
        out, where = self.fn(x.clone(), self.table()), f"the edit of {self.name}[{self.layer}]"
        if not isinstance(out, Tensor) or out.shape != x.shape:
            what = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"{where} returned {what}; expected a tensor of shape {tuple(x.shape)} "
                "(batch, token, feature)"
            )
        return tokens_first(out.to(x), self.tower.family)  # swapped back: the same two axes

    def table(self) -> Table:
        layout, eos = self.tower.layouts[self.layer], NOW.eos if self.tower.kind == "text" else None
        if self.eos is not None:  # tokens inserted since the start of the run stand before EOS
            eos = self.eos[0] + (size(layout) - self.eos[1])
        axis = Axis(tokens_of(layout), whole=True)
        return Table(self.name, self.layer, ("sample", *SITES[self.site]), axis, eos)


def swapped(given, x: Tensor):
    """What a module took or returned, a tensor or a list or tuple that begins with one, with x instead."""
    return x if isinstance(given, Tensor) else type(given)([x, *given[1:]])


def ablate(*roles: str, values: str | xr.DataArray | np.ndarray | Tensor = "mean") -> Edit:
    """Edit that takes the information out of the tokens of these roles (none named: of all tokens).

    values: what stands there instead. "mean": the token's mean over the samples of the batch, so the result
    depends on the batch; "zero": zeros; a record's array as in `patch`: its mean over samples, which does
    not. Zero tokens still receive attention: their key is what the norm's and the projection's biases give.
    ValueError when a block has no token of a role, or for "mean" of a batch of one, which changes nothing.
    """
    if isinstance(values, str) and values not in ("mean", "zero"):
        raise ValueError(f"values {values!r} must be 'mean', 'zero' or an array")

    def function(x: Tensor, table: Table) -> Tensor:
        chosen = mask_of(table, x, roles)
        if not isinstance(values, str):
            found, tokens = rows_of(values, table)
            return placed(x, table, found.mean(axis=0, keepdims=True), tokens, chosen)
        if values == "mean" and len(x) == 1:
            raise ValueError(
                f"the mean over one sample is that sample: ablating {table.site} would change "
                "nothing; give a larger batch, values='zero' or values=record[site]"
            )
        return torch.where(chosen[..., None], x.mean(dim=0, keepdim=True) if values == "mean" else 0.0, x)

    return function


def patch(values: xr.DataArray | np.ndarray | Tensor, *roles: str) -> Edit:
    """Edit that puts recorded values in: `patch(acts["image.resid.post"])`.

    values: a record's array, with or without dim layer (the edited block's is taken), whose tokens go to
    the tokens with the same role and index while all others stay as they are; or a plain array (sample,
    token, feature) with all tokens. One sample goes to all; otherwise samples are matched by position:
    inside `capture` with those of its data, elsewhere with those of the batch. roles: only these.
    ValueError for a missing block or token, NaN, or another number of samples.
    """

    def function(x: Tensor, table: Table) -> Tensor:
        found, tokens = rows_of(values, table)
        return placed(x, table, rows_for(found, len(x), table), tokens, mask_of(table, x, roles))

    return function


def mask_of(table: Table, x: Tensor, roles: tuple[str, ...]) -> Tensor:
    """(sample or 1, token) true at the tokens of these roles, at all when none is named."""
    place, names = torch.arange(x.shape[1], device=x.device), np.array([t[0] for t in table.axis.tokens])
    if not roles:
        return torch.ones_like(place, dtype=torch.bool)[None]
    chosen = torch.zeros(1, len(names), dtype=torch.bool, device=x.device)
    for role in roles:
        if table.eos is not None and role in ("word", "eos", "pad"):
            words, eos = torch.tensor(names == "word", device=x.device), table.eos.to(x.device)[:, None]
            side = {"word": place < eos, "eos": place == eos, "pad": place > eos}[role]
            chosen = chosen | words & side
        elif role in names:
            chosen = chosen | torch.tensor(names == role, device=x.device)
        else:
            raise ValueError(
                f"{table.site}[{table.layer}] has no token of role {role!r}; it has "
                f"{', '.join(dict.fromkeys(names.tolist()))}; name blocks in brackets"
            )
    return chosen


def rows_of(values, table: Table) -> tuple[np.ndarray, list | None]:
    """(sample, token, feature) of the edited block, and its tokens (None: in the order of the model's)."""
    if not isinstance(values, xr.DataArray):
        values = values.detach().float().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        return values, None
    if "layer" in values.dims:
        if table.layer not in values["layer"]:
            raise ValueError(
                f"the values to put into {table.site}[{table.layer}] are of blocks "
                f"{values['layer'].values.tolist()}"
            )
        values = values.sel(layer=table.layer)
        if "token" in values.dims:  # those that only other blocks have
            values = values.dropna("token", how="all")
    if "sample" not in values.dims:
        values = values.expand_dims("sample")
    if set(values.dims) != {"sample", "token", "feature"} or "role" not in values.coords:
        raise ValueError(
            f"the values to put into {table.site}[{table.layer}] have dims {values.dims}; "
            "expected sample, token (with role and index) and feature, as captured"
        )
    role = values["role"].values.tolist()
    if values["role"].ndim == 2:  # text: word, eos and pad are one run of tokens
        role = ["word" if r in ("eos", "pad") else r for r in role[0]]
    tokens = list(zip(role, values["index"].values.tolist()))
    return values.transpose("sample", "token", "feature").values, tokens


def rows_for(found: np.ndarray, batch: int, table: Table) -> np.ndarray:
    """The rows of this batch."""
    expected = batch if NOW.first is None else NOW.total
    if len(found) not in (1, expected):
        raise ValueError(
            f"{len(found)} samples are to be put into {table.site}[{table.layer}], but the "
            f"model runs {expected}; give as many, or one for all"
        )
    if len(found) == 1 or NOW.first is None:
        return found
    return found[NOW.first : NOW.first + batch]


def placed(x: Tensor, table: Table, found: np.ndarray, tokens: list | None, chosen: Tensor) -> Tensor:
    """x with the found values at their tokens where `chosen`."""
    here = {token: place for place, token in enumerate(table.axis.tokens)}
    where = f"{table.site}[{table.layer}]"
    if found.ndim != 3 or found.shape[2] != x.shape[2] or (tokens is None and found.shape[1] != x.shape[1]):
        raise ValueError(
            f"values of shape {found.shape} do not fit {where}, (sample, token, feature) = {tuple(x.shape)}"
        )
    if tokens is not None and (lost := [t for t in tokens if t not in here]):
        raise ValueError(f"{where} has no token {lost[0][0]}[{lost[0][1]}] to put values at")
    places = list(range(x.shape[1])) if tokens is None else [here[t] for t in tokens]
    put = torch.as_tensor(np.array(found)).to(x)
    mask = chosen[:, places, None].expand(len(x), len(places), 1)
    if (put.isnan().any(dim=-1, keepdim=True) & mask).any():
        raise ValueError(
            f"the values to put into {where} hold NaN: tokens that the record did not keep "
            "there; choose others with roles"
        )
    x = x.clone()
    x[:, places] = torch.where(mask, put, x[:, places])
    return x
