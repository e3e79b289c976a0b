"""What the folder of a record holds, and how it is read: arrays as .npy, everything else in record.json."""

import json
import os
import warnings
from pathlib import Path

import numpy as np

from ..token_labels import SampleRoles
from .record import Column, Record, assemble
from .reducers import Axis
from .store_parts import open_npy, ranges

FORMAT = 3
INFO, DONE = "record.json", "done.npy"


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
    coords = {name: open_npy(folder / f"sample.{name}.npy", mapped=False) for name in info["coords"]}
    roles = {
        side: SampleRoles(
            tuple((role, i) for role, i in about["tokens"]),
            tuple(about["names"]),
            open_npy(folder / role_file(side), mapped=False),
        )
        for side, about in info["roles"].items()
    }
    return assemble(stored_columns(folder, info), coords, info["branches"], roles, info["attrs"])


def role_file(side: str) -> str:
    """Name of the file with the roles of one side, by sample."""
    return f"roles.{side}.npy" if side else "roles.npy"


def read_done(folder: Path, info: dict) -> np.ndarray:
    """(row,) which rows are complete."""
    done = open_npy(folder / DONE, mapped=False)
    if done.shape != (info["samples"],) or done.dtype != bool:
        raise ValueError(
            f"{folder / DONE} holds {done.dtype} {done.shape}, {INFO} says bool "
            f"({info['samples']},); delete {folder} and capture again"
        )
    return done


def write_info(folder: Path, info: dict) -> None:
    temporary = folder / f".{INFO}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(info, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / INFO)


def read_info(folder: Path) -> dict:
    """record.json; an error that names the folder when it is missing, damaged, or of another format."""
    path = folder / INFO
    if not path.is_file():
        raise FileNotFoundError(f"there is no captured run in {folder} (no {INFO})")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        found = info["format"]
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path} is damaged ({e}); delete {folder} and capture again") from e
    if found != FORMAT:
        raise ValueError(
            f"{path} has format {found}, this version reads {FORMAT}; delete {folder} and capture again"
        )
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
                f"{tuple(c['shape'])}; delete {folder} and capture again"
            )
        out.append(Column(c["name"], layers, tuple(c["dims"]), axes, tuple(c["shape"]), values))
    return out


def shape_of(c: Column) -> tuple:
    return c.name, c.layers, c.dims, c.axes, c.shape
