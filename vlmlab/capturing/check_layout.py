"""Whether the labels of an image tower's tokens can be true: a check against physics, with two images."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch

from ..token_labels import FIXED_ROLES, Layout, Token, describe_layout, layouts_by_layer, tokens_of
from .module_tower import tokens_first, unwrapped


def check_layout(
    tower, images, run: Callable, layouts: str | Mapping[int, str] | None = None
) -> dict[int, Layout]:
    """Check an image tower's layouts against physics, with two different images.

    What must hold at the input of every block: patch tokens differ between the images; tokens that
    enter there (at block 1: all but the patches; later: those that the block before did not have)
    carry nothing of the image yet, so they are equal.

    tower: with `blocks`, `watch` and, after a run, `layouts`. images: two, different in every patch, as
    `run` takes them; run: runs the tower once with its edits (a method's encode_image). layouts: a string
    or {block: string} to check instead of the tower's own.
    Returns the layouts by block. ValueError names the block and the token that breaks the rule.
    """
    seen = {}
    with torch.no_grad(), tower.watch(), _inputs_of_blocks(tower, seen):
        run(images)
    if set(seen) != set(range(1, len(tower.blocks) + 1)):
        raise ValueError(f"only blocks {sorted(seen)} of {len(tower.blocks)} ran; the check needs all")
    counts = {layer: x.shape[1] for layer, x in sorted(seen.items())}
    found = dict(tower.layouts) if layouts is None else layouts_by_layer(layouts, counts)
    before: tuple[Token, ...] = ()
    for layer, x in sorted(seen.items()):
        tokens = tokens_of(found[layer])
        if len(tokens) != counts[layer]:
            raise ValueError(
                f"block {layer}: layout {describe_layout(found[layer])!r} has {len(tokens)} "
                f"tokens, the block receives {counts[layer]}"
            )
        differs = (x[0] - x[1]).abs().amax(dim=-1).cpu() > 1e-6 * float(x.abs().max())
        _check_block(layer, tokens, before, differs.tolist())
        before = tokens
    return found


def _check_block(
    layer: int, tokens: tuple[Token, ...], before: tuple[Token, ...], differs: Sequence[bool]
) -> None:
    for place, ((role, index), changed) in enumerate(zip(tokens, differs)):
        where = f"block {layer}: token {place} is called {role}[{index}]"
        if role == "patch" and not changed:
            raise ValueError(f"{where}, but it is equal for two different images; the layout is wrong")
        if role in FIXED_ROLES and (role, index) not in before and changed:
            raise ValueError(f"{where} and enters here, but it depends on the image; the layout is wrong")


def _inputs_of_blocks(tower, seen: dict):
    """Hooks that put the input (batch, token, width) of every block into `seen` while the context is open."""

    stack = contextlib.ExitStack()
    for layer, block in enumerate(tower.blocks, start=1):

        def look(module, args, kwargs, layer=layer):
            seen[layer] = tokens_first(unwrapped(args, kwargs), tower.family)

        handle = block.register_forward_pre_hook(look, with_kwargs=True)
        stack.callback(handle.remove)
    return stack
