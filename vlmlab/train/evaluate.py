"""`evaluate`: what a trained learner scores on the tests of a task; `vlmlab.scores` knows what a score is."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import progress, registry, scores
from ..feeds import in_order
from ..learner import Learner
from ..methods import target_presets
from ..methods.method import Method
from ..schema import Count, Workers
from ..scores import classification
from ..tasks.images import Images
from ..tasks.split import Split
from ..tasks.task import Task
from .run import COLUMNS, Run
from .tables import Scores

PER_TARGET = "per_target"
BEST_EPOCH = "best_epoch"
LAST = 20  # steps


def pictures_for(
    learner: Learner, batch_size: int | None = None, workers: int = 0
) -> Callable[[Images], Iterator[Tensor]]:
    """images -> batches (batch, 3, height, width) in order, on the device of the learner.

    `preprocess` and `device` are those of its model `vlm`, or its own. batch_size: by default what suits the device.
    """
    model = getattr(learner, "vlm", learner)

    def batches(images: Images) -> Iterator[Tensor]:
        loader = in_order(images, model, batch_size, workers)
        for batch in progress.bar(loader, desc="evaluate", unit="batch", leave=False, delay=1):
            yield batch["image"].to(model.device)

    return batches


def answers(
    score: ModuleType, learner: Learner, test: Images, rules: dict[str, str | None], *loading
) -> dict[str, object]:
    """rule -> what a score asks a learner about a test; rules: rule -> "base", "new" or None; no autocast, as in
    CoOp's family. loading: batch_size and workers. ValueError for a rule that the learner does not have."""
    for rule, part in rules.items():
        if isinstance(learner, Method):
            learner.check_rule(rule, part)
        elif rule not in learner.rules:
            raise ValueError(
                f"{type(learner).__name__} has no rule {rule!r}; it has {', '.join(learner.rules)}"
            )
    learner.eval()
    with torch.inference_mode():
        return score.ask(learner, test, pictures_for(learner, *loading), rules)


def predict(
    method: Method,
    split: Split,
    *,
    rule: str = "unified",
    part: str | None = None,
    batch_size: int | None = None,
    workers: int = 0,
) -> np.ndarray:
    """(sample, class) float32 logits of a split, with its own class names; no autocast, as in CoOp's family.

    batch_size: images at a time, by default what suits the device. FloatingPointError when logits are not
    finite.
    """
    return predictions(method, split, {rule: part}, batch_size, workers)[rule]


def predictions(
    method: Method,
    split: Split,
    rules: dict[str, str | None],
    batch_size: int | None = None,
    workers: int = 0,
) -> dict[str, np.ndarray]:
    """`predict` for several rules, each with its part, from one pass over the images."""
    return answers(classification, method, split, rules, batch_size, workers)


def part_of(task: Task, name: str, known: bool) -> str:
    """What the decoupled rule is told of a test: "base" for the classes trained on, "new" for others; as in MMRL,
    everything but the source is new where other data sets or looks are tested."""
    elsewhere = task.protocol in ("cross_dataset", "domain_shift") and name != task.id
    return "base" if known and not elsewhere else "new"


def per_target(method: Method, task: Task, extra: str) -> dict[str, object]:
    """Test -> Config with what the published code sets for it; none for another rule. ValueError where it sets
    nothing."""
    if extra in ("", BEST_EPOCH):
        return {}
    if extra != PER_TARGET:
        raise ValueError(f"unknown rule with +{extra}; after the + stands {PER_TARGET} or {BEST_EPOCH}")
    name = registry.name_of(method)
    found = {
        target: values
        for target in task.tests
        if target != task.id and (values := target_presets(name, target, task.protocol))
    }
    if not found:
        raise ValueError(
            f"no published parameters of {name} are known for the targets of {task.id} under "
            f"{task.protocol}; leave +{PER_TARGET} out"
        )
    return {target: dataclasses.replace(method.config, **values) for target, values in found.items()}


def at_best_epoch(
    score: ModuleType, learner: Learner, test: Images, rules: dict[str, str | None], *loading
) -> dict[str, tuple[int, object]]:
    """rule -> (epoch, answers) of the kept epoch that has most of the very images of the test right, the first of
    equal ones. ValueError for a learner that keeps no epochs, and where a test has no labels."""
    if not hasattr(learner, "at_epoch") or score.OFFERS != classification.OFFERS:
        raise ValueError(f"{type(learner).__name__} on {test} has no +{BEST_EPOCH}: no epochs, or no labels")
    best: dict[str, tuple] = {}
    for epoch in range(1, int(learner.epochs_kept) + 1):
        with learner.at_epoch(epoch):
            found = answers(score, learner, test, rules, *loading)
        for rule, logits in found.items():
            right = classification.accuracies(logits, test.labels)["accuracy"]
            best[rule] = max(best.get(rule, (-1.0,)), (right, epoch, logits), key=lambda one: one[0])
    if not best:
        raise ValueError(f"{type(learner).__name__} has kept no epoch; train it first")
    return {rule: (epoch, logits) for rule, (_, epoch, logits) in best.items()}


def rules_of(learner: Learner, task: Task, rule: str | Iterable[str] | None) -> list[str]:
    """The rules asked for; for None those that the learner reports under the task's protocol."""
    if rule is None:
        return list(learner.reports.get(task.protocol, learner.rules[:1]))
    return [rule] if isinstance(rule, str) else list(rule)


@contextlib.contextmanager
def restored(learner: Learner) -> Iterator[None]:
    """Afterwards the learner has the class names, the config and the mode that it had."""
    config, training = learner.config, learner.training
    classes = (learner.classnames, learner.template) if hasattr(learner, "classnames") else None
    try:
        yield
    finally:
        learner.config = config
        learner.train(training)
        if classes:
            learner.set_classes(*classes)


@contextlib.contextmanager
def saying_what_is_kept(run: Run | None) -> Iterator[None]:
    """After Ctrl-C in the middle of measuring."""
    try:
        yield
    except KeyboardInterrupt:
        if run is not None:
            said = f"stopped; nothing of this evaluation is kept. {run.path} keeps what was trained and measured before"
            print(said, file=sys.stderr)
        raise


def evaluate(
    run: Run | Learner,
    task: Task,
    rule: str | Iterable[str] | None = None,
    *,
    batch_size: int | None = None,
    workers: int = 0,
) -> pd.DataFrame:
    """Score a finished run, or a learner, on every test of `task`, by what `vlmlab.scores` has for such a test.

    rule: one or several of the learner's rules of inference, such as unified and decoupled, which is told base or
    new (see `part_of`); by default what the learner reports. With `+per_target`, such as "decoupled+per_target",
    other data sets or looks are tested with the parameters that the published code of the method sets for each of
    them (presets.csv); such numbers use the identity of the target. With `+best_epoch` a learner that keeps its epochs
    (LaFTer) is read at the one that is best on these very test images, which no one knows beforehand: what some
    published scripts print, no result of its own.

    What the protocol sums up has rows of its own, such as `hm` (harmonic means) of base_to_new. Columns as
    `results`; `test` says which data it was. The rows of a run are also kept in its folder, beside those of other
    data.

    Raises ValueError for a rule that the learner does not have, where no published value is known, or for a test
    that the learner cannot be asked about. A run of one that answers no question of any kind, such as MoCo, has the rows
    of `at_the_end`.

    >>> vlmlab.evaluate(run, task, rule=["unified", "decoupled"])
    >>> vlmlab.evaluate(run, vlmlab.task("emoji/animals", protocol="domain_shift"))
    >>> scores = vlmlab.evaluate(run, task).set_index(["split", "metric"])["value"]
    """
    batch_size = registry.checked("batch_size", batch_size, Count | None)
    workers, saved = registry.checked("workers", workers, Workers), isinstance(run, Run)
    learner = run.model if saved else run
    rules = rules_of(learner, task, rule)
    trained = ((run.info["classes"] or [()])[0] if saved else getattr(learner, "classnames", None)) or ()
    with restored(learner), saying_what_is_kept(run if saved else None):
        if saved and not scores.anything(learner):
            rows = [{"rule": r, **row} for r in rules for row in at_the_end(run)]
        else:
            rows = measure(learner, task, rules, set(trained), batch_size, workers)
    for r in rules:
        rows += [{"rule": r, **row} for row in task.summary([x for x in rows if x["rule"] == r])]
    rows = [{"task": task.id, "protocol": task.protocol, **r} for r in rows]
    if saved:
        run.save_results(rows)
        frame, asked = run.results, {k: {r[k] for r in rows} for k in ("task", "protocol", "rule", "test")}
        chosen = np.logical_and.reduce([frame[k].isin(v) for k, v in asked.items()])
        return Scores(frame[chosen].reset_index(drop=True))
    labels = {"method": registry.name_of(learner), "variant": "", "shots": task.shots, "seed": task.seed}
    return Scores([{**labels, **r} for r in rows], columns=COLUMNS)


def at_the_end(run: Run) -> list[dict]:
    """Rows of the split "training": the mean of every number that the run logged in its last `LAST` steps."""
    log = run.metrics.tail(LAST)
    means = log.drop(columns=["step", "epoch", "lr"], errors="ignore").mean(numeric_only=True).dropna()
    about = {"split": "training", "n": len(log), "test": run.info["job"]["data"][:16]}
    return [about | {"metric": name, "value": float(value)} for name, value in means.items()]


def measure(learner: Learner, task: Task, rules: list[str], trained: set[str], *loading) -> list[dict]:
    """Rows of all tests under all rules; one pass over a test serves all rules with the same parameters."""
    rows, config = [], learner.config
    for extra in dict.fromkeys(r.partition("+")[2] for r in rules):
        same = {r: r.partition("+")[0] for r in rules if r.partition("+")[2] == extra}
        configs = per_target(learner, task, extra)
        for name, test in task.tests.items():
            learner.config = configs.get(name, config)
            part = part_of(task, name, isinstance(test, Split) and trained.issuperset(test.classnames))
            parts = {inner: part if inner == "decoupled" else None for inner in same.values()}
            data = test.fingerprint()[:16]
            for score in scores.found(test, learner):
                best = at_best_epoch(score, learner, test, parts, *loading) if extra == BEST_EPOCH else {}
                found = {inner: logits for inner, (_, logits) in best.items()}
                found = found or answers(score, learner, test, parts, *loading)
                for r, inner in same.items():
                    of = {"rule": r, "test": data}
                    rows += [of | row for row in score.rows(name, test, found[inner])]
                    if best:
                        epoch = {"split": name, "metric": "epoch", "value": best[inner][0], "n": len(test)}
                        rows.append(of | epoch)
    return rows
