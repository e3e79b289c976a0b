"""Commands that train and measure: pretrain, card, fit, results."""

import argparse
import typing
from pathlib import Path

from . import options
from .options import split, typed


def pretrain(args: argparse.Namespace) -> int:
    from ..train.pretrain import Recipe
    from ..train.pretrain import pretrain as train

    given = {"samples": args.samples, "seed": args.seed}
    run = train(
        args.out,
        Recipe(**{k: v for k, v in given.items() if v is not None}),
        device=args.device,
        threads=args.threads,
    )
    print(f"trained in {args.out}")
    if args.export:
        print(f"exported to {run.export(args.export)}")
    return 0


def card(args: argparse.Namespace) -> int:
    from ..cards.card import main as measure

    return measure(args.model, args.quick)


def fit(args: argparse.Namespace) -> int:
    import vlmlab

    from .. import methods
    from ..train.fit import Options

    options = settings(args.method, args.set, Options)
    options |= {k: v for k, v in (("epochs", args.epochs), ("out", args.out)) if v is not None}
    vlm = vlmlab.load(args.model, args.pretrained, device=args.device)
    shots = args.shots or (None if args.protocol == "zero_shot" else 16)
    real = {k: v for k, v in (("root", args.root), ("make_split", args.make_split)) if v}
    task = vlmlab.task(args.task, protocol=args.protocol, shots=shots, seed=args.seed, **real)
    if args.presets:
        options = methods.presets(args.method, args.task, args.protocol, shots) | options
        print(f"settings  {', '.join(f'{k}={v}' for k, v in options.items())}")
    run = vlmlab.fit(args.method, vlm, task, **options)
    print(vlmlab.evaluate(run, task, rule=args.rule or "unified").to_string(index=False))
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


def settings(method: str, texts: list[str], options: type) -> dict:
    """--set key=value, typed by the method's Config and by the dataclass of training options.

    ValueError names an unknown key, or a value of the wrong type, and what is legal.
    """
    from .. import methods

    legal = {**typing.get_type_hints(methods.config(method)), **typing.get_type_hints(options)}
    chosen = {}
    for key, value in map(split, texts):
        if key not in legal:
            raise ValueError(f"{method} and its training have no {key!r}; legal are {', '.join(legal)}")
        chosen[key] = typed(key, value, legal[key])
    return chosen


def commands(command) -> None:
    """pretrain, card, fit, results."""
    p = command(
        "pretrain",
        pretrain,
        "Train an embedded model; an interrupted training goes on.",
        "vlmlab pretrain tiny --threads 2 --export data/models/tiny",
    )
    p.add_argument("model", choices=["tiny"], metavar="MODEL", help="tiny")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("runs/pretrain/tiny"),
        metavar="DIR",
        help="state and log (runs/pretrain/tiny)",
    )
    p.add_argument("--samples", type=options.positive, metavar="N", help="images to see (as the recipe says)")
    p.add_argument("--seed", type=int, metavar="S", help="(as the recipe says)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    p.add_argument("--threads", type=options.positive, default=1, metavar="N", help="CPU threads (1)")
    p.add_argument("--export", type=Path, metavar="DIR", help="write the model that vlmlab.load reads")
    fit_command(command)
    p = command(
        "results",
        results,
        "Print what all runs measured.",
        "vlmlab results --where method=mmrlpp --where split=new --csv",
    )
    p.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="trained runs (runs)")
    p.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only these rows")
    p.add_argument("--csv", action="store_true", help="as CSV")


def fit_command(command) -> None:
    p = command(
        "card",
        card,
        "Measure an embedded model against chance and write its model card; minutes.",
        "vlmlab card tiny --quick",
    )
    p.add_argument("model", nargs="?", default="tiny", metavar="MODEL", help="see vlmlab models (tiny)")
    p.add_argument("--quick", action="store_true", help="print a few numbers of a small part, write nothing")
    p = command(
        "fit",
        fit,
        "Train one method on one task, or go on, and evaluate it.",
        "vlmlab fit mmrlpp emoji/food --shots 16 --seed 2 --epochs 5 --set lr=0.002 --rule decoupled",
    )
    p.add_argument("method", metavar="METHOD", help="see vlmlab methods")
    p.add_argument("task", metavar="TASK", help="see vlmlab tasks")
    p.add_argument("--model", default="tiny", help="see vlmlab models (tiny)")
    p.add_argument("--pretrained", metavar="TAG", help="open_clip tag or weight file")
    p.add_argument("--device", help="cpu or cuda (the GPU when there is one)")
    p.add_argument("--protocol", default="base_to_new", help="(base_to_new)")
    p.add_argument(
        "--shots",
        type=options.positive,
        metavar="N",
        help="training images per class (16; zero_shot has none)",
    )
    options.root(p)
    p.add_argument(
        "--make-split",
        action="store_true",
        help="where CoOp's split of a real data set is missing, draw one by its rule",
    )
    p.add_argument("--seed", type=int, default=1, metavar="S", help="(1)")
    p.add_argument("--epochs", type=options.positive, metavar="N", help="(as vlmlab.fit)")
    p.add_argument("--out", type=Path, metavar="DIR", help="where runs go (runs)")
    p.add_argument("--rule", action="append", metavar="RULE", help="rule of inference, repeatable (unified)")
    p.add_argument(
        "--presets",
        action="store_true",
        help="start from what the papers set for this data set, protocol and number of shots",
    )
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the method or of the training, repeatable; goes over --presets",
    )
