"""Commands that make a study: reproduce, here or on a cluster, and cluster check."""

import argparse
import json
import sys
from pathlib import Path

from ..nearest import hint
from . import options
from .places import only, places, stoppable, study

AFTER = """
without dask, one batch job for each run, then the figures:
  vlmlab reproduce alignednorm --profile paper --print-jobs > jobs.txt
  sbatch --array=1-$(wc -l < jobs.txt) --wrap 'bash -c "$(sed -n ${SLURM_ARRAY_TASK_ID}p jobs.txt)"'
  vlmlab reproduce alignednorm --profile paper

Methods and measures of your own: methods/NAME.py and measures/NAME.py beside the folder with the studies."""


def reproduce(args: argparse.Namespace) -> int:
    if args.only and not args.study:
        raise ValueError("--only names artefacts of one study; say which: vlmlab reproduce STUDY --only A,B")
    if (args.job or args.print_jobs) and not args.study:
        raise ValueError("runs are those of one study; say which: vlmlab reproduce STUDY --print-jobs")
    from ..studies.places import notebooks_folder

    if (folder := notebooks_folder(args.notebooks)) != args.notebooks and "/" not in (args.study or ""):
        print(f"no study in {args.notebooks} here: those that come with vlmlab, in {folder}", file=sys.stderr)
    names, problems = ([args.study], []) if args.study else with_profile(args)
    act = one_run if args.job else print_jobs if args.print_jobs else show_plan if args.plan else make
    with stoppable():
        status = [act(args, name) for name in names]
    return said(problems) or max(status, default=0)


def said(problems: list[str]) -> int:
    """Print what cannot be read; the exit status that it means."""
    for problem in problems:
        print(" ".join(problem.split()), file=sys.stderr)
    return 2 if problems else 0


def make(args: argparse.Namespace, name: str) -> int:
    from .. import studies

    where = (args.runs, args.figures, args.notebooks, args.jobs)
    summary = studies.reproduce(
        name, args.profile, args.only, *where, scheduler=args.scheduler, batch=args.cluster
    )
    if args.json:
        print(json.dumps({"study": name, **summary.plain()}, ensure_ascii=False))
    else:
        print(f"\n{name}\n{summary}")
    return 0 if summary.ok else 1


def show_plan(args: argparse.Namespace, name: str) -> int:
    import dataclasses

    from .. import studies

    where = (args.runs, args.figures, args.notebooks, args.jobs)
    found = studies.plan(name, args.profile, args.only, *where)
    print(json.dumps(dataclasses.asdict(found), ensure_ascii=False) if args.json else found)
    return 0


def print_jobs(args: argparse.Namespace, name: str) -> int:
    from ..studies.driver.one_by_one import commands

    lines = commands(name, args.profile, args.only, args.runs, args.notebooks)
    print("\n".join(lines) if lines else "# every run is there", flush=True)
    print(f"{len(lines)} runs; when they are done, the same command without --print-jobs", file=sys.stderr)
    return 0


def one_run(args: argparse.Namespace, name: str) -> int:
    from ..studies.driver.one_by_one import train_one

    if problem := train_one(name, args.profile, args.job, args.runs, args.notebooks):
        print(f"vlmlab: error: {problem}", file=sys.stderr)
    return 1 if problem else 0


def every_study(folder: Path) -> list[str]:
    """FileNotFoundError where there is none."""
    from .. import studies

    if not (names := studies.names(folder)):
        raise FileNotFoundError(
            f"no study in {folder}; run this in the folder that holds notebooks/, or name one with --notebooks"
        )
    return names


def readable(folder: Path) -> tuple[dict, list[str]]:
    """The studies that can be read, by name, and what is wrong with each of the others."""
    from .. import studies

    found, problems = {}, []
    for name in every_study(folder):
        try:
            found[name] = studies.load(name, folder)
        except (ValueError, OSError) as error:
            problems.append(f"vlmlab: error: {error}")
    return found, problems


def with_profile(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The studies that have the profile asked for, the others are said to be left out; and what cannot be read."""
    found, problems = readable(args.notebooks)
    there = [name for name, study in found.items() if args.profile in study.profiles]
    for name in found.keys() - {*there}:
        print(f"{name} has no profile {args.profile} and is left out", file=sys.stderr)
    if found and not there:
        profiles = sorted({name for study in found.values() for name in study.profiles})
        meant = hint(args.profile, profiles)
        raise ValueError(
            f"no study in {args.notebooks} has a profile {args.profile!r}{meant}; there are {', '.join(profiles)}"
        )
    lacking = {name: why for name in there if (why := found[name].untrained(args.profile))}
    for name, why in lacking.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    return [name for name in there if name not in lacking], problems


def check_cluster(args: argparse.Namespace) -> int:
    from ..studies.jobs.cluster_check import check

    with stoppable():
        return 0 if check(args.file, args.wait) else 1


def commands(command) -> None:
    """reproduce, cluster."""
    p = command(
        "reproduce",
        reproduce,
        "Train what a study, or every study, lacks and remake its stale figures and tables.",
        "vlmlab reproduce alignednorm --only fig3a,table1 --jobs 2",
    )
    p.epilog += "\n" + AFTER
    study(p, "a folder of notebooks/ (all of them)", nargs="?")
    only(p)
    text = "cores for trainings and notebooks at a time; with --cluster, workers at a time (1)"
    p.add_argument("--jobs", type=options.positive, default=1, metavar="N", help=text)
    text = "say what is missing, how long and how large it will be, and stop"
    p.add_argument("-n", "--plan", "--dry-run", action="store_true", help=text)
    text = "do the work on workers that this dask-jobqueue file starts (notebooks/slurm.yaml shows one)"
    p.add_argument("--cluster", type=Path, metavar="FILE.yaml", help=text)
    text = "do the work on the workers of this dask scheduler (or scheduler file)"
    p.add_argument("--scheduler", metavar="ADDRESS", help=text)
    text = "print one command for each run that is missing, for a batch system without dask"
    p.add_argument("--print-jobs", action="store_true", help=text)
    p.add_argument("--job", metavar="ID", help="train this run alone, as --print-jobs prints it")
    p.add_argument("--json", action="store_true", help="the plan or the summary as JSON")
    places(p)
    cluster_command(command)


def cluster_command(command) -> None:
    p = command(
        "cluster",
        check_cluster,
        "Try a dask-jobqueue file: print the job script, start one worker, "
        "run a job of one second, say what is wrong.",
        "vlmlab cluster check slurm.yaml",
    )
    p.usage = "vlmlab cluster check FILE.yaml [--wait S] [--debug]"
    p.add_argument("what", choices=["check"], metavar="check", help="try it; nothing stays running")
    p.add_argument("file", type=Path, metavar="FILE.yaml", help="`jobqueue:` with one batch system")
    text = "seconds to wait for the worker (120)"
    p.add_argument("--wait", type=options.positive, default=120, metavar="S", help=text)
