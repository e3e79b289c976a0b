"""Run folders: `runs/<study>/<method>/<task>/<key>/`. Reading them needs no torch.

run.json         what the run is: job, config, versions, fingerprints, status, timing
metrics.jsonl    one line per step: every loss term, the rate
trainables.safetensors   the trained parameters, nothing else
state.safetensors        what a killed run goes on from; gone when it is finished
results.jsonl    one line per measured number
"""

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pandas as pd

FORMAT = 1  # raise it when the same job would now give other numbers
COLUMNS = [
    "study",
    "method",
    "task",
    "protocol",
    "split",
    "shots",
    "seed",
    "rule",
    "metric",
    "value",
    "n",
    "key",
    "test",
]


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Write through a temporary name, so that no reader ever sees half a file.

    OSError with the path when the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(temporary)
        os.replace(temporary, path)
    except OSError as e:
        why = f"cannot write {path} ({e.strerror or e}); make room or choose another `out` folder"
        raise type(e)(why) from e
    finally:
        with contextlib.suppress(OSError):  # gone when it was renamed
            temporary.unlink()


def write_json(path: Path, value: object) -> None:
    write(path, lambda p: p.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n"))


def read_json(path: Path) -> dict:
    """ValueError that names the file and the fix when it is damaged."""
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise damaged(path, e) from e


def damaged(path: Path, why: object) -> ValueError:
    """The error for a file of a run that nobody can read any more."""
    return ValueError(f"{path} is damaged ({why}); delete the folder {path.parent} and run again")


def read_lines(path: Path) -> list[dict]:
    """The complete lines of a .jsonl file; a last line cut by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as e:
        raise damaged(path, e) from e


def write_lines(path: Path, rows: list[dict]) -> None:
    write(path, lambda p: p.write_text("".join(json.dumps(r) + "\n" for r in rows)))


def key_of(job: dict) -> str:
    """Short hash of everything that determines a run's numbers."""
    return hashlib.sha256(json.dumps([FORMAT, job], sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of Python, vlmlab and what the numbers come from."""
    from .. import __version__

    names = {"torch": "torch", "open_clip": "open_clip_torch", "torchvision": "torchvision"}
    return {
        "python": platform.python_version(),
        "vlmlab": __version__,
        **{name: importlib.metadata.version(package) for name, package in names.items()},
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Run:
    """One training run on disk.

    `key`, `status` (running, finished, failed), `info` (run.json), `metrics` (one row per step),
    `results` (measured rows). `model` is the trained method, once `attach` was told the model and the
    task.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / "run.json").is_file():
            raise FileNotFoundError(f"{self.path} holds no run.json; vlmlab.fit makes run folders")
        self._model = None

    @property
    def info(self) -> dict:
        path = self.path / "run.json"
        info = read_json(path)
        if not isinstance(info, dict) or not {"key", "job", "status", "classnames"} <= info.keys():
            raise damaged(path, "not everything a run records is there")
        return info

    @property
    def key(self) -> str:
        return self.info["key"]

    @property
    def status(self) -> str:
        return self.info["status"]

    @property
    def metrics(self) -> pd.DataFrame:
        return pd.DataFrame(read_lines(self.path / "metrics.jsonl"))

    @property
    def results(self) -> pd.DataFrame:
        info = self.info
        rows = [
            {**info["job"]["labels"], "key": info["key"], **r}
            for r in read_lines(self.path / "results.jsonl")
        ]
        return pd.DataFrame(rows, columns=COLUMNS)

    def save_results(self, rows: list[dict]) -> None:
        """Add measured rows; those of the same question about the same data (`test`) replace earlier ones."""
        same = ("task", "protocol", "split", "rule", "metric", "test")
        kept = {tuple(r.get(k) for k in same): r for r in [*read_lines(self.path / "results.jsonl"), *rows]}
        write_lines(self.path / "results.jsonl", list(kept.values()))

    @property
    def model(self):
        """The trained method, in evaluation mode, with the class names it was trained on."""
        if self._model is None:
            raise RuntimeError(f"{self.path} is not attached; call run.attach(vlm, task)")
        return self._model

    def attach(self, vlm, task) -> "Run":
        """Build the method on `vlm` and load the trained parameters.

        ValueError when they were trained on other frozen weights or the run is not finished.
        """
        from .. import methods

        info = self.info
        if info["status"] != "finished":
            raise ValueError(f"{self.path} is {info['status']}; call vlmlab.fit again to finish it")
        path = self.path / "trainables.safetensors"
        tensors, _ = read_tensors(path, vlm)
        method = methods.build(
            info["job"]["method"], vlm, info["classnames"], task.template, **info["job"]["config"]
        )
        load_trainables(method, tensors, path)
        self._model = method.eval()
        return self

    def __repr__(self) -> str:
        labels = self.info["job"]["labels"]
        return f"Run({labels['method']} {labels['task']} seed {labels['seed']}, {self.status}, {self.path})"


def write_tensors(path: Path, tensors: dict, record: dict) -> None:
    """A checkpoint: tensors with a record, which holds at least the `weights` (fingerprint) and `model`."""
    from safetensors.torch import save

    data = save(tensors, {"vlmlab": json.dumps(record, sort_keys=True)})
    write(path, lambda p: p.write_bytes(data))


def read_tensors(path: Path, vlm) -> tuple[dict, dict]:
    """The tensors, on the device of `vlm`, and the record of a checkpoint.

    ValueError when it is damaged or was made with other frozen weights than those of `vlm`.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt", device=str(vlm.device)) as f:
            record = json.loads(f.metadata()["vlmlab"])
            tensors = {name: f.get_tensor(name) for name in f.keys()}
        weights, model = record["weights"], record["model"]
    except Exception as e:
        raise damaged(path, e) from e
    if weights != vlm.fingerprint():
        raise ValueError(
            f"{path} was trained on weights {weights[:12]} ({model}), but {vlm.name} has "
            f"{vlm.fingerprint()[:12]}; load the model it was trained on"
        )
    return tensors, record


def load_trainables(method, tensors: dict, path: Path) -> None:
    """Copy saved parameters into a method; ValueError names the first that do not fit."""
    import torch

    own = method.trainable()
    wrong = sorted(
        (own.keys() ^ tensors.keys())
        | {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape}
    )
    if wrong:
        raise ValueError(
            f"{path} does not fit {type(method).__name__}: {', '.join(wrong[:4])}; another "
            f"version of the method made it, delete the folder {path.parent} and run again"
        )
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(tensors[name])


def runs(root: str | Path = "runs") -> list[Run]:
    """All run folders below `root`, in the order of their paths."""
    return [Run(p.parent) for p in sorted(Path(root).glob("**/run.json"))]


def results(root: str | Path = "runs", **filters) -> pd.DataFrame:
    """Every measured number below `root`, one row each.

    Columns: study, method, task, protocol, split, shots, seed, rule, metric, value, n, key, test.
    filters: column=value or column=[values]. ValueError for a column that does not exist.
    """
    frames = [r.results for r in runs(root)]
    frames = [f for f in frames if len(f)]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    for column, wanted in filters.items():
        if column not in COLUMNS:
            raise ValueError(f"results have no column {column!r}; there are {', '.join(COLUMNS)}")
        wanted = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
        frame = frame[frame[column].isin(wanted)]
    return frame.reset_index(drop=True)
