"""The runs of a study one by one, each by a command of its own: for a batch system without dask."""

import functools
import shlex
import sys
from pathlib import Path

from .. import manifest
from ..jobs import pool
from ..jobs.receipts import TRAIN, Index, train_missing
from ..places import Places, need_writable
from ..profiles import Job, with_followed
from .plan import Plan


def missing(plan: Plan) -> list[Job]:
    """The runs that are not there, each behind what it builds on."""
    with plan.index.at_rest():
        return [job for job in with_followed(plan.all_jobs()) if plan.index.done(job) is None]


def commands(
    study: str | Path,
    profile: str = "demo",
    only: list[str] | None = None,
    runs: str | Path = "runs",
    notebooks: str | Path = "notebooks",
    *,
    train: str = TRAIN,
    **others,
) -> list[str]:
    """One line of shell for each run that is missing, to be called from any folder and in any order."""
    found = manifest.load(study, notebooks)
    places = Places.of(profile, runs, None, found.notebooks, **others)
    call = [sys.executable, "-m", "vlmlab.cli", "reproduce", found.id, "--profile", profile]
    call += ["--runs", str(places.runs.absolute()), "--notebooks", str(places.notebooks.absolute())]
    start = f"cd {shlex.quote(str(Path.cwd()))} && "
    return [
        start + shlex.join([*call, "--job", job.id])
        for job in missing(Plan(found, profile, places, train, only))
    ]


def train_one(
    study: str | Path,
    profile: str,
    id: str,
    runs: str | Path = "runs",
    notebooks: str | Path = "notebooks",
    *,
    train: str = TRAIN,
    **others,
) -> str:
    """Train the run with this id (as `commands` prints it) unless it is there, and first what it builds on.

    Returns what went wrong, or "". Several of these may work side by side in the same folder of runs. ValueError
    for an id that no matrix of the profile has.
    """
    found = manifest.load(study, notebooks)
    jobs = {job.id: job for job in found.jobs(profile, tuple(found.profile(profile).matrices))}
    if id not in jobs:
        raise ValueError(
            f"profile {profile} of study {found.id} has no run {id!r}; `--print-jobs` lists those it has"
        )
    places = Places.of(profile, runs, None, found.notebooks, **others)
    need_writable(places.runs / found.id, "--runs")
    index, runner = Index(found.id, places, train), functools.partial(pool.answers, slots=1)
    failed = train_missing([jobs[id]], index, runner).failed
    return failed.get(id, "")
