"""Reading hooks: what happens inside the model while a batch runs."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..models.families import at
from ..token_labels import size, tokens_of
from .attention_tap import Attention, attention_tap
from .module_tower import first, tokens_first, unwrapped
from .record import Column
from .reducers import Axis, Kept, Table, apply
from .sites import SITES, TAPPED, Wanted
from .sources import Source


@dataclasses.dataclass
class Hooks:
    """Reading hooks on one tower: open while the `with` block runs, gone afterwards, exception or not.

    They return nothing (whatever a hook returns would replace the activation; `token_first` is the one
    exception) and copy what they keep.
    """

    source: Source
    wanted: list[Wanted]
    keep: dict[str, Callable | None]
    dtype: torch.dtype
    eos: Tensor | None = None  # of the current batch, at the last block

    def __post_init__(self):
        self.kept: dict[tuple[str, int | None], Kept] = {}
        self.ends: list[np.ndarray] = []
        self.block: int | None = None  # the block that is running now
        self.sites = {w.site: w for w in self.wanted}

    def __enter__(self) -> "Hooks":
        self.kept.clear()
        self.stack = contextlib.ExitStack()
        try:
            self.stack.enter_context(self.source.tower.watch())  # first: labels before values
            if any(site in TAPPED for site in self.sites):
                self.stack.enter_context(attention_tap(self.on_attention))
                self._mark_blocks()
            for wanted in self.wanted:
                if wanted.site in self.source.tower.family.sites or wanted.site == "embed":
                    self._hook_blocks(wanted)
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.stack.close()
        self.block = None

    def _add(self, handle) -> None:
        self.stack.callback(handle.remove)

    def _mark_blocks(self) -> None:
        """Know which block an attention belongs to."""
        for layer, block in enumerate(self.source.tower.blocks, start=1):

            def enter(module, args, layer=layer):
                self.block = layer

            def leave(module, args, output):
                self.block = None

            self._add(block.register_forward_pre_hook(enter))
            self._add(block.register_forward_hook(leave))
            for module in block.modules():
                if isinstance(module, nn.MultiheadAttention) and module.batch_first:
                    self._add(module.register_forward_pre_hook(token_first))

    def _hook_blocks(self, wanted: Wanted) -> None:
        tower = self.source.tower
        path, side = ("", "in") if wanted.site == "embed" else tower.family.sites[wanted.site]
        for layer in wanted.layers or (1,):
            module, label = at(tower.blocks[layer - 1], path), layer if wanted.layers else None
            if side == "in":

                def look(module, args, kwargs, label=label):
                    self.take(wanted.site, label, tokens_first(unwrapped(args, kwargs), tower.family))

                self._add(module.register_forward_pre_hook(look, with_kwargs=True))
            else:

                def look(module, args, output, label=label):
                    self.take(wanted.site, label, tokens_first(first(output), tower.family))

                self._add(module.register_forward_hook(look))

    def on_attention(self, call: Attention) -> None:
        """Keep what is asked of one attention; those outside a block (pooling) are not part of it."""
        for site in TAPPED:
            wanted = self.sites.get(site)
            if wanted and self.block in wanted.layers:
                self.take(site, self.block, getattr(call, site.removeprefix("attn.")))

    def take(self, site: str, layer: int | None, x: Tensor) -> None:
        """Reduce one tensor on the device and keep a copy of the result."""
        name = self.sites[site].name
        if (name, layer) in self.kept:
            raise RuntimeError(
                f"{name} of block {layer} was hit twice in one batch: the model runs its "
                "tower more than once, so a record would mix the runs"
            )
        x, table = self.labelled(site, layer, x)
        kept = apply(self.keep[name], x, table)
        kept.values = kept.values.detach().to(self.dtype, copy=True)
        self.kept[name, layer] = kept

    def labelled(self, site: str, layer: int | None, x: Tensor) -> tuple[Tensor, Table]:
        """The tensor, cut behind the longest text, and its token table."""
        tower, dims = self.source.tower, ("sample", *SITES[site])
        layout, eos = tower.layouts[layer or 1], None
        tokens = tokens_of(layout)
        axes = [axis for axis, dim in enumerate(dims) if dim in ("token", "query")]
        if x.ndim != len(dims) or any(x.shape[axis] < len(tokens) for axis in axes):
            raise ValueError(
                f"{self.sites[site].name} of block {layer or 1} has shape {tuple(x.shape)}; "
                f"expected {dims} with the {len(tokens)} tokens that enter the block (attention "
                "over windows, or a family that does not describe this module)"
            )
        if self.eos is not None:
            # EOS stands so many places earlier as tokens are inserted in later blocks.
            later = size(tower.layouts.get(tower.depth, layout)) - size(layout)
            eos = self.eos - later
            tokens = tokens if self.source.longest is None else tokens[: self.source.longest - later]
        for axis in axes:
            x = x.narrow(axis, 0, len(tokens))
        return x, Table(self.sites[site].name, layer, dims, Axis(tokens, whole=True), eos)

    def kept_of(self, wanted: Wanted, output: dict[str, Tensor]) -> dict[int | None, Kept]:
        """What one site kept of this batch, by layer."""
        if wanted.site == "final":
            values = torch.stack(list(output.values()), dim=1).to(self.dtype)
            return {None: Kept(values, ("sample", "branch", "joint"), {})}
        return {layer: self.kept[wanted.name, layer] for layer in wanted.layers or (None,)}

    def write(self, columns: list[Column], start: int, output: dict[str, Tensor]) -> None:
        """Copy this batch into the record."""
        for column, wanted in zip(columns, self.wanted):
            for layer, kept in self.kept_of(wanted, output).items():
                column.write(start, layer, kept)
        if self.eos is not None:
            last = tokens_of(self.source.tower.layouts[self.source.tower.depth])
            self.ends.append(self.eos.cpu().numpy() - last.index(("word", 0)))

    def eos_in_words(self) -> np.ndarray | None:
        """(sample,) index of EOS within the run of words; None for images."""
        return np.concatenate(self.ends) if self.ends else None

    def check_hit(self) -> None:
        """ValueError when a requested site was never hit, with what fired and the usual reasons."""
        for w in self.wanted:
            missing = [layer for layer in w.layers or (None,) if (w.name, layer) not in self.kept]
            if w.site == "final" or not missing:
                continue
            fired = ", ".join(self.describe(list(self.kept))) if self.kept else "nothing"
            why = (
                "the attention of this model does not call torch's scaled_dot_product_attention (eager or "
                "flash-attn code, or a compiled model)"
                if w.site in TAPPED
                else "the block does not run that submodule (a compiled or fused model?)"
            )
            raise ValueError(f"{w.name} was never hit in blocks {missing}: {why}; fired: {fired}")

    def check_roles(self) -> None:
        """ValueError when a reducer looks for a role that no layer has."""
        there = {role for layout in self.source.tower.layouts.values() for role, _ in layout}
        there |= {"eos", "pad"} if self.eos is not None else set()
        for name, reducer in self.keep.items():
            if wrong := set(getattr(reducer, "roles", ())) - there:
                raise ValueError(
                    f"{reducer.name} of {name}: no token has role {', '.join(sorted(wrong))}; "
                    f"the {self.source.kind} tower has {', '.join(sorted(there))}"
                )

    def describe(self, names: Sequence[tuple] = ()) -> list[str]:
        """'image.resid.post[6,7]' of what was kept, or of the sites asked for."""
        keys = names or [(w.name, layer) for w in self.wanted for layer in w.layers or (None,)]
        layers: dict[str, list] = {}
        for name, layer in keys:
            layers.setdefault(name, []).append(layer)
        return [name if ls == [None] else f"{name}[{','.join(map(str, ls))}]" for name, ls in layers.items()]


def token_first(module: nn.Module, args: tuple) -> tuple | None:
    """The same input, stored as nn.MultiheadAttention will transpose it: (token, batch, width) in memory.

    Without its fast path the module projects a strided view, which torch does token by token when no
    gradient is needed: up to twice the time of the whole forward (benchmarks/capture.py shows it).
    """
    if len(args) < 3 or not (args[0] is args[1] is args[2]) or args[0].ndim != 3:
        return None
    x = args[0].transpose(0, 1).contiguous().transpose(0, 1)
    return (x, x, x, *args[3:])
