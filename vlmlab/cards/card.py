"""The card of an embedded model: measure it against chance, write card.csv and the tables of its README."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import write as write_file
from ..mini.recipes import RECIPES
from ..models.load import EMBEDDED, VLM, embedded, load
from ..models.model import Model
from . import beside, measures, shapes, writing
from . import text as card_text
from .attention import attention
from .measures import FULL, QUICK, SEEN, UNSEEN, Bank, Size, row

COLUMNS = [
    "measure",
    "task",
    "style",
    "concepts",
    "metric",
    "value",
    "chance",
    "ratio",
    "se",
    "n",
    "target",
    "passed",
    "weights",
]
ROWS = {"siglip": shapes.rows_of, "janus": writing.rows_of}  # learner -> what is measured of its models
RETRIEVAL_RATIO, GROUPS_RATIO = 30.0, 2.5  # the other targets are "above, by two standard errors"


def card(
    vlm: VLM, styles: Iterable[str] = (*UNSEEN, SEEN), size: Size = FULL, other: VLM | None = None
) -> pd.DataFrame:
    """Measure a model on the embedded data; two to three minutes on one core for the tiny model.

    styles: the drawings to show; only those that pretraining never saw count for the targets. other: a model
    to stand beside.
    Returns one row per number (columns COLUMNS): value and chance as shares (ranks and KL as they
    are, lower is better), ratio = value / chance, se = standard error, n = items asked about; the
    rows of measure "target" have the `target` that `value` has to reach and whether it `passed`.
    """
    styles, bank = list(styles), Bank(vlm)
    rows = measures.zero_shot(bank, styles, size) + measures.overlap(bank, size) + measures.probe(bank, size)
    rows += measures.retrieve(bank, styles, size) + measures.emotions(bank, styles)
    rows += attention(bank, styles, size)
    rows += beside.rows(bank, Bank(other), styles, size) if other else []
    frame = finished(rows, vlm)
    return finished(rows + targets(frame), vlm)


def finished(rows: list[dict], model: Model) -> pd.DataFrame:
    """The frame of the rows, with the size and the fingerprint of the model and the ratios to chance."""
    size = sum(p.numel() for p in model.parameters())
    frame = pd.DataFrame([row("model", "", "", "", "parameters", size, np.nan, 1), *rows])
    frame["ratio"] = frame["value"] / frame["chance"]
    return frame.assign(weights=model.fingerprint()[:16]).reindex(columns=COLUMNS)


def targets(frame: pd.DataFrame) -> list[dict]:
    """Rows of measure "target", from the measured rows of known concepts in unseen styles."""
    known = frame[frame["style"].isin(UNSEEN) & (frame["concepts"] == "known")]
    names = known.query("measure == 'retrieval' and task == 'names'")
    names = names[names["metric"].isin(["i2t R@1", "t2i R@1"])]
    groups = known.query("measure == 'zero_shot' and metric == 'balanced accuracy'")
    groups = groups[~groups["task"].str.endswith("-fine")]
    rows = [
        target(what, style, metric, part["ratio"].mean(), least, len(part))
        for what, metric, found, least in (
            ("retrieval", "R@1 / chance", names, RETRIEVAL_RATIO),
            ("groups", "balanced accuracy / chance", groups, GROUPS_RATIO),
        )
        for style, part in [*found.groupby("style", sort=False), ("mean", found)]
    ]
    rows += probe_targets(frame[frame["measure"] == "probe"])
    for style, part in known[known["measure"] == "attention"].groupby("style", sort=False):
        cell = part.set_index("metric")
        for metric in ("attention on object", "pointing", "relevance on named half"):
            own = cell.loc[metric]
            rows.append(
                target(
                    "attention",
                    style,
                    f"{metric} - chance",
                    own["value"] - own["chance"],
                    2 * own["se"],
                    own["n"],
                )
            )
        for metric in ("attention on object", "pointing"):
            own, other = cell.loc[metric], cell.loc[f"{metric}, other mask"]
            rows.append(
                target(
                    "attention",
                    style,
                    f"{metric} - other mask",
                    own["value"] - other["value"],
                    2 * np.hypot(own["se"], other["se"]),
                    own["n"],
                )
            )
    return rows


def probe_targets(frame: pd.DataFrame) -> list[dict]:
    """The mean gain of the probe over zero-shot, against two errors: on these tasks, and over tasks."""
    value, se = (frame.pivot(index="task", columns="metric", values=c) for c in ("value", "se"))
    gain = value["probe_16"] - value["zero_shot"]
    seeds = value["probe_16 se over seeds"].fillna(0)
    here = np.sqrt((se["probe_16"] ** 2 + se["zero_shot"] ** 2 + seeds**2).sum()) / len(gain)
    name = "16-shot probe - zero-shot"
    return [
        target("probe", "sources", f"{name}, {scope}", gain.mean(), 2 * error, len(gain))
        for scope, error in (("on these tasks", here), ("over tasks", gain.sem()))
    ]


def target(what: str, style: str, metric: str, value: float, least: float, n: int) -> dict:
    return {
        **row("target", what, style, "known", metric, value, np.nan, n),
        "target": float(least),
        "passed": bool(value >= least),
    }


def write(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write card.csv and, where README.md has markers, its tables; returns what was written."""
    path, readme = folder / "card.csv", folder / "README.md"
    text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_file(path, lambda p: p.write_text(text, encoding="utf-8"))
    if not readme.exists():
        return [path]
    filled = card_text.fill(readme.read_text(encoding="utf-8"), read(folder), folder / "config.json")
    write_file(readme, lambda p: p.write_text(filled, encoding="utf-8"))
    return [path, readme]


def read(folder: Path) -> pd.DataFrame:
    """card.csv of a model folder, as `card` returned it up to rounding.

    FileNotFoundError says how to make it.
    """
    path = folder / "card.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; make it with `vlmlab card {folder.name}`")
    numbers = ("value", "chance", "ratio", "se", "target", "passed")
    return pd.read_csv(
        path, keep_default_na=False, na_values={c: [""] for c in numbers}, dtype={"weights": str}
    )


def measured(name: str, quick: bool) -> pd.DataFrame:
    """The card of an embedded model, by what trained it."""
    model, learner = load(name), RECIPES[name].learner if name in RECIPES else "clip"
    if learner == "clip":
        other = None if name == beside.OTHER else load(beside.OTHER)
        return card(model, UNSEEN[:1], QUICK) if quick else card(model, other=other)
    return finished(ROWS[learner](model, QUICK if quick else FULL), model)


def main(model: str = "tiny", quick: bool = False) -> int:
    """`vlmlab card`: measure an embedded model and write its card; `quick` only prints a few numbers.

    Raises ValueError for a model that is not embedded.
    """
    if model not in embedded():
        raise ValueError(
            f"no embedded model {model!r} to write a card for; there are {', '.join(embedded())}"
        )
    start = time.perf_counter()
    frame = measured(model, quick)
    held = frame["measure"] == "target"
    shown = (frame if quick or not held.any() else frame[held]).drop(columns=["weights"])
    print(shown.dropna(axis=1, how="all").to_string(index=False, na_rep="", float_format="{:.3g}".format))
    if not quick:
        print("wrote", *write(frame, EMBEDDED / model))
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    return 0
