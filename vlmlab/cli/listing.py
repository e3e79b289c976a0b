"""Commands that say what there is: models, tasks, methods, data."""

import argparse
import sys

from . import options


def list_models(args: argparse.Namespace) -> int:
    from ..models.load import embedded
    from ..models.packages import EXTRA, PACKAGES

    print("\n".join(embedded()))
    for name, package in PACKAGES.items():
        state = f"not installed: {EXTRA}" if package.lacking else package.told
        print(f"{name}: {package.about} ({state})")
    print("and every open_clip architecture (ViT-B-16-quickgelu --pretrained openai), local folder or file")
    return 0


def data(args: argparse.Namespace) -> int:
    if args.action == "describe":
        return describe(args)
    if args.path:
        raise ValueError(
            f"data check takes no path; what is in images of your own says data describe {args.path}"
        )
    from ..tasks.coop import check as coop_check
    from ..tasks.coop import tasks as coop

    reports = coop_check.check(coop.root_folder(args.root), args.dataset or coop.names())
    show([r.record() for r in reports] if args.json else coop_check.table(reports))
    return 0 if all(r.ready for r in reports) else 1


def describe(args: argparse.Namespace) -> int:
    from ..tasks.own import describe as own

    if not args.path:
        raise ValueError("data describe needs the folder or the table of your images")
    found = own.describe(args.path, args.root)
    show(found if args.json else own.text(found))
    return 1 if found["problems"] or found["broken"] else 0


def show(found: object) -> None:
    """Text as it is, else JSON."""
    import json

    print(found if isinstance(found, str) else json.dumps(found, indent=1, ensure_ascii=False))


def list_tasks(args: argparse.Namespace) -> int:
    from .. import tasks

    print("\n".join(tasks.names()))
    print("and your own images: folder:PATH, a folder per class, or table:FILE (vlmlab data describe PATH)")
    return 0


def list_methods(args: argparse.Namespace) -> int:
    import json

    from .. import known_names

    if args.method and ":" not in args.method:
        known_names.check("method", args.method, known_names.learners())
    from .. import registry

    status, names = 0, [args.method] if args.method else registry.names()
    if args.json:
        print(json.dumps([registry.about(name) for name in names], indent=1))
    elif args.method:
        about = registry.about(args.method)
        print(f"{args.method}: {about['about']}\nrules     {', '.join(about['rules'])}")
        if about["differs"]:
            print(f"differs   {about['differs']}")
        for field in about["settings"]:
            print(f"--set {field['name']}={field['default']}  ({field['type']})")
    else:
        for name in names:
            try:
                print(f"{name}: {registry.describe(name)}")
            except ValueError as error:  # a file of one's own; the others are no worse for it
                print(f"vlmlab: error: {error}", file=sys.stderr)
                status = 2
    return status


def commands(command) -> None:
    """models, tasks, methods, data."""
    command("models", list_models, "List the models that vlmlab.load knows.", "vlmlab models")
    command("tasks", list_tasks, "List the tasks.", "vlmlab tasks")
    p = command(
        "data",
        data,
        "check: which of the real data sets are there, what is missing, where to get it. describe: what is in "
        "images of your own and what is wrong with them.",
        "vlmlab data check --root /data --dataset caltech101\n  vlmlab data describe ~/trees",
    )
    p.add_argument("action", choices=["check", "describe"], help="look, download nothing")
    p.add_argument("path", nargs="?", metavar="PATH", help="folder or table of your own, for describe")
    options.root(p)
    p.add_argument("--dataset", action="append", metavar="NAME", help="only this one, repeatable")
    p.add_argument("--json", action="store_true", help="as JSON")
    p = command(
        "methods",
        list_methods,
        "List the methods with their parameters and defaults, or all settings of one.",
        "vlmlab methods mmrlpp",
    )
    p.add_argument("method", nargs="?", metavar="METHOD", help="what --set takes for this one")
    options.json(p)
