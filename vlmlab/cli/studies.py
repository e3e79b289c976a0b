"""Commands on studies: reproduce, studies, cluster, explain, claims, verify, gallery."""

import argparse
import sys
from pathlib import Path

from . import options

VERDICTS = """

verdicts, at the scale of the profile:
  supported          the whole 95 % interval over seeds lies where the sentence holds
  refuted            it lies where the sentence does not hold
  undecided          it reaches across the threshold, or there is one seed only (n = 1)
  not testable here  runs or files are missing; the last column says which

Published numbers are judged apart: whether the paper's own table says what its text says. The same goes to
FIGURES/STUDY/claims.json. Nothing is trained. Exit status 0 whatever the verdicts are."""


STATES = """

The notebooks run again in a temporary folder; each CSV is compared with the one in FIGURES:
  identical          to the last digit
  within tolerance   with the largest relative difference
  different          with the first cells that differ
  not compared       never made, runs missing, or the notebook failed
Pictures are compared where the versions of the libraries are the same, and decide nothing. Nothing is
trained, and nothing in FIGURES changes. Exit status 0 when all were compared and agree, else 1."""


def reproduce(args: argparse.Namespace) -> int:
    from .. import studies
    from ..studies.places import notebooks_folder

    if args.only and not args.study:
        raise ValueError("--only names artefacts of one study; say which: vlmlab reproduce STUDY --only A,B")
    if (notebooks := notebooks_folder(args.notebooks)) != args.notebooks:
        print(
            f"no study in {args.notebooks} here: those that come with vlmlab, in {notebooks}", file=sys.stderr
        )
    ok = True
    for name in [args.study] if args.study else with_profile(args):
        try:
            summary = studies.reproduce(
                name,
                args.profile,
                args.only,
                args.runs,
                args.figures,
                args.notebooks,
                args.jobs,
                scheduler=args.scheduler,
            )
        except KeyboardInterrupt:
            print("\nstopped; what is done stays. Go on with the same command.", file=sys.stderr)
            return 130
        print(f"\n{name}\n{summary}")
        ok &= summary.ok
    return 0 if ok else 1


def every_study(notebooks: Path) -> list[str]:
    """FileNotFoundError where there is none."""
    from .. import studies

    if not (names := studies.names(notebooks)):
        raise FileNotFoundError(f"no study in {notebooks}; run this in the folder that holds notebooks/")
    return names


def with_profile(args: argparse.Namespace) -> list[str]:
    """The studies that have the profile asked for; the others are said to be left out."""
    from .. import studies

    found = {name: studies.load(name, args.notebooks) for name in every_study(args.notebooks)}
    there = [name for name, study in found.items() if args.profile in study.profiles]
    for name in found.keys() - {*there}:
        print(f"{name} has no profile {args.profile} and is left out", file=sys.stderr)
    if not there:
        raise ValueError(f"no study in {args.notebooks} has a profile {args.profile!r}")
    return there


def list_studies(args: argparse.Namespace) -> int:
    from .. import studies
    from ..studies.driver.runner import table

    if args.copy is not None:
        from ..studies import shipped

        copied = shipped.copy(args.copy, args.study)
        print(
            f"{len(copied)} files are in {args.copy / 'notebooks'}; `cd {args.copy}` and `vlmlab reproduce`"
        )
        return 0
    for name in [args.study] if args.study else every_study(args.notebooks):
        study = studies.load(name, args.notebooks)
        print(f"{name}: {study.title} (profiles {', '.join(study.profiles)})")
        print(table(studies.states(name, args.profile, args.runs, args.figures, args.notebooks)) + "\n")
    return 0


def check_cluster(args: argparse.Namespace) -> int:
    from ..studies.jobs.cluster_check import check

    return 0 if check(args.file, args.wait) else 1


def explain(args: argparse.Namespace) -> int:
    from ..studies import read_provenance

    found = read_provenance(args.figure)
    git = found["git"]
    changes = {True: ", with changes not committed", False: "", None: ""}[git["dirty"]]
    print(f"{args.figure}: {found['artefact']} of study {found['study']}, profile {found['profile']}")
    print(f"runs      {', '.join(found['run_keys']) or 'none'}")
    print(f"seeds     {', '.join(map(str, found['seeds'])) or 'none'}")
    print(f"commit    {git['commit'] or 'unknown'}{changes}")
    print(f"versions  {', '.join(f'{k} {v}' for k, v in found['versions'].items())}")
    words = ["vlmlab reproduce", found["study"], "--profile", found["profile"], "--only", found["artefact"]]
    print(f"again     {' '.join(words)}")
    return 0


def claims(args: argparse.Namespace) -> int:
    import json

    from ..studies.claims import judge as claims

    found = claims.judge(args.study, args.profile, args.runs, args.figures, args.notebooks)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else claims.table(found))
    return 0


def verify(args: argparse.Namespace) -> int:
    from ..studies.driver import verify

    checks = verify.verify(
        args.study,
        args.profile,
        args.only,
        args.runs,
        args.figures,
        args.notebooks,
        tolerance=args.tolerance,
        jobs=args.jobs,
    )
    print(verify.table(checks))
    return 0 if all(check.ok for check in checks) else 1


def gallery(args: argparse.Namespace) -> int:
    from ..studies.pages.gallery import build

    print(f"open {build(args.figures, args.notebooks)} in a browser")
    return 0


def commands(command) -> None:
    """reproduce, studies, cluster, explain, claims, verify, gallery."""
    p = command(
        "reproduce",
        reproduce,
        "Train what a study, or every study, lacks and remake its stale figures and tables.",
        "vlmlab reproduce alignednorm --only fig3a,table1 --jobs 2",
    )
    p.add_argument("study", nargs="?", metavar="STUDY", help="a folder of notebooks/ (all of them)")
    p.add_argument(
        "--only", type=lambda text: [i for i in text.split(",") if i], metavar="A,B", help="these artefacts"
    )
    p.add_argument(
        "--jobs",
        type=options.positive,
        default=1,
        metavar="N",
        help="cores for trainings and notebooks at a time (1)",
    )
    p.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="do the work on the workers of this dask scheduler (or scheduler file)",
    )
    places(p)
    p = command(
        "studies",
        list_studies,
        "List studies and artefacts: fresh, stale and why, missing, failed.",
        "vlmlab studies alignednorm",
    )
    p.add_argument("study", nargs="?", metavar="STUDY", help="only this one")
    p.add_argument(
        "--copy", type=Path, metavar="DIR", help="copy the notebooks that come with vlmlab to DIR/notebooks"
    )
    places(p)
    p = command(
        "cluster",
        check_cluster,
        "Try a dask-jobqueue file: print the job script, start one worker, "
        "run a job of one second, say what is wrong.",
        "vlmlab cluster check slurm.yaml",
    )
    p.add_argument("what", choices=["check"], metavar="check", help="try it; nothing stays running")
    p.add_argument("file", type=Path, metavar="FILE.yaml", help="`jobqueue:` with one batch system")
    p.add_argument(
        "--wait", type=options.positive, default=120, metavar="S", help="seconds to wait for the worker (120)"
    )
    p = command(
        "explain",
        explain,
        "Say where a figure or table came from, and how to make it again.",
        "vlmlab explain figures/alignednorm/fig3a.png",
    )
    p.add_argument(
        "figure",
        type=Path,
        metavar="FIGURE",
        help="an .svg, .png, .pdf, .tex or .html that vlmlab wrote, wherever it is now, or a .csv "
        "with one of them beside it",
    )
    claim_commands(command)
    p = command(
        "gallery",
        gallery,
        "Make index.html, the page with all figures, tables and claims.",
        "vlmlab gallery --figures figures",
    )
    p.add_argument(
        "--figures",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help="where the figures are and the page goes (figures)",
    )
    p.add_argument(
        "--notebooks",
        type=Path,
        default=Path("notebooks"),
        metavar="DIR",
        help="the folder with the studies (notebooks)",
    )


def claim_commands(command) -> None:
    """claims, verify."""
    p = command(
        "claims",
        claims,
        "Test a paper's sentences on the numbers that are there.",
        "vlmlab claims alignednorm --json",
    )
    p.epilog += VERDICTS
    p.add_argument("study", metavar="STUDY", help="a folder of notebooks/ with a claims.toml")
    p.add_argument("--json", action="store_true", help="everything, with the sentences, as JSON")
    places(p)
    p = command(
        "verify",
        verify,
        "Make numbers again from the runs that are there and compare them.",
        "vlmlab verify alignednorm --only fig3a,table1 --tolerance 1e-4",
    )
    p.epilog += STATES
    p.add_argument("study", metavar="STUDY", help="a folder of notebooks/")
    p.add_argument(
        "--only", type=lambda text: [i for i in text.split(",") if i], metavar="A,B", help="these artefacts"
    )
    p.add_argument(
        "--tolerance",
        type=float,
        default=1e-6,
        metavar="R",
        help="how far numbers may lie apart, relative to the larger (1e-6)",
    )
    p.add_argument(
        "--jobs", type=options.positive, default=1, metavar="N", help="cores for notebooks at a time (1)"
    )
    places(p)


def places(p: argparse.ArgumentParser) -> None:
    """Profile and folders, the same for all that works on a study."""
    p.add_argument("--profile", default="demo", help="smoke, demo or paper, as in study.toml (demo)")
    p.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="trained runs (runs)")
    p.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="where figures go (figures; for other profiles than demo RUNS/figures/PROFILE)",
    )
    p.add_argument(
        "--notebooks",
        type=Path,
        default=Path("notebooks"),
        metavar="DIR",
        help="the folder with the studies (notebooks)",
    )
