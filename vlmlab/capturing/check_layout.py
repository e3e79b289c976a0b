"""Whether the labels of a tower's tokens can be true: checks against physics, with images of noise.

Where patches stand in an image and where a text is read is found in the same way.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..token_labels import (
    FIXED_ROLES,
    Layout,
    Token,
    describe_layout,
    layouts_by_layer,
    tokens_of,
)
from .module_tower import ModuleTower, first, swapped, tokens_first, unwrapped


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
    return _checked(tower, _inputs(tower, images, run), layouts)


def check_pictures(tower, batch, run: Callable) -> tuple[int, int] | None:
    """`check_layout` with noise in place of a batch's images. Returns rows and columns of the patches, as far
    as one can tell them: None where they do not follow the rows of the image."""
    seen = _inputs(tower, noise_like(batch), run)
    layout = _checked(tower, seen)[1]
    patches = [place for place, (role, _) in enumerate(tokens_of(layout)) if role == "patch"]
    first_row, first_col = (_moved(seen[1][0], seen[1][i], patches) for i in (2, 3))
    return grid_of(first_row, first_col, len(patches))


def _moved(x: Tensor, other: Tensor, patches: list[int]) -> np.ndarray:
    """Numbers of the patches that differ much between two images."""
    far = (x - other).abs().amax(dim=-1)[patches].float().cpu().numpy()
    noise = 1e-5 * float(x.abs().max())
    return np.flatnonzero(far > max(0.02 * far.max(initial=0), noise))


def grid_of(first_row: np.ndarray, first_col: np.ndarray, patches: int) -> tuple[int, int] | None:
    """Rows and columns of patches, from those that the first row and the first column of pixels change.

    A stem that overlaps changes several rows or columns of patches; as long as they are whole ones the grid is
    known. None where they are not, or everything changes.
    """
    if not patches:
        return None
    gaps = np.flatnonzero(np.diff(first_col) > 1)
    broad = gaps[0] + 1 if len(gaps) else len(first_col)  # columns that change
    cols = first_col[gaps[0] + 1] if len(gaps) else patches if len(first_row) == patches else 1
    whole = np.flatnonzero(np.arange(patches) % cols < broad)
    known = patches == 1 or broad < cols or (cols == 1 and len(first_row) < patches)
    fits = patches % cols == 0 and len(first_row) and len(first_row) % cols == 0
    if not (known and fits and np.array_equal(first_row, np.arange(len(first_row)))):
        return None
    return (int(patches // cols), int(cols)) if np.array_equal(first_col, whole) else None


def noise_like(batch: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Four images of noise in the shape of a batch's, everything else as of its first sample: two different
    ones, and the first one with its first row and with its first column of pixels changed."""
    if isinstance(batch, Mapping):
        return {name: noise_like(x) for name, x in batch.items()}
    if not batch.is_floating_point() or batch.ndim < 3:
        return batch[:1].expand(4, *batch.shape[1:])
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *batch.shape[1:], generator=draw)
    if batch.ndim != 4:
        return noise[[0, 1, 0, 0]].to(batch)
    row, column = noise[0].clone(), noise[0].clone()
    row[:, 0] = torch.randn(row[:, 0].shape, generator=draw)
    column[:, :, 0] = torch.randn(column[:, :, 0].shape, generator=draw)
    return torch.stack([*noise, row, column]).to(batch)


def check_ends(tower, batch, run: Callable) -> None:
    """Check that texts are read where their family says: at the token called eos, whatever the last block gives
    for all others. ValueError names the text and the token.

    Of towers that `vlmlab` runs itself it is known, and of those that return tokens or append a class token
    nothing is read at eos.
    """
    if not isinstance(tower, ModuleTower) or not tower.reads_at_eos:
        return
    batch = {k: x[:2] for k, x in batch.items()} if isinstance(batch, Mapping) else batch[:2]
    with torch.no_grad():
        with tower.watch():
            plain = run(batch)
        roles = tower.roles(batch)
        is_end = roles.codes == roles.names.index("eos")

        def disturb(module, args, output):
            x = tokens_first(first(output), tower.family)
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
            changed = torch.where(is_end[..., None].to(x.device), x, x + noise * x.abs().max())
            return swapped(output, tokens_first(changed, tower.family))

        handle = tower.blocks[-1].register_forward_hook(disturb)
        try:
            with tower.watch():
                other = run(batch)
        finally:
            handle.remove()
    for name, x in plain.items():
        far = (x - other[name]).abs().flatten(1).amax(dim=1) > 1e-3 * x.abs().max()
        if far.any():
            row = int(far.nonzero()[0])
            raise ValueError(
                f"token {int(is_end[row].long().argmax())} of text {row} is called eos, but the features change with "
                f"the other tokens: {type(tower.module).__name__} does not read its texts there; say where in "
                "the Words of its family"
            )


def _inputs(tower, images, run: Callable) -> dict[int, Tensor]:
    """Input of every block, by its number. ValueError when some do not run."""
    seen: dict[int, Tensor] = {}
    with torch.no_grad(), tower.watch(), _inputs_of_blocks(tower, seen):
        run(images)
    if set(seen) != set(range(1, len(tower.blocks) + 1)):
        raise ValueError(f"only blocks {sorted(seen)} of {len(tower.blocks)} ran; the check needs all")
    return seen


def _checked(
    tower, seen: dict[int, Tensor], layouts: str | Mapping[int, str] | None = None
) -> dict[int, Layout]:
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
        if not x[:2].isfinite().all():  # an overflow, or damaged weights: said where sites are read
            break
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
            # a copy, for a block may write into what it is given
            seen[layer] = tokens_first(unwrapped(args, kwargs), tower.family).clone()

        handle = block.register_forward_pre_hook(look, with_kwargs=True)
        stack.callback(handle.remove)
    return stack
