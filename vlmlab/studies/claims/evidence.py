"""What claims are judged on: rows of runs under draws of the test concepts, of artefacts, of published tables."""

import dataclasses
from pathlib import Path

import pandas as pd

from ..jobs.receipts import TRAIN, Index
from ..manifest import Study
from ..pages import table_damage
from ..pages.artefact import measured_by
from ..pages.provenance import read_provenance
from ..places import Places
from .answers import drawn


@dataclasses.dataclass(frozen=True)
class Rows:
    """Tidy rows with what they are evidence of."""

    frame: pd.DataFrame
    evidence: str
    keys: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


class Evidence:
    """Reads what claims name as data, each once. LookupError says why it cannot be had."""

    def __init__(self, study: Study, profile: str, places: Places, train: str = TRAIN):
        self.study, self.profile, self.places, self.train = study, profile, places, train
        study.profile(profile)
        self.found: dict[str, Rows | LookupError] = {}

    def first(self, names: list[str]) -> Rows:
        """Of the first that can be read; LookupError with all reasons."""
        problems = []
        for name in names:
            if name not in self.found:
                try:
                    self.found[name] = self.read(name)
                except LookupError as error:
                    self.found[name] = error
            if isinstance(self.found[name], Rows):
                return self.found[name]
            problems.append(self.found[name].args[0])
        raise LookupError("; ".join(problems))

    def read(self, name: str) -> Rows:
        kind, _, rest = name.partition("/")
        if kind == "published" and rest:
            return self.published(rest)
        return self.runs(*rest.split("/")) if kind == "runs" and rest else self.artefact(name)

    def published(self, table: str) -> Rows:
        path = self.places.data / "published" / self.study.id / f"{table}.csv"
        if not path.is_file():
            raise LookupError(f"there are no published numbers {path.name}")
        frame = table_of(path).rename(columns={"dataset": "task"})
        return Rows(frame, f"published/{table}")

    def runs(self, matrix: str, metric: str) -> Rows:
        """One row per run, task and split, with averages over tasks, under draws of the test concepts; all runs of the
        matrices (joined by +) or none, on the tasks that every method has."""
        from ..pages.by_seed import per_seed

        matrices = tuple(matrix.split("+"))
        if lacks := [m for m in matrices if m not in self.study.profile(self.profile).matrices]:
            raise LookupError(f"profile {self.profile} has no matrix {lacks[0]}")
        index = Index(self.study.id, self.places, self.train)
        jobs = self.study.jobs(self.profile, matrices)
        done = [d for job in jobs if (d := index.done(job))]
        if len(done) < len(jobs):
            raise LookupError(
                f"{len(jobs) - len(done)} of {len(jobs)} runs of {matrix} are missing, or of "
                "other code or data"
            )
        names = pd.DataFrame([(job.name, job.task) for job in jobs], columns=["name", "task"])
        counts = names.groupby("task")["name"].nunique()
        shared = set(counts.index[counts == names["name"].nunique()])
        chosen = [
            (self.places.runs / d.run, j.protocol, j.variant) for j, d in zip(jobs, done) if j.task in shared
        ]
        told = f"runs/{matrix}: {len(done)} runs, {metric}"
        try:
            rows = drawn(chosen, metric)
        except LookupError as error:
            rows = pd.concat([measured_by(*run) for run in chosen], ignore_index=True)
            rows, told = rows[rows["metric"] == metric], f"{told} (test images as they are: {error.args[0]})"
            if rows.empty:
                raise
        frame = per_seed(rows, self.study.id, data=self.places.data)
        frame.attrs |= rows.attrs
        return Rows(frame, told, tuple(d.key for d in done), tuple(job.seed for job in jobs))

    def artefact(self, name: str) -> Rows:
        """The numbers of an artefact that was made under the profile, one by one where it keeps them (`save`, each=);
        its record tells the seeds."""
        folder = self.places.figures / self.study.id
        path = folder / f"{name}.csv"
        each = path.with_name(f"{name}.each.csv")
        if not path.is_file():
            known = name in self.study.artefacts
            what = "was not made yet" if known else f"is no artefact of study {self.study.id} yet"
            raise LookupError(f"{name} {what}")
        try:
            note = read_provenance(path)
        except ValueError as error:
            raise LookupError(str(error)) from error
        if note["profile"] != self.profile:
            raise LookupError(f"{name} was made under profile {note['profile']}")
        frame = table_of(each if each.is_file() else path)
        if "kind" in frame:
            frame = frame[frame["kind"] == "measured"]
        return Rows(frame, name, tuple(note["run_keys"]), tuple(note["seeds"]))


def table_of(path: Path) -> pd.DataFrame:
    """A CSV; LookupError names one that cannot be read."""
    try:
        return table_damage.read(path)
    except ValueError as error:
        raise LookupError(f"{path.name} cannot be used: {' '.join(str(error).split())}") from error
