"""Edits: functions on tokens that a tower applies before a block. They are all a method may do.

`values` is (count, width), the same for every sample; it is used as it is, so gradients reach it.

Where an edit does the same to every sample, `edit.reach(layout)` is the number of leading tokens that it
needs to see: texts that share at least as many are edited once (shared_text.py). An edit without it is free
to treat every sample differently.
"""

import dataclasses

import torch
from torch import Tensor

from .tokens import Edit, Tokens, span


def insert(role: str, values: Tensor, after: str) -> Edit:
    """Put new tokens behind those of role `after`; a later EOS position moves along. Behind their own role they make
    its run longer, so that the earlier ones keep their numbers."""

    def edit(tokens: Tokens) -> Tokens:
        at = tokens.span(after).stop
        new = values.expand(len(tokens.x), -1, -1)
        x = torch.cat([tokens.x[:, :at], new, tokens.x[:, at:]], dim=1)
        place = [name for name, _ in tokens.layout].index(after)
        run = tokens.layout[place]
        grown = ((role, run[1] + len(values)),) if role == after else (run, (role, len(values)))
        layout = (*tokens.layout[:place], *grown, *tokens.layout[place + 1 :])
        eos = None if tokens.eos is None else tokens.eos + len(values) * (tokens.eos >= at)
        return Tokens(x, layout, eos)

    edit.reach = lambda layout: span(layout, after).stop
    return edit


def overwrite(role: str, values: Tensor, of: str) -> Edit:
    """Put `values` over the first tokens of role `of`, where they are a run of role `role`; the length stays.

    values may also be (batch, count, width), one row of tokens per sample.
    """

    def edit(tokens: Tokens) -> Tokens:
        at, count = tokens.span(of), values.shape[-2]
        if count > at.stop - at.start:
            raise ValueError(f"{count} values for {at.stop - at.start} {of!r} tokens")
        new = values.expand(len(tokens.x), -1, -1)
        x = torch.cat([tokens.x[:, : at.start], new, tokens.x[:, at.start + count :]], dim=1)
        place = [name for name, _ in tokens.layout].index(of)
        runs = (role, count), (of, at.stop - at.start - count)
        layout = (*tokens.layout[:place], *runs, *tokens.layout[place + 1 :])
        return Tokens(x, layout, tokens.eos)

    if values.ndim == 2:
        edit.reach = lambda layout: span(layout, of).start + len(values)
    return edit


def mix(role: str, values: Tensor, weight: float) -> Edit:
    """Replace the tokens of one role by `weight * values + (1 - weight) * what they are now`."""

    def edit(tokens: Tokens) -> Tokens:
        at = tokens.span(role)
        if at.stop - at.start != len(values):
            raise ValueError(f"{len(values)} values for {at.stop - at.start} {role!r} tokens")
        new = values.expand(len(tokens.x), -1, -1)
        if weight != 1:
            new = weight * new + (1 - weight) * tokens.x[:, at]
        x = torch.cat([tokens.x[:, : at.start], new, tokens.x[:, at.stop :]], dim=1)
        return dataclasses.replace(tokens, x=x)

    edit.reach = lambda layout: span(layout, role).stop
    return edit
