"""Small safe ways of writing and reading: nothing half written is ever seen, one process at a time in a folder."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .nearest import near

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a temporary file beside `path`, then put it in place; the folder is made.

    OSError with the path when the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(temporary)
        os.replace(temporary, path)
    except OSError as error:
        why = f"cannot write {path} ({error.strerror or error}); make room or choose another `out` folder"
        raise type(error)(why) from error
    finally:
        with contextlib.suppress(OSError):  # gone when it was renamed
            temporary.unlink()


def write_json(path: Path, value: object) -> None:
    """Sorted keys, indented, UTF-8: the same value is the same bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> object:
    """What a JSON file holds. ValueError that names a damaged file, FileNotFoundError where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is damaged: it is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error})") from error


@contextlib.contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[None]:
    """Keep other calls out of a folder meanwhile. BlockingIOError says which process is in it, unless one
    may wait.

    The system itself ends the lock of a process that was killed. Where a file system or a system (Windows)
    has no such locks, nobody is kept out.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise BlockingIOError(
                f"{folder} is in use by {owner}; wait until it is done, or name another folder"
            ) from error
        except OSError:
            pass
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
        file.flush()
        yield


def nearby(path: Path) -> str:
    """What to say of a path that is not there: what is nearly called so in the deepest folder of it that is."""
    there = next((p for p in path.parents if p.is_dir()), Path())
    wanted = path.relative_to(there).parts[0] if path != there else ""
    try:
        found = near(wanted, os.listdir(there))
    except OSError:  # a folder that may not be listed
        found = []
    return f"; did you mean {there / found[0]}?" if found else f" ({there} has no {wanted!r})"
