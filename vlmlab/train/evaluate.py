"""`evaluate`: what a trained method scores on the test splits of a task."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..feeds import in_order
from ..methods import target_presets
from ..methods.method import Method
from ..tasks.split import Split
from ..tasks.task import Task
from .run import COLUMNS, Run

PER_TARGET = "per_target"


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
    for rule, part in rules.items():
        method.check_rule(rule, part)
    method.eval().set_classes(split.classnames, split.template)
    loader = in_order(split, method.vlm, batch_size, workers)
    found = {rule: [] for rule in rules}
    with torch.inference_mode():
        for batch in tqdm(loader, desc="evaluate", unit="batch", leave=False, delay=1):
            z = method.image_features(batch["image"].to(method.vlm.device))
            for rule, part in rules.items():
                found[rule].append(method.classify(z, rule, part).float().cpu().numpy())
    found = {rule: np.concatenate(logits) for rule, logits in found.items()}
    if not all(np.isfinite(logits).all() for logits in found.values()):
        raise FloatingPointError(
            f"{type(method).__name__} gives logits that are not finite on {split}; its "
            "training diverged or an image is not finite"
        )
    return found


def recalls(logits: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Percent right of every class that is present."""
    right = logits.argmax(1) == labels
    return {int(c): 100 * float(right[labels == c].mean()) for c in np.unique(labels)}


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy and balanced_accuracy (mean over the classes that are present), in percent."""
    return {
        "accuracy": 100 * float((logits.argmax(1) == labels).mean()),
        "balanced_accuracy": float(np.mean(list(recalls(logits, labels).values()))),
    }


def harmonic_mean(base: float, new: float) -> float:
    """2 b n / (b + n); zero when both are."""
    return 2 * base * new / (base + new) if base + new else 0.0


def split_rows(name: str, split: Split, logits: np.ndarray) -> list[dict]:
    """Rows of one split. That of balanced_accuracy also keeps the percentage of every class."""
    found, each = scores(logits, split.labels), recalls(logits, split.labels)
    rows = {m: {"split": name, "metric": m, "value": v, "n": len(split)} for m, v in found.items()}
    rows["balanced_accuracy"]["per_class"] = [[split.classnames[c], v] for c, v in each.items()]
    return list(rows.values())


def harmonic_rows(rows: list[dict]) -> list[dict]:
    """Rows of the split `hm` from those of base and new."""
    value = {(r["split"], r["metric"]): r for r in rows}
    pairs = {m: (value["base", m], value["new", m]) for m in ("accuracy", "balanced_accuracy")}
    return [
        {"split": "hm", "metric": m, "value": harmonic_mean(b["value"], n["value"]), "n": b["n"] + n["n"]}
        for m, (b, n) in pairs.items()
    ]


def part_of(task: Task, name: str, known: bool) -> str:
    """What the decoupled rule is told of a test split: "base" for the classes trained on, "new" for others;
    as in MMRL, everything but the source is new where other data sets or looks are tested."""
    elsewhere = task.protocol in ("cross_dataset", "domain_shift") and name != task.id
    return "base" if known and not elsewhere else "new"


def name_of(method: Method) -> str:
    return type(method).__module__.rpartition(".")[2]


def per_target(method: Method, task: Task, extra: str) -> dict[str, object]:
    """Test -> Config with what the published code sets for it. ValueError where it sets nothing."""
    if extra != PER_TARGET:
        raise ValueError(f"unknown rule with +{extra}; after the + stands {PER_TARGET}")
    name = name_of(method)
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


def evaluate(
    run: Run | Method,
    task: Task,
    rule: str | Iterable[str] = "unified",
    *,
    batch_size: int | None = None,
    workers: int = 0,
) -> pd.DataFrame:
    """Score a finished run, or a method, on every test split of `task`.

    rule: one or several of unified and decoupled, which is told base or new (see `part_of`). With
    `+per_target`, such as "decoupled+per_target", other data sets or looks are tested with the parameters
    that the published code of the method sets for each of them (presets.csv); such numbers use the identity
    of the target. For base_to_new a split `hm` holds the harmonic means. Columns as `results`; the rows of a
    run are also kept in its folder.

    Raises ValueError for a rule that the method does not have, or where no published value is known.
    """
    saved, rules = isinstance(run, Run), [rule] if isinstance(rule, str) else list(rule)
    method = run.model if saved else run
    trained = set(run.info["classes"][0] if saved else method.classnames)
    before, config, state = (method.classnames, method.template), method.config, method.training
    try:
        rows = measure(method, task, rules, trained, batch_size, workers)
    finally:
        method.config = config
        method.train(state).set_classes(*before)
    if {"base", "new"} == task.tests.keys():
        rows += [
            {"rule": r, **row} for r in rules for row in harmonic_rows([x for x in rows if x["rule"] == r])
        ]
    rows = [{"task": task.id, "protocol": task.protocol, **r} for r in rows]
    if saved:
        run.save_results(rows)
        frame, asked = run.results, {"task": [task.id], "protocol": [task.protocol], "rule": rules}
        chosen = np.logical_and.reduce([frame[k].isin(v) for k, v in asked.items()])
        return frame[chosen].reset_index(drop=True)
    labels = {"method": name_of(method), "shots": task.shots, "seed": task.seed}
    return pd.DataFrame([{**labels, **r} for r in rows], columns=COLUMNS)


def measure(method: Method, task: Task, rules: list[str], trained: set[str], *loading) -> list[dict]:
    """Rows of all tests under all rules; one pass over a test serves all rules with the same parameters."""
    rows, config = [], method.config
    for extra in dict.fromkeys(r.partition("+")[2] for r in rules):
        same = {r: r.partition("+")[0] for r in rules if r.partition("+")[2] == extra}
        configs = per_target(method, task, extra) if extra else {}
        for name, split in task.tests.items():
            method.config = configs.get(name, config)
            part = part_of(task, name, trained.issuperset(split.classnames))
            parts = {inner: None if inner == "unified" else part for inner in same.values()}
            found = predictions(method, split, parts, *loading)
            rows += [
                {"rule": r, **row}
                for r, inner in same.items()
                for row in split_rows(name, split, found[inner])
            ]
    return rows
