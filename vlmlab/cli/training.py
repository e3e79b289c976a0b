"""Commands that train and measure: pretrain, card, fit, results."""

import argparse
import json
import sys
import typing
from pathlib import Path

from .. import known_names
from ..mini.recipes import RECIPES
from ..nearest import hint
from . import options
from .options import split, typed


def pretrain(args: argparse.Namespace) -> int:
    options.check_device(args.device)
    import torch

    import vlmlab

    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.model]
    given = recipe.settings | settings(recipe.learner, args.set)
    given |= {k: v for k, v in (("samples", args.samples), ("seed", args.seed)) if v is not None}
    task = vlmlab.task("emoji/pretraining", protocol="retrieval", seed=0)
    models = {role: vlmlab.load(name, device=args.device) for role, name in recipe.models.items()}
    given |= {} if models else {"device": args.device}
    run = vlmlab.fit(recipe.learner, models, task, out=args.out, study="pretrain", **given)
    print(f"trained in {run.path}")
    if args.export:
        about = run.settings | {"seed": run.info["labels"]["seed"], "step": run.info["steps"]}
        print(f"exported to {run.model.export(args.export, about)}")
    return 0


def card(args: argparse.Namespace) -> int:
    from ..cards.card import main as measure

    return measure(args.model, args.quick)


def check_names(args: argparse.Namespace) -> None:
    """Refuse what names alone show to be wrong, in the time that reading them takes."""
    given = [key for key, _ in map(split, args.set)] + (["epochs"] if args.epochs else [])
    if twice := {key for key in given if given.count(key) > 1}:
        raise ValueError(f"{min(twice)} is given twice; --epochs N is the same as --set epochs=N")
    known_names.check("protocol", args.protocol, options.PROTOCOLS)
    options.check_device(args.device)
    if args.precision:
        known_names.check("precision", args.precision, options.PRECISIONS)
    if ":" not in args.task and not Path(args.task).exists():
        from .. import tasks

        known_names.check("task", args.task, tasks.names())
    if ":" in args.method:  # of one's own, told when it is imported
        return
    known_names.check("method", args.method, known_names.learners())
    legal, rules = known_names.settings_and_rules(args.method)
    for what, names, there in (("setting", given, legal), ("rule", bare(args.rule), rules)):
        for name in (n for n in names if there and n not in there):
            raise ValueError(
                f"{args.method} has no {what} {name!r}; it has {', '.join(there)}{hint(name, there)}"
            )


def bare(rules: list[str] | None) -> list[str]:
    """Rules without what stands after a +."""
    return [rule.partition("+")[0] for rule in rules or ()]


def fit(args: argparse.Namespace) -> int:
    check_names(args)
    import vlmlab

    shots = args.shots or (None if args.protocol not in ("base_to_new", "few_shot") else 16)
    real = {k: v for k in ("root", "make_split", "template") if (v := getattr(args, k))}
    task = vlmlab.task(args.task, protocol=args.protocol, shots=shots, seed=args.seed, **real)
    from .. import methods, processes, registry

    cls = registry.find(args.method)
    if unknown := [r for r in bare(args.rule) if r not in cls.rules]:
        raise ValueError(f"{args.method} has no rule {unknown[0]!r}; it has {', '.join(cls.rules)}")
    given = settings(args.method, args.set)
    given |= {k: v for k in ("epochs", "out", "study", "imported") if (v := getattr(args, k))}
    if args.presets:
        given = methods.presets(args.method, args.task, args.protocol, shots) | given
        print(f"settings  {', '.join(f'{k}={v}' for k, v in given.items())}", file=talk(args))
    with processes.together():  # under torchrun each process gets its GPU before it loads anything
        models = by_role(cls, args.model, args.pretrained, args.device, args.precision)
        run = vlmlab.fit(args.method, models, task, workers=args.workers, **given)
        if not processes.rank():
            tell(args, run, vlmlab.evaluate(run, task, rule=args.rule, workers=args.workers), task)
    return 0


def talk(args: argparse.Namespace):
    """Where words go that are not the result: with --json, only that is on the output."""
    return sys.stderr if args.json else sys.stdout


def tell(args: argparse.Namespace, run, frame, task) -> None:
    """What a run measured, and whether it ends below the model that it stands on."""
    from ..train import tables
    from ..train.beside_zero_shot import below

    if args.json:
        about = {"run": str(run.path), "key": run.key, "results": tables.records(frame)}
        about |= {"differs": run.info.get("differs", "")}
        print(json.dumps(about | {"below_zero_shot": below(run, task, frame)}, indent=1))
        return
    print(tables.table(frame))
    if differs := run.info.get("differs"):
        print(f"differs   {differs}")
    for line in below(run, task, frame):
        print(line)
    print(f"run       {run.path}")


def by_role(cls: type, names: list[str] | None, pretrained=None, device=None, precision=None) -> dict:
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
    given = {"device": device} | ({"precision": precision} if precision else {})
    return {role: vlmlab.load(name, pretrained, **given) for role, name in found.items()}


def results(args: argparse.Namespace) -> int:
    import vlmlab

    from ..train import tables
    from ..train.run import differing

    frame, why = vlmlab.results(args.runs, config=args.config), ""
    if frame.empty:
        why = f"no run in {args.runs} has measured numbers; vlmlab fit trains one and measures it"
    for key, value in map(split, args.where):
        if key not in frame:
            raise ValueError(f"results have no column {key!r}; they have {', '.join(frame.columns)}")
        there = sorted(set(frame[key].map(tables.shown)))
        frame = frame[frame[key].map(tables.shown) == value]
        if frame.empty and not why:
            why = f"no number has {key} {value!r}{hint(value, there)}; there are {', '.join(there[:30])}"
    if why:
        print(f"vlmlab: {why}", file=sys.stderr)
    if args.json:
        print(json.dumps(tables.records(frame), indent=1))
    elif args.csv:
        print(frame.to_csv(index=False))
    elif not frame.empty:
        print(tables.table(frame, args.config))
        for line in differing(args.runs, frame):
            print(line)
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
            raise ValueError(f"{method} has no setting {key!r}; it has {', '.join(legal)}{hint(key, legal)}")
        chosen[key] = typed(key, value, legal[key])
    registry.settings(cls, chosen)  # a wrong value is refused before anything is loaded
    return chosen


MANY = {"action": "append", "default": []}
PRETRAIN = {
    "model": {"choices": [*RECIPES], "metavar": "MODEL", "help": " or ".join(RECIPES)},
    "--out": {"type": Path, "default": Path("runs"), "metavar": "DIR", "help": "where runs go (runs)"},
    "--samples": {
        "type": options.positive,
        "metavar": "N",
        "help": "images before the last stages, whose number --set fine_samples= and line_samples= give (as the recipe says)",
    },
    "--seed": {"type": options.seed, "metavar": "S", "help": "(as the recipe says)"},
    "--device": {"default": "cpu", "help": "cpu or cuda (cpu)"},
    "--threads": {"type": options.positive, "default": 1, "metavar": "N", "help": "CPU threads (1)"},
    "--set": {**MANY, "metavar": "KEY=VALUE", "help": "a size or a part of the recipe, repeatable"},
    "--export": {"type": Path, "metavar": "DIR", "help": "write the model that vlmlab.load reads"},
}
CARD = {
    "model": {"nargs": "?", "default": "tiny", "metavar": "MODEL", "help": "see vlmlab models (tiny)"},
    "--quick": {"action": "store_true", "help": "print a few numbers of a small part, write nothing"},
}
RULE = """rule of inference, repeatable: unified; of MMRL, MMRL++ and AlignedNorm also decoupled, which is told base or
new; with +per_target the parameters published for each target (what the method reports)"""
FIT = {
    "method": {"metavar": "METHOD", "help": "see vlmlab methods, or module:Class of your own"},
    "task": {"metavar": "TASK", "help": "see vlmlab tasks; your own images: folder:PATH, table:FILE"},
    "--template": {"metavar": "TEXT", "help": "prompt with {} for the class name (as the data says)"},
    "--model": {
        "action": "append",
        "metavar": "[ROLE=]NAME",
        "help": "see vlmlab models (tiny); repeatable where a method needs several, as student=tiny",
    },
    "--pretrained": {"metavar": "TAG", "help": "open_clip tag or weight file"},
    "--device": {"help": "cpu, cuda, cuda:1 ... (the GPU when there is one)"},
    "--precision": {"metavar": "P", "help": "fp32 (on a CPU), amp_bf16 (on a GPU) or amp_fp16"},
    "--protocol": {
        "default": "base_to_new",
        "metavar": "P",
        "help": f"{', '.join(options.PROTOCOLS)} (base_to_new)",
    },
    "--shots": {
        "type": options.positive,
        "metavar": "N",
        "help": "training images per class (16; zero_shot has none)",
    },
    "--make-split": {
        "action": "store_true",
        "help": "where CoOp's split of a real data set is missing, draw one by its rule",
    },
    "--seed": {"type": options.seed, "default": 1, "metavar": "S", "help": "(1)"},
    "--workers": {
        "type": options.workers,
        "default": 0,
        "metavar": "N",
        "help": "processes that load images (0)",
    },
    "--epochs": {"type": options.positive, "metavar": "N", "help": "the same as --set epochs=N"},
    "--out": {"type": Path, "metavar": "DIR", "help": "where runs go (runs)"},
    "--study": {"metavar": "NAME", "help": "the name under which runs are kept there (adhoc)"},
    "--import": {
        "dest": "imported",
        "type": Path,
        "metavar": "FILE",
        "help": "take over a checkpoint of the authors' code (model.pth.tar-N) instead of training",
    },
    "--rule": {"action": "append", "metavar": "RULE", "help": RULE},
    "--presets": {
        "action": "store_true",
        "help": "start from what the papers set for this data set, protocol and number of shots",
    },
    "--set": {
        **MANY,
        "metavar": "KEY=VALUE",
        "help": "a parameter of the method or of the training, repeatable; goes over --presets; "
        "`vlmlab methods METHOD` lists them",
    },
}
RESULTS = {
    "--runs": {"type": Path, "default": Path("runs"), "metavar": "DIR", "help": "trained runs (runs)"},
    "--where": {**MANY, "metavar": "COLUMN=VALUE", "help": "only these rows"},
    "--config": {**MANY, "metavar": "NAME", "help": "a setting to show as a column, repeatable"},
    "--csv": {"action": "store_true", "help": "every column, as CSV"},
}
COMMANDS = (
    (
        "pretrain",
        pretrain,
        "Train an embedded model; an interrupted training goes on.",
        "vlmlab pretrain tiny --threads 2 --export data/models/tiny",
        PRETRAIN,
        (),
    ),
    (
        "card",
        card,
        "Measure an embedded model against chance and write its model card; minutes.",
        "vlmlab card tiny --quick",
        CARD,
        (),
    ),
    (
        "fit",
        fit,
        "Train one method on one task, or go on, and evaluate it.",
        "vlmlab fit mmrlpp emoji/food --shots 16 --seed 2 --epochs 5 --set lr=0.002 --rule decoupled",
        FIT,
        (options.root, options.json),
    ),
    (
        "results",
        results,
        "Print what all runs measured.",
        "vlmlab results --where method=mmrlpp --where split=new --csv",
        RESULTS,
        (options.json,),
    ),
)


def commands(command) -> None:
    """pretrain, card, fit, results."""
    for *about, table, shared in COMMANDS:
        p = command(*about)
        for name, how in table.items():
            p.add_argument(name, **how)
        for add in shared:
            add(p)
