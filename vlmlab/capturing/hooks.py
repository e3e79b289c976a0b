"""Reading hooks: what happens inside the model while a batch runs."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..models.families import at
from ..token_labels import SampleRoles, grid_by_shape
from .attention_tap import Attention, attention_tap
from .finite import Finite, shown
from .module_tower import first, tokens_at, tokens_first, unwrapped
from .record import Column, Key
from .reducers import LABELLED, Axis, Kept, Table, apply
from .running import Running
from .sites import ATTENTION, KEYS, SITES, Wanted, is_tapped
from .sources import Source


@dataclasses.dataclass
class Hooks:
    """Reading hooks on one tower: open while the `with` block runs, gone afterwards, exception or not.

    They return nothing (whatever a hook returns would replace the activation; `in_memory_order` is the one
    exception) and copy what they keep.
    """

    source: Source
    wanted: list[Wanted]
    keep: dict[str, Callable | None]
    dtype: torch.dtype
    batch: object = None  # that runs now

    def __post_init__(self):
        self.kept: dict[tuple[str, int | None, int | None], Kept] = {}  # by name, layer, step
        self.known: dict[str, SampleRoles | None] = {}  # of this batch, by side
        self.aligned: dict[Axis, SampleRoles] = {}  # the same by axis
        self.shapes: dict[tuple[str, int | None], torch.Size] = {}  # by site and layer
        self.there: set[str] = set()  # roles
        self.finite: dict[tuple[str, int | None, int | None], Finite] = {}
        self.sites = {w.site: w for w in self.wanted}

    @property
    def generates(self) -> Mapping | None:
        return getattr(self.source.tower, "generate", None)

    def __enter__(self) -> "Hooks":
        self.kept.clear()
        self.known.clear()
        self.aligned.clear()
        self.shapes.clear()
        self.finite.clear()
        self.stack = contextlib.ExitStack()
        try:
            self.stack.enter_context(self.source.tower.watch())  # first: labels before values
            if any(is_tapped(site) for site in self.sites):
                self.running = self.stack.enter_context(Running(self.source.tower, token_first=True))
                self.stack.enter_context(attention_tap(self.on_attention))
            for wanted in self.wanted:
                if wanted.site in self.source.tower.family.sites or wanted.site == "embed":
                    self._hook_blocks(wanted)
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.stack.close()

    def _add(self, handle) -> None:
        self.stack.callback(handle.remove)

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
        """Keep what is asked of one attention; those outside of a tower's (pooling) are not part of it."""
        if self.running.now is None:
            return
        layer, name = self.running.now
        for part in ATTENTION:
            wanted = self.sites.get(f"{name}.{part}")
            if wanted and layer in wanted.layers:
                self.take(wanted.site, layer, call.part(part, self.source.tower.entering.get(layer)))

    def take(self, site: str, layer: int | None, x: Tensor) -> None:
        """Reduce one tensor on the device and keep a copy of the result."""
        name, step = self.sites[site].name, None
        if self.generates:
            step = self.source.tower.steps[layer or 1]
        if (name, layer, step) in self.kept:
            raise RuntimeError(
                f"{name} of block {layer} was hit twice in one batch: {self.why_twice(site, layer)}"
            )
        self.shapes[site, layer] = x.shape
        x, table = self.labelled(site, layer, step, x)
        self.keep_of(layer, step, x, table)
        kept = self.kept[name, layer, step].values
        # answers stay on the device until the batch is through; padding may hold anything
        self.finite[name, layer, step] = Finite(shown(x, table).all(), ~kept.isinf().any(), x.dtype)

    def keep_of(self, layer: int | None, step: int | None, x: Tensor, table: Table) -> None:
        for dim, axis in table.axes.items():
            self.there |= {role for role, _ in axis.tokens}
            self.there |= set(table.roles[dim].names) if dim in table.roles else set()
        kept = apply(self.keep[table.site], x, table)
        kept.values = kept.values.detach().to(self.dtype, copy=True)
        self.kept[table.site, layer, step] = kept

    def why_twice(self, site: str, layer: int | None) -> str:
        """The reason, told from how often the block itself was entered."""
        tower = self.source.tower
        if is_tapped(site) and getattr(tower, "steps", {}).get(layer) == 0:
            name, inside = site.partition(".")[0], tower.blocks[layer - 1].named_children()
            inside = ", ".join(child for child, _ in inside)
            return (
                f"the block calls the attention kernel more than once inside {name!r}; name the submodules "
                'in its family, as in attention={"attn": "self_attn", "cross": "multihead_attn"}; '
                f"it has {inside}"
            )
        return (
            "the model runs its tower more than once, so a record would mix the runs; of a model that "
            'generates give generate={"max_new_tokens": ...}'
        )

    def labelled(self, site: str, layer: int | None, step: int | None, x: Tensor) -> tuple[Tensor, Table]:
        """The tensor, cut behind the longest text, and its token table."""
        dims, axes, roles = ("sample", *SITES[site]), {}, {}
        for axis, dim in enumerate(dims):
            if dim not in LABELLED:
                continue
            count = x.shape[axis] if axis < x.ndim else 0
            whole, axes[dim] = self.axis(site, dim, layer or 1, count)
            extra = count > whole and not (dim == "token" and site in KEYS)  # a cache may be longer
            samples = len(x) if self.batch is None else len(first(self.batch))
            if x.ndim != len(dims) or count < whole or extra or len(x) != samples:
                raise ValueError(
                    f"{self.sites[site].name} of block {layer or 1} has shape {tuple(x.shape)}; "
                    f"expected {dims} with the {whole} tokens that enter the block (attention "
                    "over windows, or a family that does not describe this module)"
                )
            x = x.narrow(axis, 0, len(axes[dim].tokens))
            if self.known.get(axes[dim].side):
                roles[dim] = self.roles_on(axes[dim])
        return x, Table(self.sites[site].name, layer, dims, axes, roles, step)

    def roles_on(self, axis: Axis) -> SampleRoles:
        """Those of this batch for the tokens of an axis."""
        if (found := self.aligned.get(axis)) is None:
            found = self.aligned[axis] = self.known[axis.side].of(axis.tokens)
        return found

    def axis(self, site: str, dim: str, layer: int, count: int) -> tuple[int, Axis]:
        """How many tokens an axis of a site has in a block, and those of them that are kept."""
        tower, keys = self.source.tower, dim == "token" and site in KEYS
        if keys and site.startswith("cross."):
            tokens, known = tower.keys("cross", self.batch, count)
            self.known["cross"] = known
            return len(tokens), Axis(tokens, whole=True, side="cross")
        if "" not in self.known:
            self.known[""] = self.source.roles(self.batch)
        tokens = tokens_at(tower.family, tower.layouts[layer], count)
        if not keys and layer in tower.entering:
            tokens = tokens[len(tokens) - tower.entering[layer] :]
        words = self.source.words  # they stand at the end
        kept = tokens if words is None else tuple(t for t in tokens if t[0] != "word" or t[1] < words)
        return len(tokens), Axis(kept, whole=True)

    def complete(self) -> None:
        """Steps that a generation did not need, because all its texts had ended, hold NaN."""
        steps, tower = (self.generates or {}).get("max_new_tokens", 0), self.source.tower
        for (site, layer), shape in self.shapes.items():
            name, block = self.sites[site].name, layer or 1
            for step in range(steps):
                if (name, layer, step) in self.kept:
                    continue
                tower.layouts[block], tower.entering[block] = (*tower.prompt[block], ("new", step)), 1
                sizes = [
                    self.axis(site, dim, block, n)[0] if dim in LABELLED else n
                    for dim, n in zip(("sample", *SITES[site]), shape)
                ]
                self.keep_of(layer, step, *self.labelled(site, layer, step, torch.full(sizes, torch.nan)))

    def kept_of(self, wanted: Wanted, output: dict[str, Tensor]) -> dict[Key, Kept]:
        """What one site kept of this batch, by layer and step."""
        if wanted.site == "final":
            values = torch.stack(list(output.values()), dim=1).to(self.dtype)
            return {(None, None): Kept(values, ("sample", "branch", "joint"), {})}
        steps = range(self.generates["max_new_tokens"]) if self.generates else (None,)
        layers = wanted.layers or (None,)
        return {(layer, step): self.kept[wanted.name, layer, step] for layer in layers for step in steps}

    def write(self, columns: list[Column], start: int, output: dict[str, Tensor]) -> None:
        """Copy this batch into the record."""
        for column, wanted in zip(columns, self.wanted):
            for key, kept in self.kept_of(wanted, output).items():
                column.write(start, key, kept)

    def batch_roles(self) -> dict[str, SampleRoles]:
        """Roles that depend on the sample in this batch, by side; codes are numpy."""
        return {
            side: dataclasses.replace(known, codes=known.codes.cpu().numpy().astype(np.uint8))
            for side, known in self.known.items()
            if known is not None
        }

    def check_hit(self) -> None:
        """ValueError when a requested site was never hit, with what fired and the usual reasons."""
        for w in self.wanted:
            hit = {(name, layer) for name, layer, _ in self.kept}
            missing = [layer for layer in w.layers or (None,) if (w.name, layer) not in hit]
            if w.site == "final" or not missing:
                continue
            fired = (
                ", ".join(self.describe(list(dict.fromkeys(key[:2] for key in self.kept))))
                if self.kept
                else "nothing"
            )
            why = (
                "the attention of this model does not call torch's scaled_dot_product_attention (eager or "
                "flash-attn code, the only one that older versions of transformers have for some models, or a "
                "compiled model)"
                if is_tapped(w.site)
                else "the block does not run that submodule (a compiled or fused model?)"
            )
            raise ValueError(f"{w.name} was never hit in blocks {missing}: {why}; fired: {fired}")

    def cross_grid(self) -> dict:
        """{"cross_grid": [rows, columns]} of the patches that a cross-attention looks at, where the images tell."""
        axes = [a for kept in self.kept.values() for a in kept.axes.values() if a.side == "cross"]
        pictures = [x for x in values_of(self.batch) if x.ndim == 4 and x.is_floating_point()]
        if not axes or len(pictures) != 1:
            return {}
        patches = sum(role == "patch" for role, _ in axes[0].tokens)
        grid = grid_by_shape(patches, *pictures[0].shape[2:])
        return {} if grid is None else {"cross_grid": list(grid)}

    def check_roles(self) -> None:
        """ValueError when a reducer looks for a role that no layer has."""
        for name, reducer in self.keep.items():
            if wrong := set(getattr(reducer, "roles", ())) - self.there:
                raise ValueError(
                    f"{reducer.name} of {name}: no token has role {', '.join(sorted(wrong))}; "
                    f"the {self.source.kind} tower has {', '.join(sorted(self.there))}"
                )

    def describe(self, names: Sequence[tuple] = ()) -> list[str]:
        """'image.resid.post[6,7]' of what was kept, or of the sites asked for."""
        keys = names or [(w.name, layer) for w in self.wanted for layer in w.layers or (None,)]
        layers: dict[str, list] = {}
        for name, layer in keys:
            layers.setdefault(name, []).append(layer)
        return [name if ls == [None] else f"{name}[{','.join(map(str, ls))}]" for name, ls in layers.items()]


def values_of(batch) -> list[Tensor]:
    """The tensors of a batch."""
    return (
        list(batch.values()) if isinstance(batch, Mapping) else [batch] if isinstance(batch, Tensor) else []
    )
