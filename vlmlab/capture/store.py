"""Records on disk: a folder with one .npy memmap per site and run.json.

`capture(..., out=folder)` writes rows as batches come. run.json says how many rows are complete, so that a
killed run goes on from there; the same call on a finished folder reopens it. Files are plain .npy: any tool
reads them. The layout on disk is (layer, sample, ...), as in the record.
"""
import hashlib
import inspect
import json
import os
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from .record import Column, Record, assemble
from .reducers import Axis, Reducer

FORMAT = 1
INFO = "run.json"
EOS = "eos.npy"


class Store:
    """The folder of one run. ValueError when it holds another run or is damaged."""

    def __init__(self, folder: str | os.PathLike, key: dict[str, str]):
        self.folder, self.key, self.info = Path(folder), key, None
        self.columns: list[Column] = []
        self.eos: np.ndarray | None = None
        if not (self.folder / INFO).exists():
            return
        self.info = read_info(self.folder)
        there = self.info["key"]
        differs = [part for part in sorted(key.keys() | there.keys()) if key.get(part) != there.get(part)]
        if differs:
            parts = "; ".join(f"{p}: {short(there.get(p))} there, {short(key.get(p))} asked" for p in differs)
            raise ValueError(f"{self.folder} holds the record of another run ({parts}); choose another out= "
                             "folder or delete this one")
        stored_columns(self.folder, self.info)  # a damaged file is noticed before anything runs

    @property
    def rows(self) -> int:
        """Complete rows."""
        return self.info["rows"] if self.info else 0

    @property
    def complete(self) -> bool:
        return self.info is not None and self.rows == self.info["samples"]

    def batch_size(self, asked: int) -> int:
        """That of the run that began: with other batches the numbers would differ in the last bits."""
        return self.info["batch_size"] if self.info else asked

    def begin(self, planned: list[Column], coords: dict[str, np.ndarray], has_eos: bool, about: dict,
              dtype: np.dtype) -> list[Column]:
        """Columns to write into: new files for a new run, the files there for one that goes on.

        about: what run.json says beside (branches, attrs, batch_size).
        """
        if self.info is None:
            self._create(planned, coords, has_eos, about, dtype)
        self.columns = stored_columns(self.folder, self.info, "r+")
        if [shape_of(c) for c in planned] != [shape_of(c) for c in self.columns]:
            raise ValueError(f"the run in {self.folder} kept other axes than this call would; choose another "
                             "out= folder or delete this one")
        self.eos = open_npy(self.folder / EOS, "r+") if has_eos else None
        return self.columns

    def _create(self, planned, coords, has_eos, about, dtype) -> None:
        samples = len(coords["id"])
        self.folder.mkdir(parents=True, exist_ok=True)
        for column in planned:
            reserve(self.folder / f"{column.name}.npy", column.shape, dtype)
        if has_eos:
            reserve(self.folder / EOS, (samples,), np.dtype(np.int64))
        for name, values in coords.items():
            np.save(self.folder / f"sample.{name}.npy", values, allow_pickle=False)
        self.info = {"format": FORMAT, "key": self.key, "rows": 0, "samples": samples, "dtype": dtype.name,
                     "coords": list(coords), "eos": has_eos, **about,
                     "columns": [column_info(c) for c in planned]}
        self._write_info()

    def advance(self, rows: int, eos: np.ndarray | None) -> None:
        """Everything up to this row is written."""
        if eos is not None:
            self.eos[self.rows:rows] = eos
            self.eos.flush()
        for column in self.columns:
            column.values.flush()
        self.info["rows"] = rows
        self._write_info()

    def _write_info(self) -> None:
        temporary = self.folder / f".{INFO}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(self.info, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.folder / INFO)


def open_run(path: str | os.PathLike) -> Record:
    """The record in a folder that `capture(..., out=folder)` wrote, as memmaps: values are read when used.

    Of a run that was interrupted these are the complete rows, with a warning. FileNotFoundError when there
    is no run; ValueError when run.json or an array is damaged or truncated.
    """
    folder = Path(path)
    info = read_info(folder)
    coords = {name: open_npy(folder / f"sample.{name}.npy", None) for name in info["coords"]}
    eos = open_npy(folder / EOS, None) if info["eos"] else None
    record = assemble(stored_columns(folder, info), coords, info["branches"], eos, info["attrs"])
    if info["rows"] == info["samples"]:
        return record
    warnings.warn(f"{folder} is an interrupted run: {info['rows']} of {info['samples']} samples; call "
                  "capture again to go on", stacklevel=2)
    return record.isel(sample=slice(info["rows"]))


def read_info(folder: Path) -> dict:
    """run.json; an error that names the folder when it is missing, damaged, or of another format."""
    path = folder / INFO
    if not path.is_file():
        raise FileNotFoundError(f"there is no captured run in {folder} (no {INFO})")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        found = info["format"]
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path} is damaged ({e}); delete {folder} and capture again") from e
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}, this version reads {FORMAT}; delete {folder} and "
                         "capture again")
    return info


def open_npy(path: Path, mode: str | None) -> np.ndarray:
    """An array file, mapped (mode "r" or "r+") or read whole (None)."""
    try:
        found = np.load(path, mmap_mode=mode and "r", allow_pickle=False)  # "r+" would lengthen a cut file
        return np.load(path, mmap_mode="r+", allow_pickle=False) if mode == "r+" else found
    except (OSError, ValueError, EOFError) as e:
        raise ValueError(f"{path} is missing, damaged or truncated ({e}); delete {path.parent} and capture "
                         "again") from e


def reserve(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """A new .npy file with its space on the disk taken; OSError now rather than a crash in the middle."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as e:
                size = f"{os.fstat(file.fileno()).st_size / 2**20:,.1f} MiB"
                raise OSError(e.errno, f"cannot reserve {size} for {path} ({e.strerror}); reduce with keep=, "
                              "limit= or dtype='float16', or choose another out= folder") from e


def column_info(c: Column) -> dict:
    axes = {dim: {"tokens": list(axis.tokens), "whole": axis.whole} for dim, axis in c.axes.items()}
    return {"name": c.name, "layers": c.layers and list(c.layers), "dims": list(c.dims), "axes": axes,
            "shape": list(c.shape)}


def stored_columns(folder: Path, info: dict, mode: str = "r") -> list[Column]:
    """The columns of a folder with their mapped files; ValueError when a file is not what run.json says."""
    out = []
    for c in info["columns"]:
        axes = {dim: Axis(tuple((role, i) for role, i in a["tokens"]), a["whole"])
                for dim, a in c["axes"].items()}
        layers, path = c["layers"] and tuple(c["layers"]), folder / f"{c['name']}.npy"
        values = open_npy(path, mode)
        if list(values.shape) != c["shape"] or values.dtype.name != info["dtype"]:
            raise ValueError(f"{path} holds {values.dtype.name} {values.shape}, {INFO} says {info['dtype']} "
                             f"{tuple(c['shape'])}; delete {folder} and capture again")
        out.append(Column(c["name"], layers, tuple(c["dims"]), axes, tuple(c["shape"]), values))
    return out


def shape_of(c: Column) -> tuple:
    return c.name, c.layers, c.dims, c.axes, c.shape


def run_key(data, source, sites: list[str], keep: dict[str, Callable | None], dtype: np.dtype) -> dict:
    """What determines a record, in named parts, so that an error can say which one differs.

    Weights of the model and of the method on it, sites, reducers, data, dtype, precision. Data are known by
    their own fingerprint (a Split), by all values (a tensor), by their text; else by ids and labels.
    """
    digest = hashlib.sha256()
    for name, values in source.coords.items():
        digest.update(f"{name}{values.tolist()}".encode())
    if hasattr(data, "fingerprint"):
        digest.update(data.fingerprint().encode())
    for name, x in (data.items() if isinstance(data, Mapping) else [("", data)]):
        if hasattr(x, "detach"):
            digest.update(name.encode() + x.detach().float().cpu().contiguous().numpy().tobytes())
    return {**source.key(), "sites": " ".join(sites),
            "keep": "; ".join(f"{name}: {describe(f)}" for name, f in keep.items()),
            "data": digest.hexdigest(), "dtype": dtype.name}


def describe(reducer: Callable | None) -> str:
    """A reducer in words that change when it does: its name, its own `description`, or a hash of its code.

    Global names that a function uses are not followed. ValueError for one that holds values of its own.
    """
    if reducer is None or isinstance(reducer, Reducer):
        return "all" if reducer is None else reducer.name
    if hasattr(reducer, "description"):
        return str(reducer.description)
    name = getattr(reducer, "__qualname__", type(reducer).__name__)
    if (not inspect.isfunction(reducer) or reducer.__closure__ or reducer.__defaults__
            or reducer.__kwdefaults__):
        raise ValueError(f"the reducer {name} holds values that out= cannot see, so a later call could not "
                         f"tell its record from another; say what it does in {name}.description = '...'")
    code = hashlib.sha256(code_text(reducer.__code__).encode()).hexdigest()
    return f"{name} {code} {getattr(reducer, 'dims', '')}"


def code_text(code: types.CodeType) -> str:
    """A function's bytecode, constants and names; functions inside it too."""
    consts = [code_text(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {consts} {code.co_names}"


def short(value: str | None) -> str:
    return "none" if not value else value if len(value) <= 80 else f"{value[:40]}…{value[-12:]}"
