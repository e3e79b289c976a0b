"""The command line: `vlmlab COMMAND`, each a thin call of the library."""
import argparse
import ast
import os
import sys
import types
import typing
from pathlib import Path

from . import __version__

EXAMPLES = """examples:
  vlmlab reproduce alignednorm              train what is missing, make its figures
  vlmlab studies                            what there is and what is fresh
  vlmlab explain figures/alignednorm/fig3a.svg
  vlmlab fit aligned_norm emoji/animals --shots 16 --set w_proj=0.1
  vlmlab results --where method=aligned_norm

`vlmlab COMMAND --help` explains one command."""

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
    from . import studies

    try:
        summary = studies.reproduce(args.study, args.profile, args.only, args.runs, args.figures,
                                    args.notebooks, args.jobs, scheduler=args.scheduler)
    except KeyboardInterrupt:
        print("\nstopped; what is done stays. Go on with the same command.", file=sys.stderr)
        return 130
    print(f"\n{summary}")
    return 0 if summary.ok else 1


def list_studies(args: argparse.Namespace) -> int:
    from . import studies
    from .studies.runner import table

    names = [args.study] if args.study else studies.names(args.notebooks)
    if not names:
        raise FileNotFoundError(f"no study in {args.notebooks}; run this in the folder that holds notebooks/")
    for name in names:
        study = studies.load(name, args.notebooks)
        print(f"{name}: {study.title} (profiles {', '.join(study.profiles)})")
        print(table(studies.states(name, args.profile, args.runs, args.figures, args.notebooks)) + "\n")
    return 0


def check_cluster(args: argparse.Namespace) -> int:
    from .studies.cluster_check import check

    return 0 if check(args.file, args.wait) else 1


def explain(args: argparse.Namespace) -> int:
    from .studies import read_provenance

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

    from .studies import claims

    found = claims.judge(args.study, args.profile, args.runs, args.figures, args.notebooks)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else claims.table(found))
    return 0


def verify(args: argparse.Namespace) -> int:
    from .studies import verify

    checks = verify.verify(args.study, args.profile, args.only, args.runs, args.figures, args.notebooks,
                           tolerance=args.tolerance, jobs=args.jobs)
    print(verify.table(checks))
    return 0 if all(check.ok for check in checks) else 1


def gallery(args: argparse.Namespace) -> int:
    from .studies.gallery import build

    print(f"open {build(args.figures, args.notebooks)} in a browser")
    return 0


def pretrain(args: argparse.Namespace) -> int:
    from .train.pretrain import Recipe
    from .train.pretrain import pretrain as train

    given = {"samples": args.samples, "seed": args.seed}
    run = train(args.out, Recipe(**{k: v for k, v in given.items() if v is not None}), device=args.device,
                threads=args.threads)
    print(f"trained in {args.out}")
    if args.export:
        print(f"exported to {run.export(args.export)}")
    return 0


def card(args: argparse.Namespace) -> int:
    from .train.card import main as measure

    return measure(args.model, args.quick)


def fit(args: argparse.Namespace) -> int:
    import vlmlab

    from .train.fit import Options

    options = settings(args.method, args.set, Options)
    options |= {k: v for k, v in (("epochs", args.epochs), ("out", args.out)) if v is not None}
    vlm = vlmlab.load(args.model, args.pretrained, device=args.device)
    shots = args.shots or (None if args.protocol == "zero_shot" else 16)
    real = {k: v for k, v in (("root", args.root), ("make_split", args.make_split)) if v}
    task = vlmlab.task(args.task, protocol=args.protocol, shots=shots, seed=args.seed, **real)
    run = vlmlab.fit(args.method, vlm, task, **options)
    for rule in args.rule or ["unified"]:
        print(vlmlab.evaluate(run, task, rule=rule).to_string(index=False))
    print(f"run       {run.path}")
    return 0


def results(args: argparse.Namespace) -> int:
    import vlmlab

    filters = dict(split(text) for text in args.where)
    frame = vlmlab.results(args.runs)
    for key, value in filters.items():
        if key not in frame:
            raise ValueError(f"results have no column {key!r}; they have {', '.join(frame.columns)}")
        frame = frame[frame[key].astype(str) == value]
    print(frame.to_csv(index=False) if args.csv else frame.to_string(index=False))
    return 0


def list_models(args: argparse.Namespace) -> int:
    from .models.load import embedded

    print("\n".join(embedded()))
    print("and every open_clip architecture (ViT-B-16-quickgelu --pretrained openai), local folder or file")
    return 0


def data(args: argparse.Namespace) -> int:
    import json

    from .tasks import coop, coop_check

    reports = coop_check.check(coop.root_folder(args.root), args.dataset or coop.names())
    print(json.dumps([r.record() for r in reports], indent=1) if args.json else coop_check.table(reports))
    return 0 if all(r.ready for r in reports) else 1


def list_tasks(args: argparse.Namespace) -> int:
    from . import tasks

    print("\n".join(tasks.names()))
    return 0


def list_methods(args: argparse.Namespace) -> int:
    from . import methods

    for name in methods.names():
        print(f"{name}: {methods.describe(name)}")
    return 0


def split(text: str) -> tuple[str, str]:
    """'key=value' -> ('key', 'value')."""
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise ValueError(f"{text!r} is not of the form key=value")
    return key.strip(), value.strip()


def settings(method: str, texts: list[str], options: type) -> dict:
    """--set key=value, typed by the method's Config and by the dataclass of training options.

    ValueError names an unknown key, or a value of the wrong type, and what is legal.
    """
    from . import methods

    legal = {**typing.get_type_hints(methods.config(method)), **typing.get_type_hints(options)}
    chosen = {}
    for key, value in map(split, texts):
        if key not in legal:
            raise ValueError(f"{method} and its training have no {key!r}; legal are {', '.join(legal)}")
        chosen[key] = typed(key, value, legal[key])
    return chosen


def typed(key: str, text: str, kind: object) -> object:
    """The value of a text as a type: bool, int, float, str, tuple, list, or a union with None."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kinds = typing.get_args(kind)
        if type(None) in kinds and text.lower() == "none":
            return None
        kind = next(k for k in kinds if k is not type(None))
    kind = typing.get_origin(kind) or kind
    if kind is str:
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
        if kind is float and type(value) is int:
            value = float(value)
        if kind in (tuple, list) and type(value) in (tuple, list):
            value = kind(value)
    except (ValueError, SyntaxError):
        value = text
    if type(value) is not kind:
        raise ValueError(f"{key} must be {getattr(kind, '__name__', kind)}, got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    shape = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    about = "Look inside vision-language models and reproduce papers about them."
    ap = argparse.ArgumentParser(prog="vlmlab", description=about, epilog=EXAMPLES, **shape)
    ap.add_argument("--version", action="version", version=f"vlmlab {__version__}")
    commands = ap.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run, text: str, example: str) -> argparse.ArgumentParser:
        p = commands.add_parser(name, help=text, description=text, epilog=f"example:\n  {example}", **shape)
        p.add_argument("--debug", action="store_true", help="show the traceback of an error")
        p.set_defaults(run=run)
        return p

    study_commands(command)
    pretrain_command(command)
    fit_command(command)
    p = command("results", results, "Print what all runs measured.",
                "vlmlab results --where method=mmrlpp --where split=new --csv")
    p.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="trained runs (runs)")
    p.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only these rows")
    p.add_argument("--csv", action="store_true", help="as CSV")
    command("models", list_models, "List the models that vlmlab.load knows.", "vlmlab models")
    command("tasks", list_tasks, "List the tasks.", "vlmlab tasks")
    p = command("data", data, "Say which of the real data sets are there, what is missing, where to get it.",
                "vlmlab data check --root /data --dataset caltech101")
    p.add_argument("action", choices=["check"], metavar="check", help="look, download nothing")
    root_option(p)
    p.add_argument("--dataset", action="append", metavar="NAME", help="only this one, repeatable")
    p.add_argument("--json", action="store_true", help="as JSON")
    command("methods", list_methods, "List the methods with their parameters and defaults.", "vlmlab methods")
    return ap


def study_commands(command) -> None:
    """reproduce, studies, cluster, explain, claims, verify, gallery."""
    p = command("reproduce", reproduce, "Train what a study lacks and remake its stale figures and tables.",
                "vlmlab reproduce alignednorm --only fig3a,table1 --jobs 2")
    p.add_argument("study", metavar="STUDY", help="a folder of notebooks/")
    p.add_argument("--only", type=lambda text: [i for i in text.split(",") if i], metavar="A,B",
                   help="these artefacts")
    p.add_argument("--jobs", type=positive, default=1, metavar="N",
                   help="cores for trainings and notebooks at a time (1)")
    p.add_argument("--scheduler", metavar="ADDRESS",
                   help="do the work on the workers of this dask scheduler (or scheduler file)")
    places(p)
    p = command("studies", list_studies, "List studies and artefacts: fresh, stale and why, missing, failed.",
                "vlmlab studies alignednorm")
    p.add_argument("study", nargs="?", metavar="STUDY", help="only this one")
    places(p)
    p = command("cluster", check_cluster, "Try a dask-jobqueue file: print the job script, start one worker, "
                "run a job of one second, say what is wrong.", "vlmlab cluster check slurm.yaml")
    p.add_argument("what", choices=["check"], metavar="check", help="try it; nothing stays running")
    p.add_argument("file", type=Path, metavar="FILE.yaml", help="`jobqueue:` with one batch system")
    p.add_argument("--wait", type=positive, default=120, metavar="S",
                   help="seconds to wait for the worker (120)")
    p = command("explain", explain, "Say where a figure or table came from, and how to make it again.",
                "vlmlab explain figures/alignednorm/fig3a.png")
    p.add_argument("figure", type=Path, metavar="FIGURE",
                   help="an .svg, .png, .pdf, .tex or .html that vlmlab wrote, wherever it is now, or a .csv "
                   "with one of them beside it")
    claim_commands(command)
    p = command("gallery", gallery, "Make index.html, the page with all figures, tables and claims.",
                "vlmlab gallery --figures figures")
    p.add_argument("--figures", type=Path, default=Path("figures"), metavar="DIR",
                   help="where the figures are and the page goes (figures)")
    p.add_argument("--notebooks", type=Path, default=Path("notebooks"), metavar="DIR",
                   help="the folder with the studies (notebooks)")


def claim_commands(command) -> None:
    """claims, verify."""
    p = command("claims", claims, "Test a paper's sentences on the numbers that are there.",
                "vlmlab claims alignednorm --json")
    p.epilog += VERDICTS
    p.add_argument("study", metavar="STUDY", help="a folder of notebooks/ with a claims.toml")
    p.add_argument("--json", action="store_true", help="everything, with the sentences, as JSON")
    places(p)
    p = command("verify", verify, "Make numbers again from the runs that are there and compare them.",
                "vlmlab verify alignednorm --only fig3a,table1 --tolerance 1e-4")
    p.epilog += STATES
    p.add_argument("study", metavar="STUDY", help="a folder of notebooks/")
    p.add_argument("--only", type=lambda text: [i for i in text.split(",") if i], metavar="A,B",
                   help="these artefacts")
    p.add_argument("--tolerance", type=float, default=1e-6, metavar="R",
                   help="how far numbers may lie apart, relative to the larger (1e-6)")
    p.add_argument("--jobs", type=positive, default=1, metavar="N", help="cores for notebooks at a time (1)")
    places(p)


def places(p: argparse.ArgumentParser) -> None:
    """Profile and folders, the same for all that works on a study."""
    p.add_argument("--profile", default="demo", help="smoke, demo or paper, as in study.toml (demo)")
    p.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="trained runs (runs)")
    p.add_argument("--figures", type=Path, metavar="DIR",
                   help="where figures go (figures; for other profiles than demo RUNS/figures/PROFILE)")
    p.add_argument("--notebooks", type=Path, default=Path("notebooks"), metavar="DIR",
                   help="the folder with the studies (notebooks)")


def pretrain_command(command) -> None:
    p = command("pretrain", pretrain, "Train an embedded model; an interrupted training goes on.",
                "vlmlab pretrain tiny --threads 2 --export data/models/tiny")
    p.add_argument("model", choices=["tiny"], metavar="MODEL", help="tiny")
    p.add_argument("--out", type=Path, default=Path("runs/pretrain/tiny"), metavar="DIR",
                   help="state and log (runs/pretrain/tiny)")
    p.add_argument("--samples", type=positive, metavar="N", help="images to see (as the recipe says)")
    p.add_argument("--seed", type=int, metavar="S", help="(as the recipe says)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    p.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads (1)")
    p.add_argument("--export", type=Path, metavar="DIR", help="write the model that vlmlab.load reads")


def fit_command(command) -> None:
    p = command("card", card, "Measure an embedded model against chance and write its model card; minutes.",
                "vlmlab card tiny --quick")
    p.add_argument("model", nargs="?", default="tiny", metavar="MODEL", help="see vlmlab models (tiny)")
    p.add_argument("--quick", action="store_true", help="print a few numbers of a small part, write nothing")
    p = command("fit", fit, "Train one method on one task, or go on, and evaluate it.",
                "vlmlab fit mmrlpp emoji/food --shots 16 --seed 2 --epochs 5 --set lr=0.002 --rule decoupled")
    p.add_argument("method", metavar="METHOD", help="see vlmlab methods")
    p.add_argument("task", metavar="TASK", help="see vlmlab tasks")
    p.add_argument("--model", default="tiny", help="see vlmlab models (tiny)")
    p.add_argument("--pretrained", metavar="TAG", help="open_clip tag or weight file")
    p.add_argument("--device", help="cpu or cuda (the GPU when there is one)")
    p.add_argument("--protocol", default="base_to_new", help="(base_to_new)")
    p.add_argument("--shots", type=positive, metavar="N",
                   help="training images per class (16; zero_shot has none)")
    root_option(p)
    p.add_argument("--make-split", action="store_true",
                   help="where CoOp's split of a real data set is missing, draw one by its rule")
    p.add_argument("--seed", type=int, default=1, metavar="S", help="(1)")
    p.add_argument("--epochs", type=positive, metavar="N", help="(as vlmlab.fit)")
    p.add_argument("--out", type=Path, metavar="DIR", help="where runs go (runs)")
    p.add_argument("--rule", action="append", metavar="RULE", help="rule of inference, repeatable (unified)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="a parameter of the method or of the training, repeatable")


def root_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--root", type=Path, metavar="DIR",
                   help="the folder that holds the real data sets, as CoOp lays them out ($VLMLAB_DATASETS)")


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def is_meant_for_users(error: Exception) -> bool:
    """Errors whose message says what to do; a bare key, say, is a fault of the program."""
    if isinstance(error, KeyError):
        return bool(error.args) and " " in str(error.args[0])
    return isinstance(error, (ValueError, OSError, FloatingPointError))


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 done, 1 something in it failed, 2 it cannot be done as asked, 130 stopped."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `vlmlab results | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if args.debug or not is_meant_for_users(error):
            raise
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"vlmlab: error: {' '.join(str(text).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
