"""Copies of a model that train in some parameters and share all others with the model they come from.

Every module with such a parameter at or below it is copied shallowly: its own dictionaries, the same contents.
Modules without any are the same objects. So the original's modules, parameters, hooks and mode never change.
"""

import fnmatch
import functools
import types
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..nearest import near


def matching(patterns: Sequence[str], module: nn.Module) -> frozenset[str]:
    """Names of the parameters that one of the patterns (fnmatch) matches, tied ones by every name.

    Raises ValueError for a pattern that matches nothing (lists near names), for none at all, and for a
    parameter that holds no floating-point numbers.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    if not patterns:
        raise ValueError('thaw needs patterns of parameter names, as in thaw("*") or thaw("visual.*ln_*")')
    for pattern in patterns:
        if not fnmatch.filter(named, pattern):
            found = near(pattern, named, alike=0.3) or list(named)[:3]
            raise ValueError(
                f"no parameter of {type(module).__name__} matches {pattern!r}; near names are {', '.join(found)}"
            )
    chosen = {id(p) for n, p in named.items() if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)}
    names = frozenset(n for n, p in named.items() if id(p) in chosen)
    whole = sorted(n for n in names if not named[n].is_floating_point())
    if whole:
        raise ValueError(f"{', '.join(whole[:3])} are not floating-point numbers and cannot train")
    return names


def thawed_copy(root: nn.Module, chosen: Iterable[nn.Parameter], always: Sequence[nn.Module] = ()):
    """(copy of root, its parts that train): `chosen` parameters are float32 copies that require gradients.

    always: modules that are copied in any case, though all their parameters be shared. The parts that train
    are the copied modules with a chosen parameter at or below them, and what in them has no numbers of its own
    (dropout, activations). Raises ValueError for compiled modules, which hold on to what they were made of.
    """
    swap: dict[int, object] = {id(p): nn.Parameter(p.detach().to(torch.float32, copy=True)) for p in chosen}
    touched = [m for m in root.modules() if any(id(p) in swap for p in m.parameters())]
    for module in touched:
        if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
            raise ValueError(
                f"{type(module).__name__} is compiled; thaw the model first and compile its copy"
            )
        if isinstance(module, _NormBase) and any(id(p) in swap for p in module.parameters()):
            # the averages of a batch norm that trains are written in training mode
            swap |= {id(b): b.clone() for b in module.buffers(recurse=False)}
    moving = touched + [
        m for parent in touched for child in parent.children() if is_empty(child) for m in child.modules()
    ]
    originals = {id(m): m for m in [root, *moving, *always]}
    swap |= {key: object.__new__(type(m)) for key, m in originals.items()}
    for key, module in originals.items():
        vars(swap[key]).update({name: swapped(value, swap) for name, value in vars(module).items()})
    return swap[id(root)], list({id(m): swap[id(m)] for m in moving}.values())


def is_empty(module: nn.Module) -> bool:
    """Whether a module has no numbers of its own: nothing that could be shared."""
    return next(module.parameters(), None) is None and next(module.buffers(), None) is None


def swapped(value, swap: dict[int, object]):
    """A value with modules and tensors in it exchanged for their copies; containers are new ones."""
    if id(value) in swap and isinstance(value, (nn.Module, Tensor)):
        return swap[id(value)]
    if type(value) in (dict, OrderedDict):
        return type(value)((k, swapped(v, swap)) for k, v in value.items())
    if type(value) in (list, tuple, set):
        return type(value)(swapped(v, swap) for v in value)
    if isinstance(value, types.MethodType) and id(value.__self__) in swap:
        return types.MethodType(value.__func__, swap[id(value.__self__)])
    if type(value) is functools.partial:
        return functools.partial(
            swapped(value.func, swap), *swapped(value.args, swap), **swapped(value.keywords, swap)
        )
    return value
