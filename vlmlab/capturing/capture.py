"""`capture`: run a model over data once and bring back what named sites hold, as labelled arrays."""

import contextlib
import dataclasses
import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from .. import __version__ as vlmlab_version
from ..progress import bar as progress_bar
from ..token_labels import SampleRoles
from .attention_grads import attention_grads
from .changes import ablate, patch
from .check_layout import check_ends, check_layout, check_pictures
from .edit import edit, is_edited
from .finite import check_finite
from .hooks import Hooks
from .module_tower import towers_of
from .now import now
from .reader import reader
from .record import Column, Record, assemble, plan_columns
from .record_folder import open_run
from .reducers import Kept, Table, cls_row, mean, norms, roles, row
from .sites import SITES, Wanted, resolve
from .sources import Source, open_source
from .store import Store
from .store_key import run_key

Keep = Callable | Mapping[str, Callable | None] | None
# Largest accepted |captured output - plain output| relative to the largest entry. The attention tap switches
# off the fast path of nn.MultiheadAttention, which rounds differently (about 1e-6); a changed activation is
# far above. What was measured is in the record's attributes.
TOLERANCE = {"fp32": 1e-5, "amp_bf16": 2e-2, "amp_fp16": 2e-3}


def capture(
    model,
    data,
    sites: str | Sequence[str],
    keep: Keep = None,
    limit: int | None = None,
    batch_size: int = 64,
    dtype: str = "float32",
    budget: int = 2 * 2**30,
    progress: bool = True,
    out: str | os.PathLike | None = None,
    part: tuple[int, int] = (1, 1),
    family=None,
    preprocess: Callable | None = None,
    generate: Mapping | None = None,
) -> Record:
    """Run one tower of a model over data and return what the sites hold.

        vlm, task = vlmlab.load(), vlmlab.task("emoji/animals")
        acts = vlmlab.capture(vlm, task.test, ["image.resid.post[6:]", "image.attn.probs[-1]"])
        vlmlab.measures.norm_by_role(acts["image.resid.post"]).mean("sample").to_pandas()

    model: in evaluation mode, what `load` gives, a Method, or a module of open_clip, timm or Hugging Face. Another
    module needs family=, a `models.families.Family` that says where its blocks are.
    data: for `image.` sites a Split, a tensor of preprocessed images (image, 3, height, width), pictures (PIL
    images or paths, one or a list), a map-style dataset of tensors or pictures, a DataLoader (its dataset is
    read, in order); for `text.` sites a list of texts or a Split (its class prompts); of a language model also, and
    of another library's module only, what its processor or tokenizer returns (a mapping of tensors, of which a tower takes its own). A
    Method's text tower runs its own class prompts, data is None. preprocess: picture -> tensor, by default a
    VLM's own; another library's module needs it for pictures (an image processor will do).
    generate: run `module.generate` with these settings, {"max_new_tokens": 4} and others, instead of one
    forward. Sites then have an axis step: step 0 is the prompt, in each later one a token of role "new" enters,
    whose keys are all tokens so far; NaN where a token does not enter or is not there yet. `final` holds the
    ids of the new tokens.
    sites: names with layers, see `sites.py`: ["image.resid.post[6:]", "image.attn.probs[-1]"].
    keep: None (everything), one reducer for all sites, or {site pattern: reducer}; reducers run on the
    device. `final` is always kept whole. limit: at most so many samples, evenly spaced over the data.
    dtype: of the record, a float type. budget: bytes the record may take in memory. out: a folder that the
    record is written to, batch by batch, and opened from (`store.py`): it may be larger than the memory, a
    killed call goes on where it was, the same call on a finished folder only opens it. part: (i, n) fills
    the i-th of n ranges of rows, i from 1: the same call in n processes, one for each GPU, fills one folder,
    bit for bit as one process would (with batches of fewer samples where there would be too few for n). It returns the whole record if the other parts are done, else its own
    rows. Rows that one call left out any other call fills, whole or in parts.

    Returns a Record (xarray.Dataset), dims as documented there. Its attributes name the model, the sites,
    versions, and `difference`: how far the output with hooks was from the output without, in the first
    batch of the process that began it.

    Raises ValueError for unknown or never-hit sites, data of the other tower, NaN in the images or in what a
    site holds (an overflow in half precision, damaged weights), a record above the budget, tokens that are not
    what their labels say (checked with images of noise), an output changed by capture, an out= folder that
    holds another record, a damaged one or a trained run, or rows that another process is writing. OSError when
    the folder cannot be written; rows that are done are kept.
    """
    wanted, dtype = resolve(sites, towers_of(model, family)), float_type(dtype)
    how = {"kind": one_tower(wanted), "limit": limit, "family": family}
    how |= {"preprocess": preprocess, "generate": generate}
    source = open_source(model, data, batch_size=batch_size, **how)
    if generate is not None and is_edited(source.tower):
        raise ValueError("a generation cannot be captured inside `edit`; edit single forwards")
    hooks, store = Hooks(source, wanted, reducers_by_site(keep, wanted), getattr(torch, dtype.name)), None
    if out is not None:
        store = store_of(out, data, hooks, dtype, batch_size, part)
        if store.finished:
            return store.record()
        hooks.source = source = open_source(model, data, batch_size=store.batch_size, **how)
    elif part != (1, 1):
        raise ValueError(f"part={part!r} needs out=, the folder that all parts write to")
    with torch.no_grad(), source.autocast(), source.exact():
        columns, branches, by_batch, attrs = fill(hooks, dtype, budget, source.precision, progress, store)
    if store:
        return store.record()
    return assemble(columns, source.coords, branches, joined(by_batch), attrs)


def joined(batches: list[dict[str, SampleRoles]]) -> dict[str, SampleRoles]:
    """Roles that depend on the sample, of all batches, by side."""
    return {
        side: dataclasses.replace(known, codes=np.concatenate([b[side].codes for b in batches]))
        for side, known in batches[0].items()
    }


def store_of(
    out: str | os.PathLike, data, hooks: Hooks, dtype: np.dtype, batch_size: int, part: tuple[int, int]
) -> Store:
    """The folder of this call; ValueError while the tower is edited, which no key could tell."""
    if is_edited(hooks.source.tower):
        raise ValueError(
            "out= inside `edit` is not possible: a later call could not tell the edited record "
            "from a plain one; capture in memory"
        )
    key = run_key(data, hooks.source, hooks.describe(), hooks.keep, dtype)
    return Store(out, key, len(hooks.source), batch_size, part)


def fill(
    hooks: Hooks, dtype: np.dtype, budget: int, precision: str, progress: bool, store: Store | None
) -> tuple[list[Column], list[str], list[dict[str, SampleRoles]], dict]:
    """Run all batches, or those that the store does not have. Returns the columns, filled unless there is a
    store, the names of the output's branches, roles by batch, and the record's attributes."""
    source, columns, branches, by_batch, attrs = hooks.source, [], [], [], {}
    rows = store.todo if store else len(source)
    bar = progress_bar(total=rows, desc="capture", unit=source.kind, shown=progress, leave=False, delay=1)
    with bar, store or contextlib.nullcontext():
        for start, batch in store.batches(source) if store else source.batches():
            with now(first=start, total=len(source), batch=batch):
                plain, found = (None, {}) if columns else plain_run(source, batch)
                hooks.batch = batch
                with hooks:
                    output = source.run(batch)
            hooks.check_hit()
            check_finite(hooks, output)
            hooks.complete()
            by_batch.append(hooks.batch_roles())
            done = len(next(iter(output.values())))
            if plain is not None:
                attrs = attributes(hooks, precision, compare(plain, output, precision)) | found
                branches, columns = list(output), plan(hooks, output)
                if store:
                    about = {"branches": branches, "attrs": attrs}
                    columns = store.begin(columns, source.coords, by_batch[-1], about, dtype, done)
                else:
                    allocate(columns, len(source), dtype, budget)
            hooks.write(columns, 0 if store else start, output)
            if store:
                store.put(start, done, by_batch[-1])
            bar.update(done)
    return columns, branches, by_batch, attrs


def attributes(hooks: Hooks, precision: str, difference: float) -> dict:
    """What the record says about itself. difference: of the first batch's output from one without hooks."""
    return {
        **hooks.source.attrs,
        "sites": " ".join(hooks.describe()),
        "difference": difference,
        "precision": precision,
        "torch": str(torch.__version__),
        "open_clip": version("open_clip_torch"),
        "vlmlab": vlmlab_version,
        **hooks.cross_grid(),
    }


def one_tower(wanted: list[Wanted]) -> str:
    """The tower of all sites; ValueError when they name several, whose samples differ."""
    towers = {w.tower for w in wanted}
    if len(towers) > 1:
        raise ValueError(
            f"the sites of {', '.join(sorted(towers))} run on different samples; "
            "call capture once for each tower"
        )
    return towers.pop()


def float_type(dtype: str) -> np.dtype:
    if dtype not in ("float16", "float32", "float64"):
        raise ValueError(f"dtype {dtype!r} must be float16, float32 or float64 (missing tokens are NaN)")
    return np.dtype(dtype)


def reducers_by_site(keep: Keep, wanted: list[Wanted]) -> dict[str, Callable | None]:
    """Reducer of every requested site; ValueError for a pattern in `keep` that matches none."""
    names = [w.name for w in wanted]
    if not isinstance(keep, Mapping):
        return {name: None if name.endswith(".final") else keep for name in names}
    out: dict[str, Callable | None] = dict.fromkeys(names)
    for pattern, reducer in keep.items():
        hit = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not hit:
            raise ValueError(f"keep names {pattern!r}, but the sites asked for are {', '.join(names)}")
        out |= dict.fromkeys(hit, reducer)
    return out


def plain_run(source: Source, batch) -> tuple[dict[str, Tensor], dict]:
    """The first batch without hooks, after the checks of the tower's tokens, and what these found out."""
    found = {}
    with now(paused=True):
        if source.kind == "image":
            grid = check_pictures(source.tower, batch, source.run)
            several = "rows" in source.coords or source.tower.family.maps  # grids, of images or of blocks
            found = {} if grid is None or several else {"grid": list(grid)}
        elif batch is not None:
            check_ends(source.tower, batch, source.run)
    return source.run(batch), found


def compare(plain: dict[str, Tensor], output: dict[str, Tensor], precision: str) -> float:
    """Largest difference relative to the largest entry; ValueError when capture changed the output."""
    worst = max(float((x - output[k]).abs().max() / x.abs().max().clamp_min(1e-12)) for k, x in plain.items())
    if not worst <= TOLERANCE[precision]:
        raise ValueError(
            f"capture changed the model's output by {worst:.1e} of its largest entry, more than "
            f"{TOLERANCE[precision]:.0e}; is the model in evaluation mode and deterministic?"
        )
    return worst


def plan(hooks: Hooks, output: dict[str, Tensor]) -> list[Column]:
    """The record's columns, known after the first batch."""
    hooks.check_roles()
    first = {w.name: hooks.kept_of(w, output) for w in hooks.wanted}
    return plan_columns(first, hooks.keep, len(hooks.source))


def allocate(columns: list[Column], samples: int, dtype: np.dtype, budget: int) -> None:
    """Take the memory of the record; ValueError with the numbers when it is above the budget."""
    sizes = {c.name: c.nbytes(dtype) for c in columns}
    if sum(sizes.values()) > budget:
        total, parts = mib(sum(sizes.values())), ", ".join(f"{name} {mib(n)}" for name, n in sizes.items())
        raise ValueError(
            f"the record of {samples} samples would take {total} ({parts}), above the budget of "
            f"{mib(budget)}; reduce with keep=, ask for fewer layers, use limit= or "
            "dtype='float16', write to disk with out=, or raise budget="
        )
    for column in columns:
        column.allocate(dtype)


def mib(n: int) -> str:
    return f"{n / 2**20:,.1f} MiB"


# the verbs beside it, reducers first: vlmlab.capture.norms, vlmlab.capture.edit
capture.roles, capture.row, capture.mean = roles, row, mean
capture.norms, capture.cls_row = norms, cls_row
capture.edit, capture.patch, capture.ablate = edit, patch, ablate
capture.attention_grads, capture.reader, capture.open_run = attention_grads, reader, open_run
capture.check_layout, capture.SITES = check_layout, SITES
capture.Record, capture.Table, capture.Kept = Record, Table, Kept
