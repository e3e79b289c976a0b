"""Commands that train and measure: pretrain, card, fit, results."""

import argparse
import typing
from pathlib import Path

from . import options
from .options import split, typed


def pretrain(args: argparse.Namespace) -> int:
    import torch

    import vlmlab

    torch.set_num_threads(args.threads)
    given = settings("clip", args.set)
    given |= {k: v for k, v in (("samples", args.samples), ("seed", args.seed)) if v is not None}
    task = vlmlab.task("emoji/pretraining", protocol="retrieval", seed=0)
    run = vlmlab.fit("clip", {}, task, out=args.out, study="pretrain", device=args.device, **given)
    print(f"trained in {run.path}")
    if args.export:
        about = run.settings | {"seed": run.info["labels"]["seed"], "step": run.info["steps"]}
        print(f"exported to {run.model.export(args.export, about)}")
    return 0


def card(args: argparse.Namespace) -> int:
    from ..cards.card import main as measure

    return measure(args.model, args.quick)


def fit(args: argparse.Namespace) -> int:
    import vlmlab

    from .. import methods, processes, registry

    cls = registry.find(args.method)
    given = settings(args.method, args.set)
    given |= {k: v for k, v in (("epochs", args.epochs), ("out", args.out)) if v is not None}
    given |= {"imported": args.imported} if args.imported else {}
    if unknown := [r for r in args.rule or () if r.partition("+")[0] not in cls.rules]:
        raise ValueError(f"{args.method} has no rule {unknown[0]!r}; it has {', '.join(cls.rules)}")
    shots = args.shots or (None if args.protocol not in ("base_to_new", "few_shot") else 16)
    real = {k: v for k, v in (("root", args.root), ("make_split", args.make_split)) if v}
    task = vlmlab.task(args.task, protocol=args.protocol, shots=shots, seed=args.seed, **real)
    if args.presets:
        given = methods.presets(args.method, args.task, args.protocol, shots) | given
        print(f"settings  {', '.join(f'{k}={v}' for k, v in given.items())}")
    with processes.together():  # under torchrun each process gets its GPU before it loads anything
        models = by_role(cls, args.model, args.pretrained, args.device)
        run = vlmlab.fit(args.method, models, task, workers=args.workers, **given)
        if not processes.rank():
            print(vlmlab.evaluate(run, task, rule=args.rule).to_string(index=False))
            print(f"run       {run.path}")
    return 0


def by_role(cls: type, names: list[str] | None, pretrained: str | None, device: str | None) -> dict:
    """Models by role from `NAME` or `ROLE=NAME`; a role without a name gets the embedded model."""
    import vlmlab

    named = {}
    for text in names or ():
        role, sign, name = text.partition("=")
        named |= {role: name} if sign else dict.fromkeys(cls.models_needed[:1], text)
    if unknown := [role for role in named if role not in cls.models_needed]:
        raise ValueError(
            f"no model is needed as {unknown[0]!r}; there are {', '.join(cls.models_needed) or 'no roles'}"
        )
    found = {role: named.get(role, "tiny") for role in cls.models_needed}
    return {role: vlmlab.load(name, pretrained, device=device) for role, name in found.items()}


def results(args: argparse.Namespace) -> int:
    import vlmlab

    filters = dict(split(text) for text in args.where)
    frame = vlmlab.results(args.runs, config=args.config)
    for key, value in filters.items():
        if key not in frame:
            raise ValueError(f"results have no column {key!r}; they have {', '.join(frame.columns)}")
        frame = frame[frame[key].astype(str) == value]
    print(frame.to_csv(index=False) if args.csv else frame.to_string(index=False))
    return 0


def settings(method: str, texts: list[str]) -> dict:
    """--set key=value, typed by the learner's Config and Options.

    ValueError names an unknown key, or a value of the wrong type, and what is legal.
    """
    from .. import registry

    cls = registry.find(method)
    legal = {**typing.get_type_hints(cls.Options), **typing.get_type_hints(cls.Config)}
    chosen = {}
    for key, value in map(split, texts):
        if key not in legal:
            raise ValueError(f"{method} and its training have no {key!r}; legal are {', '.join(legal)}")
        chosen[key] = typed(key, value, legal[key])
    registry.settings(cls, chosen)  # a wrong value is refused before anything is loaded
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
        default=Path("runs"),
        metavar="DIR",
        help="where runs go (runs)",
    )
    p.add_argument("--samples", type=options.positive, metavar="N", help="images to see (as the recipe says)")
    p.add_argument("--seed", type=int, metavar="S", help="(as the recipe says)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    p.add_argument("--threads", type=options.positive, default=1, metavar="N", help="CPU threads (1)")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a size or a part of the recipe, repeatable",
    )
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
    p.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="NAME",
        help="a setting to show as a column, repeatable",
    )
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
    p.add_argument(
        "--model",
        action="append",
        metavar="[ROLE=]NAME",
        help="see vlmlab models (tiny); repeatable where a method needs several, as student=tiny",
    )
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
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes that load images (0)")
    p.add_argument("--epochs", type=options.positive, metavar="N", help="(as vlmlab.fit)")
    p.add_argument("--out", type=Path, metavar="DIR", help="where runs go (runs)")
    p.add_argument(
        "--import",
        dest="imported",
        type=Path,
        metavar="FILE",
        help="take over a checkpoint of the authors' code (model.pth.tar-N) instead of training",
    )
    p.add_argument(
        "--rule",
        action="append",
        metavar="RULE",
        help="rule of inference, repeatable (what the method reports)",
    )
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
