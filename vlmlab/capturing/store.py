"""Records on disk: a folder with one .npy file per site and record.json.

`capture(..., out=folder)` writes rows as batches come, in one process or, with part=(i, n), in several at
once. done.npy says which rows are complete: a killed run goes on from there, in as many parts as one likes;
the same call on a finished folder reopens it. Files are plain .npy: any tool reads them. The layout on disk
is (layer, sample, ...), as in the record.

Several machines may share a folder on a file system that has locks and whose writes are seen by all at once
(Lustre or GPFS, not NFS).
"""

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ..token_labels import SampleRoles
from .record import Column, Record
from .record_folder import (
    DONE,
    FORMAT,
    INFO,
    TRAINED,
    column_info,
    load,
    read_done,
    read_info,
    role_file,
    shape_of,
    stored_columns,
    write_info,
)
from .store_key import short
from .store_parts import (
    RowFile,
    batch_for,
    creating,
    lock_rows,
    open_lock,
    ranges,
    reserve,
    rows_of_part,
    save_npy,
)

# Rows count as done when the disk has them, so that neither a kill nor a power cut leaves a row that is said
# to be done and is not. Waiting for the disk after every batch could take longer than the model. It waits
# when this many times the length of the last wait has passed: 5 % of the time at most, and a kill costs the
# few batches since.
SYNC_EVERY = 20


class Store:
    """The folder of one run and the part of its rows that this process fills, inside a `with` block.

    ValueError when it holds another run or is damaged, or another process fills some of these rows now.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        key: dict[str, str],
        samples: int,
        batch_size: int,
        part: tuple[int, int] = (1, 1),
    ):
        self.folder, self.key, self.info = Path(folder), key, None
        self.done, self.batch_size = np.zeros(samples, bool), None
        if (self.folder / INFO).exists():
            self._attach()
        elif (self.folder / TRAINED).exists():
            raise ValueError(
                f"{self.folder} is the folder of a trained run; name another out= folder, such as one inside it"
            )
        # with other batches than the run began with the numbers would differ in the last bits
        self.batch_size = self.info["batch_size"] if self.info else batch_for(part, samples, batch_size)
        self.first, self.stop = rows_of_part(part, samples, self.batch_size)
        self.columns: list[Column] = []
        self.files: list[RowFile] = []
        self.role_files: dict[str, RowFile] = {}
        self.synced = self.wait = 0.0  # when, and how long it took, in seconds

    def _attach(self) -> None:
        """Read what is there; damage is noticed before anything runs."""
        self.info = read_info(self.folder)
        there = self.info["key"]
        differs = [x for x in sorted(self.key.keys() | there.keys()) if self.key.get(x) != there.get(x)]
        if differs:
            how = [f"{x}: {short(there.get(x))} there, {short(self.key.get(x))} asked" for x in differs]
            raise ValueError(
                f"{self.folder} holds the record of another run ({'; '.join(how)}); name another out= folder"
            )
        if self.batch_size not in (None, self.info["batch_size"]):
            raise ValueError(
                "another process has just begun this run with batches of "
                f"{self.info['batch_size']}, not {self.batch_size}; call again to use those"
            )
        load(self.folder, self.info)
        self.done = read_done(self.folder, self.info)

    @property
    def finished(self) -> bool:
        """Whether the rows of this part are done."""
        return self.todo == 0

    @property
    def todo(self) -> int:
        """Rows of this part that are not done."""
        return int((~self.done[self.first : self.stop]).sum())

    def record(self) -> Record:
        """The whole record if all parts are done, else the rows of this one."""
        whole = load(self.folder, self.info)
        done = read_done(self.folder, self.info).all()
        return whole if done else whole.isel(sample=slice(self.first, self.stop))

    def __enter__(self) -> "Store":
        with contextlib.ExitStack() as stack:
            self.lock = open_lock(self.folder)
            stack.callback(os.close, self.lock)
            lock_rows(self.lock, self.first, self.stop, self.folder)
            if (self.folder / INFO).exists():  # perhaps the work of a process that has just ended
                self._attach()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        with self.stack:
            if self.files:
                self._sync()

    def batches(self, source) -> Iterator[tuple[int, object]]:
        """(number of the first sample, batch) of what is not done in this part."""
        size = self.batch_size
        starts = np.arange(self.first, self.stop, size)
        missing = np.array([not self.done[start : start + size].all() for start in starts])
        for begin, end in ranges(missing):
            yield from itertools.islice(source.batches(int(starts[begin])), end - begin)

    def begin(
        self,
        planned: list[Column],
        coords: dict[str, np.ndarray],
        roles: Mapping[str, SampleRoles],
        about: dict,
        dtype: np.dtype,
        rows: int,
    ) -> list[Column]:
        """Columns for `rows` rows, to be filled with one batch after the other and given to `put`.

        Makes the files unless they are there. roles: of a batch, those that depend on the sample. about: what
        record.json says beside (branches, attrs).
        """
        with creating(self.lock):
            if (self.folder / INFO).exists():
                self._attach()
            else:
                self._create(planned, coords, roles, about, dtype)
        columns = stored_columns(self.folder, self.info)
        if [shape_of(c) for c in planned] != [shape_of(c) for c in columns]:
            raise ValueError(
                f"the record in {self.folder} kept other axes than this call would; name another out= folder"
            )
        self.progress = self._open(DONE, layered=False)
        self.files = [self._open(f"{c.name}.npy", layered=c.layers is not None) for c in columns]
        self.role_files = {side: self._open(role_file(side), layered=False) for side in roles}
        for column in columns:
            lead = column.shape[: len(column.shape) - len(column.dims) - 1]
            shape = (*lead, rows, *column.shape[len(lead) + 1 :])
            self.columns.append(dataclasses.replace(column, shape=shape, values=None))
            self.columns[-1].allocate(dtype)
        return self.columns

    def _open(self, name: str, layered: bool) -> RowFile:
        file = RowFile(self.folder / name, layered)
        self.stack.callback(file.close)
        return file

    def _create(self, planned, coords, roles, about, dtype) -> None:
        samples, files = len(self.done), {f"{c.name}.npy": (c.shape, dtype) for c in planned}
        files[DONE] = (samples,), np.dtype(bool)
        files |= {
            role_file(side): ((samples, len(known.tokens)), np.dtype(np.uint8))
            for side, known in roles.items()
        }
        info = {
            "format": FORMAT,
            "key": self.key,
            "samples": samples,
            "batch_size": self.batch_size,
            "dtype": dtype.name,
            "coords": list(coords),
            "roles": {side: {"tokens": r.tokens, "names": r.names} for side, r in roles.items()},
            **about,
            "columns": [column_info(c) for c in planned],
        }
        try:
            for name, (shape, kind) in files.items():
                reserve(self.folder / name, shape, kind)
            for name, values in coords.items():
                save_npy(self.folder / f"sample.{name}.npy", values)
            write_info(self.folder, info)
        except OSError as e:
            for name in [*files, *(f"sample.{name}.npy" for name in coords)]:
                (self.folder / name).unlink(missing_ok=True)
            size = sum(c.nbytes(dtype) for c in planned) / 2**20
            raise OSError(
                e.errno,
                f"cannot make the files of this record, {size:,.1f} MiB, in {self.folder} "
                f"({e.strerror or e}); reduce with keep=, limit= or dtype='float16', or choose "
                "another out= folder",
            ) from e
        self.info = info

    def put(self, start: int, rows: int, roles: Mapping[str, SampleRoles]) -> None:
        """Write the first `rows` rows of the columns to the rows from `start` on."""
        if not self.first <= start < start + rows <= self.stop:
            raise ValueError(
                f"rows {start}:{start + rows} are one batch, whatever batch_size says; such a "
                "record has no parts: call without part="
            )
        for column, file in zip(self.columns, self.files):
            file.write(start, column.values[:, :rows] if column.layers else column.values[:rows])
        for side, file in self.role_files.items():
            file.write(start, roles[side].codes)
        self.done[start : start + rows] = True
        if time.monotonic() - self.synced >= SYNC_EVERY * self.wait:
            self._sync()

    def _sync(self) -> None:
        begin = time.monotonic()
        for file in [*self.files, *self.role_files.values()]:
            file.sync()
        self.progress.write(self.first, self.done[self.first : self.stop])
        self.synced = time.monotonic()
        self.wait = self.synced - begin
