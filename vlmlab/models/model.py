"""What every model is: frozen weights with a name, a device, a precision and a fingerprint."""

import contextlib
from collections.abc import Mapping
from typing import Self

import torch
from torch import nn

from ..display import Panel, Shown, million, settings
from ..precision import autocast
from .fingerprint import fingerprint
from .thaw import matching, thawed_copy


class Model(Shown, nn.Module):
    """A frozen model around another library's module, kept in the attribute that `holds` names.

    name: for people. source: JSON-able keywords of `vlmlab.load` that open it again, on any device; None for
    a model handed over as an object. precision: fp32, amp_bf16 or amp_fp16. thawed: names of the parameters
    that train, none but in a model that `thaw` gave. unusual: what no weight shows of a model, activation,
    pixels or heads that are not OpenAI's; its fingerprint tells it. package: what it was read from, with version
    and licence, where that is a package. families: how capture reads the module, where that does not tell.
    """

    holds = ""
    unusual = ""
    package = ""
    families: Mapping | None = None

    def __init__(self, name: str, precision: str, source: dict | None = None):
        super().__init__()
        self.name, self.precision, self.source = name, precision, source
        self.thawed: frozenset[str] = frozenset()
        self._origin: tuple[Model, ...] = ()  # a tuple, or it would be a part of this module
        self._train_along: list[nn.Module] = []
        self._digest: tuple[list, str] | None = None

    def panel(self) -> Panel:
        return Panel(type(self).__name__, f"{self.name}, {self.precision} on {self.device}", self.facts())

    def facts(self) -> dict[str, object]:
        """What a cell shows of it."""
        shared = {id(p): p.numel() for p in self.parameters()}
        trains = f", {len(self.thawed)} tensors of them train" if self.thawed else ""
        return {
            "module": type(self.wrapped).__name__,
            "package": self.package,
            "parameters": million(sum(shared.values())) + trains,
            "source": self.source and settings({k: v for k, v in self.source.items() if v is not None}),
        }

    @property
    def wrapped(self) -> nn.Module:
        """The other library's module."""
        return getattr(self, self.holds)

    @property
    def device(self) -> torch.device:
        return next(self.wrapped.parameters()).device

    @property
    def origin(self) -> Self:
        """The frozen model that this one was thawed from, over any number of thaws; itself if it was not."""
        return self._origin[0] if self._origin else self

    def freeze(self, device: torch.device) -> None:
        """Put the model on a device: nothing trains, evaluation mode."""
        self.requires_grad_(False).eval().to(device)

    def train(self, mode: bool = True) -> Self:
        """A frozen model stays in evaluation mode, also inside a learner that trains.

        Of a thawed one, the parts that train follow: dropout works in them and not beside them.
        """
        super().train(False)
        for module in self._train_along:
            module.training = mode
        return self

    def autocast(self) -> contextlib.AbstractContextManager:
        """The mixed-precision context of this model's precision; does nothing for fp32."""
        return autocast(self.device, self.precision)

    def fingerprint(self) -> str:
        """sha256 of all weights as they are now, with names and shapes; computed again after a write to one.

        A thawed model has that of its origin until its copies change, and another afterwards. What must
        refuse other weights compares `origin.fingerprint()`, which training never changes.
        """
        state = self.wrapped.state_dict()
        if self.thawed:  # fused optimisers do not count their writes
            return fingerprint(state, self.unusual)
        versions = [value._version for value in state.values()]
        if self._digest is None or self._digest[0] != versions:
            self._digest = versions, fingerprint(state, self.unusual)
        return self._digest[1]

    def thaw(self, *patterns: str) -> Self:
        """A model whose named parameters are float32 copies that train; it shares all else with this one.

        patterns: fnmatch patterns of the wrapped module's parameter names, "*" or "visual.*ln_*". A tied
        parameter is copied once and stays tied. What was thawed before is copied as well, as trained as it is.
        This model never changes: not its weights, modules, hooks or mode. Raises ValueError for a pattern that
        matches nothing.
        """
        names = matching(patterns, self.wrapped) | self.thawed
        named = dict(self.wrapped.named_parameters(remove_duplicate=False))
        # the towers keep notes of their own, whether anything in them trains or not
        twin, twin_parts = thawed_copy(self, [named[n] for n in sorted(names)], list(self.children()))
        twin.thawed, twin.source, twin._digest = names, None, None
        twin._origin, twin._train_along = (self.origin,), twin_parts
        return twin.eval()
