"""`edit`: write to named sites while a model runs, to ablate, to steer, to patch from a record.

Reading and writing are different verbs: `capture` never changes an output, `edit` is there to do so.
What can be written is the residual stream around a block and what a block adds to it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from ..models.families import at
from ..models.tokens import Observer, Tokens, observed
from .module_tower import ModuleTower, first, swapped, tokens_at, tokens_first, towers_of, unwrapped
from .now import NOW
from .reducers import Axis, Table
from .sites import SITES, resolve
from .text_roles import of_ends

EDITABLE = ("resid.pre", "resid.post", "attn.out", "cross.out", "mlp.out")
SiteEdit = Callable[[Tensor, Table], Tensor]


_OPEN: list[nn.Module] = []  # first blocks of towers with open edits


def is_edited(tower: nn.Module) -> bool:
    """Whether an `edit` is open on this tower."""
    return any(tower.blocks[0] is open_ for open_ in _OPEN)


@contextlib.contextmanager
def edit(model, edits: Mapping[str, SiteEdit], family=None) -> Iterator[None]:
    """Change what named sites hold in every run of the model inside the block.

    model, family: as in `capture`. edits: {site with layers: fn}, e.g. {"image.resid.post[5]":
    ablate("prompt"), "image.attn.out[-1]": lambda x, table: x + 3 * direction}. fn(tensor, table) gets a copy
    of the tensor (batch, token, feature), `table` says which token is which, and returns a tensor of the same
    shape.
    Two edits of one site apply in the order given. `capture` inside the block sees edited values. Exact
    shortcuts of the towers are off meanwhile. Everything is removed at the end, after an exception too.

    Writable: resid.pre, resid.post, attn.out, cross.out, mlp.out. The others raise ValueError: resid.mid is
    read at the norm behind which it goes on unchanged (edit attn.out), embed is resid.pre[1], and attention
    is not written. ValueError too for another shape, and at the end for an edit that no run has reached.
    In texts of another library's module, eos, sos and pad are known inside `capture` only; elsewhere all
    tokens are of role "word".
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
        for writer in writers:
            stack.enter_context(observed(writer.tower, writer))
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


def writers_of(edits: Mapping[str, SiteEdit], towers: Mapping[str, nn.Module]) -> list["Writer"]:
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


@dataclasses.dataclass(eq=False)
class Writer(Observer):
    """One edit of one block. tokens: those before the block in the run that is on."""

    tower: object
    site: str
    layer: int
    fn: SiteEdit
    hits: int = 0
    tokens: Tokens | None = None

    @property
    def name(self) -> str:
        return f"{self.tower.kind}.{self.site}"

    def before_block(self, layer: int, tokens: Tokens) -> None:
        if layer == self.layer:
            self.tokens = tokens

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
        given, x = x, tokens_first(x, self.tower.family)
        out, where = self.fn(x.clone(), self.table(x.shape[1])), f"the edit of {self.name}[{self.layer}]"
        if not isinstance(out, Tensor) or out.shape != x.shape:
            what = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"{where} returned {what}; expected a tensor of shape {tuple(x.shape)} "
                "(batch, token, feature)"
            )
        return tokens_first(out.to(x), self.tower.family).reshape(given.shape)  # the axes as they were

    def table(self, count: int) -> Table:
        layout = tokens_at(self.tower.family, self.tokens.layout, count)
        axis, roles = Axis(layout, whole=True), {}
        if self.tokens.eos is not None:
            words = sum(role == "word" for role, _ in layout)
            roles["token"] = of_ends(self.tokens.eos - layout.index(("word", 0)), words).of(layout)
        elif isinstance(self.tower, ModuleTower) and NOW.batch is not None:
            known = self.tower.roles(NOW.batch)
            roles = {} if known is None else {"token": known.of(layout)}
        return Table(self.name, self.layer, ("sample", *SITES[self.site]), {"token": axis}, roles)
