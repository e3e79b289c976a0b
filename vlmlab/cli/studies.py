"""Commands on what studies made: studies, explain, claims, verify, gallery."""

import argparse
import dataclasses
import json
import shlex
from pathlib import Path

from . import options
from .places import notebooks, only, places, stoppable, study
from .reproduce import readable, said

VERDICTS = """

verdicts, at the scale of the profile (supported and refuted where it is the paper's):
  holds here           the whole 95 % interval, over seeds and test concepts, lies where the sentence holds
  does not hold here   it lies where the sentence does not hold
  not decided          it reaches across the threshold, or there is one seed only (n = 1)
  not testable here    runs or files are missing; the last column says which
"after correction" says whether a verdict stays by Holm's rule for their number; "detectable" is the distance from the
threshold that would be called in four of five such measurements.

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


def list_studies(args: argparse.Namespace) -> int:
    from .. import studies
    from ..studies.driver.runner import table

    if args.copy is not None:
        from ..studies import shipped

        copied = shipped.copy(args.copy, args.study)
        there = args.copy / "notebooks"
        print(f"{len(copied)} files are in {there}; `cd {args.copy}` and `vlmlab reproduce`")
        return 0
    if args.study:
        chosen, problems = {args.study: studies.load(args.study, args.notebooks)}, []
    else:
        chosen, problems = readable(args.notebooks)
    for name, found in chosen.items():
        rows = studies.states(name, args.profile, args.runs, args.figures, args.notebooks)
        if args.json:
            about = {"study": found.id, "title": found.title, "profiles": [*found.profiles]}
            plain = [dataclasses.asdict(row) for row in rows]
            print(json.dumps(about | {"profile": args.profile, "artefacts": plain}, ensure_ascii=False))
        else:
            print(f"{found.id}: {found.title} (profiles {', '.join(found.profiles)})\n{table(rows)}\n")
    return said(problems)


def printable(text: object) -> str:
    """A text from a file, with nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def explain(args: argparse.Namespace) -> int:
    from ..studies import read_provenance

    found = read_provenance(args.figure)
    words = ["reproduce", found["study"], "--profile", found["profile"], "--only", found["artefact"]]
    again = f"vlmlab {shlex.join(words)}"
    if args.json:
        print(json.dumps(found | {"again": again}))
        return 0
    git = found["git"]
    changes = ", with changes not committed" if git.get("dirty") is True else ""
    lines = [
        f"{args.figure}: {found['artefact']} of study {found['study']}, profile {found['profile']}",
        f"runs      {', '.join(found['run_keys']) or 'none'}",
        f"seeds     {', '.join(map(str, found['seeds'])) or 'none'}",
        f"commit    {git.get('commit') or 'unknown'}{changes}",
        f"versions  {', '.join(f'{k} {v}' for k, v in found['versions'].items())}",
        f"again     {again}",
    ]
    print("\n".join(map(printable, lines)))
    return 0


def claims(args: argparse.Namespace) -> int:
    from ..studies.claims import judge as claims

    found = claims.judge(args.study, args.profile, args.runs, args.figures, args.notebooks)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else claims.table(found))
    return 0


def verify(args: argparse.Namespace) -> int:
    from ..studies.driver import verify

    where = (args.runs, args.figures, args.notebooks)
    with stoppable():
        checks = verify.verify(
            args.study, args.profile, args.only, *where, tolerance=args.tolerance, jobs=args.jobs
        )
    if args.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], ensure_ascii=False))
    else:
        print(verify.table(checks))
    return 0 if all(check.ok for check in checks) else 1


def gallery(args: argparse.Namespace) -> int:
    from ..studies.pages.gallery import build

    if not args.figures.is_dir():
        raise FileNotFoundError(
            f"there is no folder {args.figures}; `vlmlab reproduce` makes figures, or --figures names them"
        )
    print(f"open {build(args.figures, args.notebooks)} in a browser")
    return 0


def as_json(p: argparse.ArgumentParser, text: str = "as JSON") -> None:
    p.add_argument("--json", action="store_true", help=text)


def commands(command) -> None:
    """studies, explain, claims, verify, gallery."""
    text = "List studies and artefacts: fresh, stale and why, missing, failed."
    p = command("studies", list_studies, text, "vlmlab studies alignednorm")
    study(p, "only this one", nargs="?")
    text = "copy the notebooks that come with vlmlab to DIR/notebooks"
    p.add_argument("--copy", type=Path, metavar="DIR", help=text)
    as_json(p, "as JSON, a line for each study")
    places(p)
    text = "Say where a figure or table came from, and how to make it again."
    p = command("explain", explain, text, "vlmlab explain figures/alignednorm/fig3a.png")
    text = (
        "an .svg, .png, .pdf, .tex or .html that vlmlab wrote, wherever it is now, or a .csv "
        "with one of them beside it"
    )
    p.add_argument("figure", type=Path, metavar="FIGURE", help=text)
    as_json(p)
    claim_commands(command)
    text = "Make index.html, the page with all figures, tables and claims."
    p = command("gallery", gallery, text, "vlmlab gallery --figures figures")
    text = "where the figures are and the page goes (figures)"
    p.add_argument("--figures", type=Path, default=Path("figures"), metavar="DIR", help=text)
    notebooks(p)


def claim_commands(command) -> None:
    """claims, verify."""
    text = "Test a paper's sentences on the numbers that are there."
    p = command("claims", claims, text, "vlmlab claims alignednorm --json")
    p.epilog += VERDICTS
    study(p, "a folder of notebooks/ with a claims.toml")
    as_json(p, "everything, with the sentences, as JSON")
    places(p)
    text = "Make the numbers again and compare them with those in figures/."
    p = command("verify", verify, text, "vlmlab verify alignednorm --only fig3a,table1")
    p.epilog += STATES
    study(p, "a folder of notebooks/")
    only(p)
    text = "how far numbers may lie apart, relative to the larger (1e-6)"
    p.add_argument("--tolerance", type=float, default=1e-6, metavar="R", help=text)
    text = "cores for notebooks at a time (1)"
    p.add_argument("--jobs", type=options.positive, default=1, metavar="N", help=text)
    as_json(p)
    places(p)
