"""What a run folder holds, how it is written and read, and how it may be damaged.

    runs/<study>/<method>/<task>/<key>/
        run.json                 what the run is: job, models, task, versions, status, timing
        metrics.jsonl            one line per step: every loss term, the rate
        trainables.safetensors   the learner's own parameters and buffers, nothing of the models below it
        state.safetensors        what a killed run goes on from; gone when it is finished
        results.jsonl            one line per measured number

Reading needs no torch until tensors are asked for.
"""

import dataclasses
import json
import os
from pathlib import Path

from ..files import write, write_json
from ..schema import Finite, Record, Wrong, convert

INFO, METRICS, TRAINABLES = "run.json", "metrics.jsonl", "trainables.safetensors"
STATE, RESULTS = "state.safetensors", "results.jsonl"
KEPT = (INFO, RESULTS, TRAINABLES)  # what a finished run consists of


@dataclasses.dataclass
class State:
    """Where a killed run goes on: the learner's own tensors, the optimiser's, and the position."""

    own: dict
    optimiser: dict
    position: dict


class RunFolder:
    """One run folder. Errors are ValueError with the file and the fix, OSError when it cannot be written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.state, self.metrics = self.path / STATE, self.path / METRICS

    def info(self) -> dict:
        """run.json; ValueError when it is damaged or no run's."""
        path = self.path / INFO
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            convert(info, Info)
        except Wrong as e:
            raise damaged(path, f"{e.field or 'it'} {e}") from e
        except ValueError as e:
            raise damaged(path, e) from e
        return info

    def write_info(self, info: dict) -> None:
        write_json(self.path / INFO, info)

    def append_log(self, rows: list[dict]) -> None:
        """Add rows to metrics.jsonl."""
        if not rows:
            return
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        except OSError as e:
            raise type(e)(
                f"cannot write {self.metrics} ({e.strerror or e}); make room or choose another `out` folder"
            ) from e

    def clear_log(self) -> None:
        """Forget the steps of a training that was stopped before its first saved state."""
        if self.metrics.exists():
            self.cut_log(0)

    def cut_log(self, count: int) -> None:
        """Keep the first rows of metrics.jsonl; ValueError when there are fewer."""
        rows = read_lines(self.metrics)
        if len(rows) < count:
            raise damaged(self.metrics, f"{len(rows)} of {count} steps are there")
        write_lines(self.metrics, rows[:count])

    def write_state(self, state: State) -> None:
        tensors = {f"own|{k}": v for k, v in state.own.items()}
        tensors |= {f"optimiser|{k}": v for k, v in state.optimiser.items()}
        write_tensors(self.state, tensors, state.position)

    def read_state(self, device) -> State | None:
        """The last saved state, its tensors on a device; None when there is none."""
        if not self.state.exists():
            return None
        tensors, position = read_tensors(self.state, device)
        if not {"stage", "step", "done", "seconds", "scaler"} <= position.keys():
            raise damaged(self.state, "it says no position")
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


def damaged(path: Path, why: object) -> ValueError:
    """The error for a file of a run that nobody can read any more."""
    return ValueError(f"{path} is damaged ({why}); move the folder {path.parent} away and run again")


def read_lines(path: Path) -> list[dict]:
    """The complete lines of a .jsonl file; a last line cut by a kill is left out."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    except ValueError as e:
        raise damaged(path, e) from e


def write_lines(path: Path, rows: list[dict]) -> None:
    write(path, lambda p: p.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8"))


class Info(Record):
    """Of run.json."""

    key: str
    status: str
    job: dict
    labels: dict


class Measured(Record):
    """Of a line of results.jsonl."""

    value: Finite


class Tensors(Record):
    """Of the header of a safetensors file."""

    data_offsets: tuple[int, int]


def damage(run: Path) -> str:
    """What is wrong with a finished run, in a few words that name the file; "" for nothing."""
    for name, look in ((INFO, of_info), (RESULTS, of_results), (TRAINABLES, of_tensors)):
        try:
            wrong = look(run / name)
        except Wrong as error:
            wrong = f"{error.field or 'it'} {error}"
        except (ValueError, AttributeError) as error:
            wrong = str(error)
        except OSError as error:
            wrong = error.strerror or str(error)
        if wrong:
            return f"{name}: {' '.join(wrong.split())}"
    return ""


def of_info(path: Path) -> None:
    convert(json.loads(path.read_text(encoding="utf-8")), Info)


def of_results(path: Path) -> str | None:
    """At least one row, each with a finite value."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            convert(json.loads(line), Measured)
        except Wrong as error:
            return f"line {number}, {error.field or 'row'} {error}"
    return None if lines else "no row is measured"


def of_tensors(path: Path) -> str | None:
    """The header of a safetensors file says how long the file is."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 100_000_000)))
    header.pop("__metadata__", None)
    expected = 8 + length + max((convert(t, Tensors).data_offsets[1] for t in header.values()), default=0)
    return None if path.stat().st_size == expected else f"has {path.stat().st_size} of {expected} bytes"


def set_aside(run: Path) -> None:
    """Keep the files of a damaged run under other names, so that the run is trained again."""
    for name in KEPT:
        if (path := run / name).exists():
            os.replace(path, path.with_name(f"{name}.damaged"))


def is_run(path: Path) -> bool:
    """Whether a run.json is one of ours, damaged or not: another program's is left alone."""
    try:
        head = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return '"job"' in head or '"key"' in head or not head.strip().endswith("}")


def write_tensors(path: Path, tensors: dict, record: dict) -> None:
    """A file of tensors with a record."""
    from safetensors.torch import save

    data = save(
        {k: v.contiguous() for k, v in tensors.items()}, {"vlmlab": json.dumps(record, sort_keys=True)}
    )
    write(path, lambda p: p.write_bytes(data))


def read_tensors(path: Path, device) -> tuple[dict, dict]:
    """The tensors of a file, on a device, and its record; ValueError when it is damaged."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt", device=str(device)) as f:
            return {name: f.get_tensor(name) for name in f.keys()}, json.loads(f.metadata()["vlmlab"])
    except Exception as e:
        raise damaged(path, e) from e


def read_record(path: Path) -> dict:
    """The record of a file of tensors, without them."""
    from safetensors import safe_open

    try:
        with safe_open(path, "np") as f:
            return json.loads(f.metadata()["vlmlab"])
    except Exception as e:
        raise damaged(path, e) from e


def load_own(learner, tensors: dict, path: Path) -> None:
    """Copy saved tensors into a learner; ValueError names the first that do not fit."""
    import torch

    own = learner.own()
    wrong = sorted(
        (own.keys() ^ tensors.keys())
        | {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape}
    )
    if wrong:
        raise ValueError(
            f"{path} does not fit {type(learner).__name__}: {', '.join(wrong[:4])}; another version of it "
            f"made the file: move {path.parent} away and run again"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
