"""Runs on disk: opened, attached to their models, their numbers gathered. Reading them needs no torch."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from ..display import Panel, Shown, curve, escaped, settings, table
from ..schema import Wrong, convert
from .records import Measured, read_lines, write_lines
from .run_folder import INFO, RESULTS, TRAINABLES, RunFolder, found, sha256
from .tables import Scores

COLUMNS = [
    "study",
    "method",
    "variant",
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
SAME = ("task", "protocol", "split", "test", "rule", "metric")  # rows that answer the same question


class Run(Shown):
    """One training run on disk.

    `key`, `status` (running, finished, failed), `info` (run.json), `metrics` (one row per step),
    `results` (measured rows). `model` is the trained learner, once it is attached to its models; `open_run`
    does that from the folder alone.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / INFO).exists():
            raise FileNotFoundError(f"{self.path} holds no {INFO}; vlmlab.fit makes run folders")
        self._model = self.task = None

    @property
    def info(self) -> dict:
        return RunFolder(self.path).info()

    @property
    def key(self) -> str:
        return self.info["key"]

    @property
    def status(self) -> str:
        return self.info["status"]

    @property
    def digest(self) -> str:
        """sha256 of what it trained; of nothing where it trained nothing."""
        return sha256(self.path / TRAINABLES)

    @property
    def settings(self) -> dict:
        """The fields of its Config and Options, by name."""
        info = self.info
        return {**info["job"]["options"], **info["config"]}

    @property
    def metrics(self) -> pd.DataFrame:
        return pd.DataFrame(RunFolder(self.path).read_log())

    @property
    def results(self) -> pd.DataFrame:
        info = self.info
        rows = [{**info["labels"], "key": info["key"], **r} for r in read_lines(self.path / RESULTS)]
        return Scores(rows, columns=COLUMNS)

    def save_results(self, rows: list[dict]) -> None:
        """Add measured rows; those of the same question, on the same data, replace earlier ones. Other processes
        that measure the same run wait meanwhile. ValueError for a value that is not finite."""
        for row in rows:
            try:
                convert(row, Measured)
            except Wrong as e:
                raise ValueError(
                    f"{row.get('metric')} of {row.get('split')}: {e.field} {e}; not saved"
                ) from e
        with RunFolder(self.path).held():
            rows = [*read_lines(self.path / RESULTS), *rows]
            write_lines(self.path / RESULTS, list({tuple(r.get(k) for k in SAME): r for r in rows}.values()))

    @property
    def model(self):
        """The trained learner, in evaluation mode, with the class names it was trained on."""
        if self._model is None:
            raise RuntimeError(
                f"{self.path} is not attached; call run.attach(models, task), or vlmlab.open_run({str(self.path)!r})"
            )
        return self._model

    def attach(self, models, task=None, learner: type | None = None, config: object = None) -> "Run":
        """Build the learner on its models (one, or by role) and load what was trained.

        task: what it was trained on, as `run.task`. learner: its class, where no name leads to it. config:
        its Config, where files that it names lie elsewhere now. ValueError
        when it was trained on other weights or is not finished.
        """
        from .opening import attached

        self._model, self.task = attached(self, models, learner, config), task
        return self

    def panel(self) -> Panel:
        try:
            info = self.info
        except ValueError as e:  # looking at a damaged run says so
            return Panel("Run", f"{self.path}, damaged", {"why": e})
        labels = info["labels"]
        shots = f", {labels['shots']} shots" if labels.get("shots") else ""
        facts = {
            "task": f"{labels['task']}, {labels.get('protocol')}{shots}",
            "models": ", ".join(f"{role}: {m.get('name', '')}" for role, m in info.get("models", {}).items()),
            "trained": trained_in(info),
            "differs": info.get("differs"),
            "error": info.get("error"),
            "settings": settings(self.settings),
        }
        named = f"{name_of(labels)} {labels['task']} seed {labels['seed']}"
        return Panel("Run", f"{named}, {info['status']}, {self.path}", facts, self.numbers)

    def numbers(self) -> list[str]:
        """The loss as a curve and what was measured, as HTML."""
        try:
            log, scores = self.metrics, self.results
        except ValueError as e:
            return [escaped(e)]
        columns = ["split", "rule", "metric", "value", "n"]
        rows = scores[columns].astype(object).values.tolist()
        return [curve(log["loss"] if "loss" in log else [], "loss"), table(columns, rows) if rows else ""]


def name_of(labels: Mapping) -> str:
    """The method, with the variant of its settings where it has a name."""
    return f"{labels['method']}_{labels['variant']}" if labels.get("variant") else labels["method"]


def trained_in(info: Mapping) -> str:
    """'48 steps in 7 s on cpu'."""
    if info["status"] != "finished":
        return ""
    return f"{info['steps']:,} steps in {sum(info['seconds']):,.0f} s on {info['device']}"


def runs(root: str | Path = "runs") -> list[Run]:
    """All run folders below `root`, in the order of their paths, also linked ones. What is none is left alone, a
    damaged one is left out with a warning. FileNotFoundError when there is no such folder, ValueError when every
    run is damaged."""
    if not Path(root).is_dir():
        raise FileNotFoundError(f"there is no folder {root}; name the one that holds the runs")
    whole, errors = [], []
    for path in found(Path(root)):
        try:
            run = Run(path)
            run.info  # noqa: B018
            whole.append(run)
        except (ValueError, OSError) as e:
            errors.append(e)
    if errors and not whole:
        raise errors[0]
    for e in errors:  # they hide no other
        warnings.warn(f"left out: {e}", stacklevel=3)
    return whole


def results(root: str | Path = "runs", config: Iterable[str] = (), **filters) -> pd.DataFrame:
    """Every measured number below `root`, one row each.

    Columns: study, method, variant, task, protocol, split, shots, seed, rule, metric, value, n, key, and test,
    which tells the test data by content. config: names of settings to add as columns. filters: column=value
    or column=[values]. ValueError for a column that does not exist, or a setting that no run has,
    FileNotFoundError for a folder that does not. A damaged run is left out with a warning; when there is no
    other, it is an error.

    >>> table = vlmlab.results("runs", method="mmrlpp", split=["base", "new"])
    >>> table.pivot_table("value", "task", "split")
    >>> vlmlab.results("runs", config=["w_proj"], split="hm")  # a setting as a column
    """
    config, frames, known, errors = list(config), [], set(), []
    for run in runs(root):
        try:
            frame, settings = run.results, run.settings if config else {}
        except ValueError as e:
            errors.append(e)
            continue
        known |= settings.keys()
        if len(frame):
            frames.append(frame.assign(**{name: [settings.get(name)] * len(frame) for name in config}))
    if errors and not frames:
        raise errors[0]
    for e in errors:  # damaged numbers do not hide those of others
        warnings.warn(f"left out: {e}", stacklevel=2)
    if unknown := [name for name in config if frames and name not in known]:
        raise ValueError(f"no run has a setting {unknown[0]!r}; there are {', '.join(sorted(known))}")
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*COLUMNS, *config])
    for column, wanted in filters.items():
        if column not in frame:
            raise ValueError(f"results have no column {column!r}; there are {', '.join(frame.columns)}")
        wanted = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
        frame = frame[frame[column].isin(wanted)]
    return Scores(frame.reset_index(drop=True))


def differing(root: str | Path, frame: pd.DataFrame) -> list[str]:
    """'differs kd: ...', once for every method in a frame of results whose runs say what is not as in its paper."""
    said = {}
    for run in runs(root) if len(frame) else ():
        info = run.info
        if info["key"] in set(frame["key"]) and info.get("differs"):
            said[info["labels"]["method"]] = info["differs"]
    return [f"differs   {name}: {text}" for name, text in sorted(said.items())]


def open_run(path: str | Path, device: str | None = None) -> Run:
    """A finished run with its models, task and learner, from its folder alone.

    `run.model` is the learner, `run.task` the task it was trained on. ValueError when a model, the data or a
    file that its settings name is no longer what it was.

    >>> run = vlmlab.open_run("runs/adhoc/mmrlpp/emoji.food/0123456789abcdef")
    >>> run.settings["lr"], run.metrics["loss"]
    >>> vlmlab.capture(run.model, run.task.new, "image.final")
    """
    from .opening import opened

    return opened(Run(path), device)
