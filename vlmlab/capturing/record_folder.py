"""What the folder of a record holds, and how it is read: arrays as .npy, everything else in record.json."""

import json
import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from .. import schema
from ..schema import Count, Whole, described
from ..token_labels import SampleRoles
from .record import Column, Record, assemble
from .reducers import LABELLED, Axis
from .sites import SITES
from .store_parts import AGAIN, open_npy, ranges

FORMAT = 3
INFO, DONE, TRAINED = "record.json", "done.npy", "run.json"
SiteName = described(str, "a tower and a site, image.resid.post", pattern=r"^\w+\.[\w.]+\Z")
Tokens = described(list[tuple[str, Whole]], "a list of [role, number]")
Grid = described(tuple[Count, Count] | None, "[rows, columns]")


class AxisInfo(schema.Record):
    """The tokens of an axis, see `Axis`."""

    tokens: Tokens
    whole: bool
    side: str


class ColumnInfo(schema.Record):
    """One array file, see `Column`."""

    name: SiteName
    layers: described(list[Count] | None, "a list of block numbers, or null")
    dims: described(list[schema.Name], "a list of names")
    axes: dict[str, AxisInfo]
    shape: described(list[Whole], "a list of whole numbers")


class RolesInfo(schema.Record):
    """What the codes in a file of roles mean, see `SampleRoles`."""

    tokens: Tokens
    names: schema.Texts


class Attributes(schema.Record):
    """The attributes that more than a reader looks at."""

    grid: Grid = None
    cross_grid: Grid = None


class RecordInfo(schema.Record):
    """record.json."""

    key: dict[str, str]
    samples: Count
    batch_size: Count
    dtype: Literal["float16", "float32", "float64"]
    coords: described(list[schema.Name], "a list of names")
    roles: dict[str, RolesInfo]
    branches: list[str]
    attrs: Attributes
    columns: described(list[ColumnInfo], "a list of the arrays", min_length=1)

    def __post_init__(self):
        for c in self.columns:
            check_column(c, self.samples)
        if (there := described_sites(self.columns)) != self.key.get("sites"):
            raise schema.Wrong("columns", f"must be those of {self.key.get('sites')!r}; they are {there!r}")


def check_column(c: ColumnInfo, samples: int) -> None:
    """`Wrong` where the parts of a column contradict each other."""
    lead = (*([len(c.layers)] if c.layers else []), samples)
    sizes = dict(zip(c.dims, c.shape[len(lead) :]))
    labelled = {dim: axis for dim, axis in c.axes.items() if dim in sizes}
    fits = (
        c.name.partition(".")[2] in SITES
        and tuple(c.shape[: len(lead)]) == lead
        and len(c.shape) == len(lead) + len(c.dims) == len(lead) + len(sizes)
        and labelled == c.axes
        and set(c.axes) == set(LABELLED) & set(c.dims)
        and all(sizes[dim] == len(a.tokens) == len(set(a.tokens)) for dim, a in labelled.items())
    )
    if not fits:
        raise schema.Wrong("columns", f"{c.name} has layers, dims, axes and a shape that do not fit together")


def described_sites(columns: list[ColumnInfo]) -> str:
    """What was asked for, in the words of the key: image.resid.post[6,7] image.final."""
    layers = [f"[{','.join(map(str, c.layers))}]" if c.layers else "" for c in columns]
    return " ".join(f"{c.name}{ls}" for c, ls in zip(columns, layers))


def open_run(path: str | os.PathLike) -> Record:
    """The record in a folder that `capture(..., out=folder)` wrote, as memmaps: values are read when used.

    Of a run that is not complete these are the rows that are done, with a warning that names the others;
    when they have gaps, their values are read into memory. FileNotFoundError when there is no run;
    ValueError when a file is missing, damaged or truncated.
    """
    folder = Path(path)
    info = read_info(folder)
    record, done = load(folder, info), read_done(folder, info)
    if done.all():
        return record
    missing = ", ".join(f"{a}:{b}" for a, b in ranges(~done)[:8])
    more = ", …" if len(ranges(~done)) > 8 else ""
    warnings.warn(
        f"{folder} is not complete: {int((~done).sum())} of {len(done)} samples are missing, rows "
        f"{missing}{more}; capture again, whole or in parts, to go on",
        stacklevel=2,
    )
    parts = ranges(done)
    return record.isel(sample=slice(*parts[0]) if len(parts) == 1 else np.flatnonzero(done))


def load(folder: Path, info: dict) -> Record:
    """All rows, done or not."""
    coords = {name: sample_values(folder, name, info["samples"]) for name in info["coords"]}
    roles = {
        side: stored_roles(folder, side, about, info["samples"]) for side, about in info["roles"].items()
    }
    return assemble(stored_columns(folder, info), coords, info["branches"], roles, info["attrs"])


def sample_values(folder: Path, name: str, samples: int) -> np.ndarray:
    """A coordinate (sample,)."""
    path = folder / f"sample.{name}.npy"
    values, whole = open_npy(path, mapped=False), name in ("rows", "cols")
    if values.shape != (samples,) or (whole and (values.dtype.kind != "i" or values.min() < 0)):
        raise ValueError(
            f"{path} holds {values.dtype} {values.shape}; expected {'whole numbers ' if whole else ''}"
            f"({samples},); {AGAIN}"
        )
    return values


def stored_roles(folder: Path, side: str, about: dict, samples: int) -> SampleRoles:
    """Roles by sample; ValueError where the file is not what record.json says."""
    tokens, path = tuple((role, i) for role, i in about["tokens"]), folder / role_file(side)
    codes = open_npy(path, mapped=False)
    if codes.shape != (samples, len(tokens)) or codes.dtype != np.uint8 or codes.max() >= len(about["names"]):
        raise ValueError(
            f"{path} holds {codes.dtype} {codes.shape}; expected uint8 {(samples, len(tokens))} below "
            f"{len(about['names'])}, the roles in {INFO}; {AGAIN}"
        )
    return SampleRoles(tokens, tuple(about["names"]), codes)


def role_file(side: str) -> str:
    """Name of the file with the roles of one side, by sample."""
    return f"roles.{side}.npy" if side else "roles.npy"


def read_done(folder: Path, info: dict) -> np.ndarray:
    """(row,) which rows are complete."""
    done = open_npy(folder / DONE, mapped=False)
    if done.shape != (info["samples"],) or done.dtype != bool:
        raise ValueError(
            f"{folder / DONE} holds {done.dtype} {done.shape}, {INFO} says bool ({info['samples']},); {AGAIN}"
        )
    return done


def write_info(folder: Path, info: dict) -> None:
    temporary = folder / f".{INFO}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(info, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / INFO)
    finally:
        temporary.unlink(missing_ok=True)  # of a full disk; gone when it was renamed


def read_info(folder: Path) -> dict:
    """record.json; an error that names the folder when it is missing, damaged, or of another format."""
    path = folder / INFO
    if not path.is_file():
        raise FileNotFoundError(f"there is no captured run in {folder} (no {INFO})")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        found = info["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ValueError(f"{path} is damaged ({type(e).__name__}: {e}); {AGAIN}") from e
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}, this version reads {FORMAT}; {AGAIN}")
    try:
        schema.convert(info, RecordInfo)
    except schema.Wrong as e:
        raise ValueError(f"{path} is damaged: {e.field or 'it'}: {e}; {AGAIN}") from e
    return info


def column_info(c: Column) -> dict:
    axes = {
        dim: {"tokens": list(axis.tokens), "whole": axis.whole, "side": axis.side}
        for dim, axis in c.axes.items()
    }
    return {
        "name": c.name,
        "layers": c.layers and list(c.layers),
        "dims": list(c.dims),
        "axes": axes,
        "shape": list(c.shape),
    }


def stored_columns(folder: Path, info: dict) -> list[Column]:
    """The columns of a folder with their mapped files; ValueError when a file is not what record.json says."""
    out = []
    for c in info["columns"]:
        axes = {
            dim: Axis(tuple((role, i) for role, i in a["tokens"]), a["whole"], a["side"])
            for dim, a in c["axes"].items()
        }
        layers, path = c["layers"] and tuple(c["layers"]), folder / f"{c['name']}.npy"
        values = open_npy(path)
        if list(values.shape) != c["shape"] or values.dtype.name != info["dtype"]:
            raise ValueError(
                f"{path} holds {values.dtype.name} {values.shape}, {INFO} says {info['dtype']} "
                f"{tuple(c['shape'])}; {AGAIN}"
            )
        out.append(Column(c["name"], layers, tuple(c["dims"]), axes, tuple(c["shape"]), values))
    return out


def shape_of(c: Column) -> tuple:
    return c.name, c.layers, c.dims, c.axes, c.shape
