"""Several processes, one folder of a record: which rows are whose, locks, rows written in place."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: one process may write a record, several may not
    fcntl = None

LOCK = ".lock"
AGAIN = "name another out= folder and capture again"
sync_data = getattr(os, "fdatasync", os.fsync)


def rows_of_part(part: tuple[int, int], samples: int, batch_size: int) -> tuple[int, int]:
    """First row of part i of n, and the row behind its last one. Parts are cut between batches, so that
    every batch is the same as in a run of one part. ValueError when there are fewer batches than parts."""
    check_part(part)
    (i, n), batches = part, -(-samples // batch_size)
    if n > batches:
        raise ValueError(
            f"part={part!r}: this record began with batches of {batch_size}, of which its {samples} samples make "
            f"{batches}; ask for {batches} parts at most, or name another out= folder"
        )
    return (i - 1) * batches // n * batch_size, min(i * batches // n * batch_size, samples)


def batch_for(part: tuple[int, int], samples: int, batch_size: int) -> int:
    """The batch size of a new record: smaller than asked where there would be fewer batches than parts, the same
    in all n processes. ValueError when there are fewer samples than parts, or `part` is none."""
    check_part(part)
    if part[1] > samples:
        raise ValueError(
            f"part={part!r}: {samples} samples make {samples} parts at most; ask for fewer parts"
        )
    return batch_size if part[1] <= -(-samples // batch_size) else samples // part[1]


def check_part(part: tuple[int, int]) -> None:
    """ValueError unless it is (i, n), and where several processes cannot keep out of each other's rows."""
    if (
        not isinstance(part, (tuple, list))
        or len(part) != 2
        or not all(isinstance(x, int) for x in part)
        or not 1 <= part[0] <= part[1]
    ):
        raise ValueError(f"part={part!r} must be (i, n), this process being number i of n, from 1 to n")
    if part[1] > 1 and fcntl is None:
        raise ValueError(f"part={part!r} needs file locks, which this system has not; capture without part=")


def ranges(marked: np.ndarray) -> list[tuple[int, int]]:
    """[first, stop) of every run of True in a (row,) mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


# --- locks --------------------------------------------------------------------------------------
# One empty file; byte 0 stands for the creation of the run, byte 1 + r for row r. The system drops a lock
# with its process, however that ends, so that no stale lock can exist.


def open_lock(folder: Path) -> int:
    """The lock file of a folder, which is made if needed. OSError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as e:
        raise OSError(e.errno, f"cannot write to {folder} ({e.strerror}); choose another out= folder") from e


def lock_rows(lock: int, first: int, stop: int, folder: Path) -> None:
    """Keep other processes off these rows until the file is closed; ValueError when one is there already."""
    if fcntl is None:
        return
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, stop - first, 1 + first)
    except (BlockingIOError, PermissionError) as e:
        raise ValueError(
            f"another process is writing rows {first}:{stop} of {folder}, or some of them, at "
            "this moment; let it finish, or give every process its own part=(i, n)"
        ) from e
    except OSError as e:
        raise OSError(
            e.errno,
            f"the file system of {folder} has no file locks ({e.strerror}); choose an "
            "out= folder on another one",
        ) from e


@contextlib.contextmanager
def creating(lock: int) -> Iterator[None]:
    """One process at a time."""
    if fcntl is None:
        yield
        return
    fcntl.lockf(lock, fcntl.LOCK_EX, 1, 0)
    try:
        yield
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, 0)


# --- arrays -------------------------------------------------------------------------------------


class RowFile:
    """Rows of one .npy file (layer, sample, ...) or (sample, ...), written in place.

    Not through a mapping: its pages would count as memory of this process, and a file that is cut or a disk
    that is full would end the process (SIGBUS) where a write raises OSError.
    """

    def __init__(self, path: Path, layered: bool):
        mapped = open_npy(path)
        self.path, self.offset, self.layered = path, mapped.offset, layered
        self.samples, rest = mapped.shape[layered], mapped.shape[1 + layered :]
        self.row = math.prod(rest) * mapped.itemsize  # bytes
        self.file = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))

    def write(self, start: int, rows: np.ndarray) -> None:
        """rows: (layer, row, ...) or (row, ...), of the file's type."""
        for layer, block in enumerate(rows if self.layered else rows[None]):
            place = self.offset + (layer * self.samples + start) * self.row
            left = memoryview(np.ascontiguousarray(block).reshape(-1).view(np.uint8))
            while left:  # the system may write less than it is given
                written = self._try(write_at, left, place)
                left, place = left[written:], place + written

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        self._try(sync_data)

    def close(self) -> None:
        os.close(self.file)

    def _try(self, call, *args):
        try:
            return call(self.file, *args)
        except OSError as e:
            raise OSError(
                e.errno,
                f"cannot write {self.path} ({e.strerror}); the rows before are kept: put "
                "that right and call capture again to go on",
            ) from e


def write_at(file: int, data: memoryview, place: int) -> int:
    """Write bytes at a place of a file; returns how many were written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, place)
    os.lseek(file, place, os.SEEK_SET)
    return os.write(file, data)


def open_npy(path: Path, mapped: bool = True) -> np.ndarray:
    """An array file, mapped for reading or read whole. ValueError when it is not all there, or its bytes are in
    another order than `RowFile` writes."""
    try:
        values = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as e:
        raise ValueError(f"{path} is missing, damaged or truncated ({e}); {AGAIN}") from e
    if not isinstance(values, np.ndarray) or not (values.dtype.isnative and values.flags.c_contiguous):
        raise ValueError(
            f"{path} is damaged: its header tells of another order of bytes or axes than records have; {AGAIN}"
        )
    return values


def save_npy(path: Path, values: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, values, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def reserve(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """A new .npy file of zeros with its space on the disk taken: a full disk is an OSError now."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with open(path, "r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        os.fsync(file.fileno())
