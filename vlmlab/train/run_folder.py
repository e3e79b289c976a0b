"""What a run folder holds, how it is written and read, and how it may be damaged.

    runs/<study>/<method>/<task>/<key>/
        run.json                 what the run is: job, models, task, versions, status, timing
        metrics.jsonl            one line per step: every loss term, the rate
        trainables.safetensors   the learner's own parameters and buffers, nothing of the models below it
        state.safetensors        what a killed run goes on from; gone when it is finished
        results.jsonl            one line per measured number

Each carries a checksum, of metrics.jsonl it stands in the state and at last in run.json. Reading needs no torch
until tensors are asked for.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ..files import hold, write
from ..schema import Finite, Record, Whole, Wrong, convert
from . import records
from .records import Info, Logged, damaged, read_lines, text_of
from .tensor_files import length_of, read_record, read_tensors, write_tensors

INFO, METRICS, TRAINABLES = "run.json", "metrics.jsonl", "trainables.safetensors"
STATE, RESULTS = "state.safetensors", "results.jsonl"
KEPT = (INFO, RESULTS, TRAINABLES)  # what a finished run consists of


@dataclasses.dataclass
class State:
    """Where a killed run goes on: the learner's own tensors, the optimiser's, and the position."""

    own: dict
    optimiser: dict
    position: dict


class Position(Record):
    """Where a saved state is: stage and step, steps in the log and what it holds up to there."""

    stage: Whole
    step: Whole
    done: Whole
    seconds: list[Finite]
    scaler: dict[str, object]
    log: str


class RunFolder:
    """One run folder. Errors are ValueError with the file and the fix, OSError when it cannot be written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.state, self.metrics = self.path / STATE, self.path / METRICS
        self.log = hashlib.sha256()  # of what this process knows to be in metrics.jsonl

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes here meanwhile. OSError where the folder cannot be made or written."""
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(self.path, wait=True))
            except OSError as e:
                raise unwritable(self.path, e) from e
            yield

    def info(self, kind: type[Info] = Info) -> dict:
        """run.json; ValueError when it is damaged or no run's."""
        return records.read_info(self.path / INFO, kind)

    def write_info(self, info: dict) -> None:
        records.write_info(self.path / INFO, info)

    def append_log(self, rows: list[dict]) -> None:
        """Add rows to metrics.jsonl."""
        if not rows:
            return
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        try:
            with self.metrics.open("ab") as file:
                file.write(data)
        except OSError as e:
            raise unwritable(self.metrics, e) from e
        self.log.update(data)

    def clear_log(self) -> None:
        """Forget the steps of a training that was stopped before its first saved state."""
        if self.metrics.exists():
            write(self.metrics, lambda p: p.write_bytes(b""))
        self.log = hashlib.sha256()

    def cut_log(self, count: int, wanted: str) -> None:
        """Keep the first rows of metrics.jsonl; ValueError when they are not those of this sha256."""
        try:
            data = self.metrics.read_bytes() if count else b""
        except OSError as e:
            raise damaged(self.metrics, e.strerror or e) from e
        lines = data.split(b"\n")[:-1]
        kept = b"".join(line + b"\n" for line in lines[:count])
        self.log = hashlib.sha256(kept)
        if len(lines) < count:
            raise damaged(self.metrics, f"{len(lines)} of {count} steps are there")
        if self.log.hexdigest() != wanted:
            raise damaged(self.metrics, "its checksum does not fit: it is not what was written")
        if self.metrics.exists():
            write(self.metrics, lambda p: p.write_bytes(kept))

    def read_log(self) -> list[dict]:
        """The rows of metrics.jsonl; ValueError when it is not what a finished run wrote."""
        rows, info = read_lines(self.metrics, Logged), self.info()
        if info.get("log") and info["log"] != sha256(self.metrics):
            raise damaged(self.metrics, "its checksum does not fit: it is not what was written")
        return rows

    def write_state(self, state: State) -> None:
        tensors = {f"own|{k}": v for k, v in state.own.items()}
        tensors |= {f"optimiser|{k}": v for k, v in state.optimiser.items()}
        write_tensors(self.state, tensors, state.position | {"log": self.log.hexdigest()})

    def read_state(self, device) -> State | None:
        """The last saved state, its tensors on a device; None when there is none."""
        if not self.state.exists():
            return None
        tensors, position = read_tensors(self.state, device)
        try:
            convert(position, Position)
        except Wrong as e:
            raise damaged(self.state, f"{e.field or 'its position'} {e}") from e
        parts = {part: {} for part in ("own", "optimiser")}
        for key, value in tensors.items():
            part, _, name = key.partition("|")
            parts[part][name] = value
        return State(parts["own"], parts["optimiser"], position)

    def position(self) -> dict:
        """Where the saved state is; empty when there is none."""
        return read_record(self.state) if self.state.exists() else {}

    def write_own(self, tensors: dict, record: dict) -> None:
        write_tensors(self.path / TRAINABLES, tensors, record)


def unwritable(path: Path, error: OSError) -> OSError:
    why = f"cannot write {path} ({error.strerror or error}); make room or choose another `out` folder"
    return type(error)(why)


def sha256(path: Path) -> str:
    """Of a file; of nothing where there is none."""
    if not path.is_file():
        return hashlib.sha256().hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(run: Path) -> str:
    """What is wrong with a finished run, in a few words that name the file; "" for nothing."""
    for name, look in ((INFO, of_info), (RESULTS, of_results), (TRAINABLES, of_tensors)):
        try:
            wrong = look(run / name)
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            wrong = str(error)
        except OSError as error:
            wrong = error.strerror or str(error)
        if wrong:
            return f"{name}: {' '.join(wrong.split())}"
    return ""


def of_info(path: Path) -> None:
    records.parsed(text_of(path), Info)


def of_results(path: Path) -> str | None:
    """At least one row, each with a finite value."""
    lines = text_of(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.parsed(line, records.Measured)
        except ValueError as error:
            return f"line {number}, {error}"
    return None if lines else "no row is measured"


def of_tensors(path: Path) -> str | None:
    """The header of a safetensors file says how long the file is; a whole reading is left to `attached`."""
    if not path.exists():
        return None
    size, expected = path.stat().st_size, length_of(path)
    return None if size == expected else f"has {size} of {expected} bytes"


def set_aside(run: Path) -> None:
    """Keep the files of a damaged run under other names, so that the run is trained again."""
    for name in KEPT:
        if (path := run / name).exists():
            os.replace(path, path.with_name(f"{name}.damaged"))


def is_run(path: Path) -> bool:
    """Whether a run.json is one of ours, damaged or not: another program's is left alone."""
    if not path.is_file():
        return True  # a folder, a pipe, a link to nothing: said when it is opened
    try:
        head = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return '"job"' in head or '"key"' in head or not head.strip().endswith("}")


def found(root: Path) -> list[Path]:
    """All run folders below a folder, in the order of their paths, also through links, each once."""
    paths, seen = [], set()
    for folder, inner, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()  # a link back, or a second one
            continue
        seen.add(real)
        inner.sort()
        if INFO in files or INFO in inner:
            paths += [Path(folder)] if is_run(Path(folder) / INFO) else []
    return sorted(paths)
