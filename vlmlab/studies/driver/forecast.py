"""What a call of `reproduce` has before it: runs that are missing, artefacts that are stale, how long that takes.

Times and sizes are those that receipts of the same study measured on this machine: of the same job before its code
changed, else of its method, else of all. Where nothing was measured that is said.
"""

import dataclasses
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

from .. import manifest
from ..jobs.receipts import TRAIN
from ..places import Places, known
from ..profiles import Job, with_followed
from .plan import Plan


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is missing and stale. minutes, gigabytes: of the missing runs, None where nobody measured them."""

    study: str
    profile: str
    runs: int
    missing: list[str]
    artefacts: int
    stale: list[str]
    minutes: float | None
    gigabytes: float | None
    free: float  # gigabytes on the disk of the runs
    page: str  # the gallery of what was made before, "" where there is none

    def __str__(self) -> str:
        head = f"{self.study}, profile {self.profile}: "
        if not (self.missing or self.stale):
            return f"{head}all {self.runs} runs and {self.artefacts} artefacts are there"
        size = "" if self.gigabytes is None else f", {self.gigabytes:.2f} GB of {self.free:.0f} free"
        time = f"about {spoken(self.minutes)}{size}" if self.minutes is not None else self.unknown()
        count = (
            f"{len(self.missing)} of {self.runs} runs are to be trained ({time}), " if self.missing else ""
        )
        lines = [f"{head}{count}{len(self.stale)} of {self.artefacts} artefacts are to be made"]
        if self.page:
            lines.append(f"meanwhile {self.page} shows what was made before; open it in a browser")
        return "\n".join(lines)

    def unknown(self) -> str:
        return f"how long is not known: none was measured here yet; {self.free:.0f} GB are free"


def spoken(minutes: float) -> str:
    if minutes < 120:
        return f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"
    return f"{minutes / 60:.1f} hours"


def forecast(plan: Plan, slots: int = 1) -> Forecast:
    """slots: jobs at a time."""
    jobs = with_followed(plan.all_jobs())
    with plan.index.at_rest():
        missing = [job for job in jobs if plan.index.done(job) is None]
        lacking = {job.id for job in missing}
        stale = [a.id for a in plan.artefacts if lacking & ids(plan.jobs(a)) or plan.look(a)[0]]
    receipts = {job.id: known(plan.index.receipt(job)) for job in jobs}
    seconds, size = (total(missing, jobs, receipts, name) for name in ("seconds", "bytes"))
    page = plan.places.figures / "index.html"
    return Forecast(
        plan.study.id,
        plan.profile.name,
        len(jobs),
        [job.label for job in missing],
        len(plan.artefacts),
        stale,
        None if seconds is None else seconds / 60 / slots,
        None if size is None else size / 1e9,
        shutil.disk_usage(existing(plan.places.runs)).free / 1e9,
        page.as_posix() if page.is_file() else "",
    )


def ids(jobs: list[Job]) -> set[str]:
    return {job.id for job in with_followed(jobs)}


def total(missing: list[Job], jobs: list[Job], receipts: dict[str, dict], name: str) -> float | None:
    """The sum over missing runs of what their receipts, or those of runs like them, measured."""
    found = {job.id: value for job in jobs if is_amount(value := receipts[job.id].get(name))}
    if not found:
        return None

    def mean(like: Callable[[Job], bool]) -> float | None:
        values = [found[job.id] for job in jobs if job.id in found and like(job)]
        return statistics.fmean(values) if values else None

    by_method = {
        method: mean(lambda job, m=method: job.method == m) for method in {j.method for j in missing}
    }
    return sum(found.get(j.id, by_method[j.method] or mean(lambda job: True)) for j in missing)


def is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e18


def existing(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    path = Path(os.path.abspath(path))
    return next(p for p in (path, *path.parents) if p.is_dir())


def plan(
    study: str | Path,
    profile: str = "demo",
    only: list[str] | None = None,
    runs: str | Path = "runs",
    figures: str | Path | None = None,
    notebooks: str | Path = "notebooks",
    jobs: int = 1,
    *,
    train: str = TRAIN,
    **others,
) -> Forecast:
    """What `reproduce` with the same arguments would do; nothing is trained, written or drawn."""
    found = manifest.load(study, notebooks)
    places = Places.of(profile, runs, figures, found.notebooks, **others)
    return forecast(Plan(found, profile, places, train, only), jobs)
