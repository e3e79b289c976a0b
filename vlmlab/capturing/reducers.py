"""What to keep of a site, decided on the device inside the hook.

A reducer is a function (tensor, table) -> tensor or `Kept`. The tensor has the axes `table.dims`, the
first is the sample; the table says which token is which. A plain function's result keeps its axis
names when its shape is unchanged; otherwise they are axis_1, axis_2, ... unless the function carries
them: `f.dims = ("head",)`, names of the axes behind `sample`.
"""

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..token_labels import SampleRoles, Token

LABELLED = ("token", "query")  # axes that carry (role, index)
ALONE = ("eos", "sos", "cls")  # roles of which a text has one token


@dataclasses.dataclass(frozen=True)
class Axis:
    """The tokens of an axis. whole: all of the layer's, so that in text a "word" may be word, eos or pad.
    side: "" for the tokens of the tower, "cross" for those its cross-attention looks at."""

    tokens: tuple[Token, ...]
    whole: bool = False
    side: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Labels of one tensor inside a hook: site, layer and step (None: has none), names of its axes, the tokens
    of the labelled ones, and their roles where these depend on the sample, as in text."""

    site: str
    layer: int | None
    dims: tuple[str, ...]
    axes: Mapping[str, Axis]
    roles: Mapping[str, SampleRoles] = dataclasses.field(default_factory=dict)
    step: int | None = None

    @property
    def dim(self) -> str:
        """The axis along which tokens are chosen: queries of attention probabilities, else tokens."""
        return "query" if "query" in self.dims else "token"

    @property
    def axis(self) -> Axis:
        """The tokens of that axis."""
        return self.axes[self.dim]

    @property
    def eos(self) -> Tensor | None:
        """(sample,) where EOS stands along that axis; None where no text ends there."""
        roles = self.roles.get(self.dim)
        if roles is None or "eos" not in roles.names:
            return None
        return (roles.codes == roles.names.index("eos")).long().argmax(dim=1)

    def positions(self, role: str) -> list[int]:
        """Where the tokens of a layout role stand; empty when this layer has none."""
        return [place for place, (name, _) in enumerate(self.axis.tokens) if name == role]

    def mask(self, role: str, like: Tensor) -> Tensor:
        """(sample or 1, token) true at the tokens of a role along that axis, on the device of `like`."""
        roles = self.roles.get(self.dim)
        if roles is None:
            return torch.tensor([[name == role for name, _ in self.axis.tokens]], device=like.device)
        if role not in roles.names:
            return torch.zeros(1, len(self.axis.tokens), dtype=torch.bool, device=like.device)
        return (roles.codes == roles.names.index(role)).to(like.device)


@dataclasses.dataclass
class Kept:
    """A reduced tensor with the names of its axes and the tokens of the labelled ones."""

    values: Tensor
    dims: tuple[str, ...]
    axes: dict[str, Axis]


@dataclasses.dataclass(frozen=True)
class Reducer:
    """A named reducer; `roles` are what it looks for, so that a misspelt role is noticed."""

    name: str
    function: Callable[[Tensor, Table], Kept] = dataclasses.field(repr=False)
    roles: tuple[str, ...] = ()

    def __call__(self, x: Tensor, table: Table) -> Kept:
        return self.function(x, table)


def roles(*names: str) -> Reducer:
    """Keep the tokens of these roles (of attention probabilities: these query rows, all keys).

    In text, "eos" is one token per sample; "word" and "pad" keep the whole run with NaN at the others.
    """
    return Reducer(f"roles({', '.join(names)})", lambda x, table: pick(x, table, names), names)


def row(role: str) -> Reducer:
    """Attention row of the first token of a role: (sample, head, token), who it looks at."""

    def function(x: Tensor, table: Table) -> Kept:
        if "query" not in table.dims:
            raise ValueError(
                f"row({role!r}) needs attention probabilities, but {table.site} has axes "
                f"{table.dims}; use keep={{'*.attn.probs': ..., other: ...}}"
            )
        kept, axis = pick(x, table, (role,)), table.dims.index("query")
        first = kept.values.narrow(axis, 0, min(1, kept.values.shape[axis]))
        if not first.shape[axis]:  # a layer without this token
            first = x.narrow(axis, 0, 1) * torch.nan
        dims = tuple(d for d in kept.dims if d != "query")
        return Kept(first.squeeze(axis), dims, {"token": table.axes["token"]})

    return Reducer(f"row({role})", function, (role,))


def mean(*names: str) -> Reducer:
    """Mean over the tokens (or query rows) of each role: one token per role, with index 0."""

    def function(x: Tensor, table: Table) -> Kept:
        parts, tokens, axis = [], [], table.dims.index(table.dim)
        for name in names:
            one = pick(x, table, (name,)).values
            if one.shape[axis]:
                parts.append(one.float().nanmean(dim=axis, keepdim=True))
                tokens.append((name, 0))
        values = torch.cat(parts, dim=axis) if parts else x.narrow(axis, 0, 0)
        return relabelled(values, table, tokens)

    return Reducer(f"mean({', '.join(names)})", function, names)


def _norms(x: Tensor, table: Table) -> Kept:
    if table.dims[-1] == "token":
        raise ValueError(f"norms are of feature vectors; {table.site} has axes {table.dims}")
    values = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)  # squares overflow in float16
    return Kept(values, table.dims[:-1], {"token": table.axes["token"]})


norms = Reducer("norms", _norms)  # L2 norm per token, computed in float32
cls_row = dataclasses.replace(row("cls"), name="cls_row")  # whom the class token looks at


def relabelled(values: Tensor, table: Table, tokens: list[Token]) -> Kept:
    """The tensor with new tokens along its token axis."""
    axis = Axis(tuple(tokens), side=table.axis.side)
    return Kept(values, table.dims, labels(table.dims, table) | {table.dim: axis})


def pick(x: Tensor, table: Table, names: tuple[str, ...]) -> Kept:
    """The tokens of some roles along the token axis, in the order of `names`."""
    axis = table.dims.index(table.dim)
    front = x.movedim(axis, 1)
    parts, tokens = [], []
    for name in names:
        places = table.positions(name)
        by_label = table.dim not in table.roles or (places and name not in ("word", "patch"))
        if by_label or name not in table.roles[table.dim].names:
            part, labels = front[:, places], [table.axis.tokens[p] for p in places]
        else:
            part, labels = sample_part(front, table, name)
        parts.append(part)
        tokens += labels
    return relabelled(torch.cat(parts, dim=1).movedim(1, axis), table, tokens)


def sample_part(front: Tensor, table: Table, name: str) -> tuple[Tensor, list[Token]]:
    """The tokens of a role that depends on the sample, from a tensor (batch, token, ...): one for eos, sos and
    cls; of the others all places that may hold it, NaN where they do not, as in texts that are shorter."""
    there = table.mask(name, front)
    if name in ALONE:
        part = front[torch.arange(len(front), device=front.device), there.long().argmax(dim=1)]
        lacking = ~there.any(dim=1).view(-1, *[1] * (front.ndim - 2))
        return part.masked_fill(lacking, torch.nan)[:, None], [(name, 0)]
    run = [place for place, (role, _) in enumerate(table.axis.tokens) if role in ("word", name)]
    wrong = ~there[:, run].view(len(there), len(run), *[1] * (front.ndim - 2))
    return front[:, run].masked_fill(wrong, torch.nan), [(name, table.axis.tokens[p][1]) for p in run]


def apply(reducer: Callable | None, x: Tensor, table: Table) -> Kept:
    """Run a reducer (None keeps everything) and name the axes of what it returns."""
    if reducer is None:
        return Kept(x, table.dims, labels(table.dims, table))
    out = reducer(x, table)
    if isinstance(out, Kept):
        return out
    if not isinstance(out, Tensor) or out.ndim == 0 or len(out) != len(x):
        what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"the reducer of {table.site} returned {what}; a tensor with the {len(x)} samples "
            f"first was expected (it was given axes {table.dims})"
        )
    named = getattr(reducer, "dims", None)
    if named is not None:
        dims = ("sample", *named)
    else:
        dims = table.dims if out.shape == x.shape else ("sample", *(f"axis_{i}" for i in range(1, out.ndim)))
    counts = dict(zip(dims, out.shape))
    if len(dims) != out.ndim or any(counts[d] != len(a.tokens) for d, a in labels(dims, table).items()):
        raise ValueError(
            f"the reducer of {table.site} names axes {dims} for a result of shape {tuple(out.shape)}"
        )
    return Kept(out, dims, labels(dims, table))


def labels(dims: tuple[str, ...], table: Table) -> dict[str, Axis]:
    """The table's tokens for every labelled axis."""
    return {d: table.axes[d] for d in dims if d in table.axes}
