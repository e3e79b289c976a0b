"""The generated parts of a model card: tables from card.csv and config.json between markers of README.md.

A part stands between `<!-- card:NAME -->` and `<!-- /card -->`; NAME is a key of PARTS. Numbers are
written nowhere else, so that text and measurement cannot disagree.
"""

import json
import re
from pathlib import Path

import pandas as pd

from . import beside, pair_text
from .cells import percent, table

MARKED = re.compile(r"(<!-- card:(\w+) -->\n).*?(<!-- /card -->)", re.DOTALL)
CLEAR = 2  # standard errors
RANKING = [f"{d} {m}" for d in ("i2t", "t2i") for m in ("R@1", "R@5", "R@10", "median rank")]


def fill(readme: str, frame: pd.DataFrame, config: Path) -> str:
    """The text with every marked part made anew; ValueError names a marker that no part exists for."""
    parts = PARTS | pair_text.PARTS

    def part(match: re.Match) -> str:
        if match[2] not in parts:
            raise ValueError(f"README.md asks for the part {match[2]!r}; there are {', '.join(parts)}")
        return f"{match[1]}{parts[match[2]](frame, config).strip()}\n{match[3]}"

    return MARKED.sub(part, readme)


def recipe(frame: pd.DataFrame, config: Path) -> str:
    """What config.json says about the architecture and the training, and which weights were measured."""
    record = json.loads(config.read_text(encoding="utf-8"))
    model, run = record["model_cfg"], record["pretraining"]
    vision, text = model["vision_cfg"], model["text_cfg"]
    seen = run["step"] * run["batch"]
    planned = sum(run.get(k, 0) for k in ("samples", "fine_samples", "line_samples"))
    interim = "" if seen > planned - run["batch"] else "; **this is an interim checkpoint**"
    size = frame.loc[frame["measure"] == "model", "value"].item()
    options = ", ".join(f"{k} {v:g}" for k, v in run.items() if k not in ("step", "samples"))
    return "\n".join(
        [
            f"- {size / 1e6:.1f} M parameters, {'QuickGELU' if model['quick_gelu'] else 'GELU'}, joint width "
            f"{model['embed_dim']}",
            f"- image tower: {vision['layers']} blocks of width {vision['width']}, "
            f"{vision['width'] // vision['head_width']} heads, patches of {vision['patch_size']} on "
            f"{vision['image_size']} x {vision['image_size']} pixels",
            f"- text tower: {text['layers']} blocks of width {text['width']}, {text['heads']} heads, context "
            f"{text['context_length']}, vocabulary {text['vocab_size']:,}",
            f"- training: {seen:,} of {planned:,} planned images{interim}",
            f"- recipe (`vlmlab pretrain`): {options}",
            f"- weights measured here: sha256 `{frame['weights'].iloc[0]}`...",
        ]
    )


def targets(frame: pd.DataFrame, _: Path) -> str:
    """Per quantity and style: what was reached, the target in brackets, and `passed` as in card.csv."""
    rows = frame[frame["measure"] == "target"]
    cell = {
        (r.metric, r.style): f"{r.value:.3g} ({r.target:.3g}) {'yes' if r.passed else '**no**'}"
        for r in rows.itertuples()
    }
    styles = list(rows["style"].unique())
    lines = [[m, *(cell.get((m, s), "") for s in styles)] for m in rows["metric"].unique()]
    return table(["quantity", *styles], lines)


def by_style(frame: pd.DataFrame, metric: str, fine: bool) -> str:
    """Zero-shot per task: a column per style, known then novel; the last row averages value / chance."""
    rows = frame.query("measure == 'zero_shot' and metric == @metric")
    rows = rows[rows["task"].str.endswith("-fine") == fine]
    keys = [(c, s) for c in ("known", "novel") for s in rows["style"].unique()]
    out = []
    for task, part in rows.groupby("task", sort=False):
        cell = part.set_index(["concepts", "style"])
        chances = [percent(cell.loc[c, "chance"].iloc[0], 1) for c in ("known", "novel")]
        out.append(
            [
                task.removeprefix("emoji/"),
                " / ".join(dict.fromkeys(chances)),
                *(f"{percent(cell.loc[k, 'value'])} ± {percent(cell.loc[k, 'se'])}" for k in keys),
            ]
        )
    ratio = rows.groupby(["concepts", "style"])["ratio"].mean()
    out.append(["mean of value / chance", "1", *(f"{ratio[k]:.1f}" for k in keys)])
    return table(["task", "chance", *(s if c == "known" else f"{s}, novel" for c, s in keys)], out)


def overlap(frame: pd.DataFrame, _: Path) -> str:
    cell = frame[frame["measure"] == "overlap"].set_index("metric")
    share = cell.loc["class word in name or tags"]
    said, not_said = (
        f"{percent(r.value)} ± {percent(r.se)} % (chance {percent(r.chance)})"
        for r in (cell.loc[f"accuracy {w} the word"] for w in ("with", "without"))
    )
    return (
        f"The class name is part of the name or the tags of {percent(share.value)} % of the {share.n} "
        f"concepts. Accuracy is {said} on these and {not_said} on the others."
    )


def probe(frame: pd.DataFrame, _: Path) -> str:
    rows = frame[frame["measure"] == "probe"].pivot(index="task", columns="metric", values="value")
    rows = rows.rename(columns={"probe_16 se over seeds": "spread"})
    rows["chance"] = frame[frame["metric"] == "probe_16"].set_index("task")["chance"]
    columns = ["chance", "zero_shot", "probe_16", "spread"]
    out = [[task.removeprefix("emoji/"), *(percent(r[c], 1) for c in columns)] for task, r in rows.iterrows()]
    out.append(["mean", *(percent(rows[c].mean(), 1) for c in columns[:3]), ""])
    return table(["task", "chance", "zero-shot", "16-shot probe", "± over seeds"], out)


def ranking(frame: pd.DataFrame, measure: str) -> str:
    """Recalls (%) and median ranks; the chance of R@1 stands beside them."""
    rows, out = frame[frame["measure"] == measure], []
    for where, part in rows.groupby(["task", "concepts", "style"], sort=False):
        cell = part.set_index("metric")
        chance, value = cell.loc["i2t R@1", "chance"], cell["value"]
        out.append(
            [
                *where,
                f"{cell['n'].iloc[0]:,}",
                percent(chance, 2),
                *(f"{value[m]:g}" if "rank" in m else percent(value[m], 1) for m in RANKING),
            ]
        )
    return table(["captions", "concepts", "style", "n", "R@1 by chance", *RANKING], out)


def emotions(frame: pd.DataFrame, _: Path) -> str:
    rows, out = frame[frame["measure"] == "emotions"], []
    for where, part in rows.groupby(["concepts", "style"], sort=False):
        cell = part.set_index("metric")
        shares = [
            f"{percent(r.value)} ± {percent(r.se)} ({percent(r.chance)})"
            for r in cell.loc[["accuracy", "balanced accuracy"]].itertuples()
        ]
        kl = cell.loc["KL"]
        divergence = f"{kl['value']:.2f} ± {kl['se']:.2f} ({kl['chance']:.2f})"
        out.append([*where, str(kl["n"]), *shares, divergence])
    return table(
        [
            "concepts",
            "style",
            "n",
            "accuracy (majority class)",
            "balanced accuracy (chance)",
            "KL (uniform guess)",
        ],
        out,
    )


def attention(frame: pd.DataFrame, _: Path) -> str:
    rows = frame[frame["measure"] == "attention"]
    metrics = list(rows["metric"].unique())
    out = []
    for style, part in rows.groupby("style", sort=False):
        cell = part.set_index("metric")
        out.append(
            [
                style,
                percent(cell.loc[metrics[0], "chance"]),
                *(f"{percent(cell.loc[m, 'value'])} ± {percent(cell.loc[m, 'se'], 1)}" for m in metrics),
            ]
        )
    return table(["style", "area", *metrics], out)


def unclear(frame: pd.DataFrame, _: Path) -> str:
    """What missed its target, and how much is not above chance by CLEAR standard errors."""
    rows = frame[frame["se"].notna() & frame["chance"].notna()]
    rows = rows.assign(question=[question(r) for r in rows.itertuples()])
    rows = rows[rows["question"] != ""]
    gain = (rows["value"] - rows["chance"]) * rows["metric"].map({"KL": -1}).fillna(1)
    rows = rows.assign(fails=gain < CLEAR * rows["se"])
    styles = list(rows["style"].unique())
    lines = []
    for where, part in rows.groupby(["question", "concepts"], sort=False):
        count = part.groupby("style")["fails"].agg(["sum", "size"])
        said = {style: f"{fails} of {asked}" for style, fails, asked in count.itertuples()}
        lines += [[*where, *(said.get(s, "") for s in styles)]] if count["sum"].any() else []
    missed = frame[(frame["measure"] == "target") & ~frame["passed"].eq(True)]
    told = [f"- {r.metric}, {r.style}: {r.value:.3g} instead of {r.target:.3g}" for r in missed.itertuples()]
    return "\n".join(
        [
            "Targets missed:",
            "",
            *(told or ["- none"]),
            "",
            f"How many questions are not answered above chance by {CLEAR} standard errors:",
            "",
            table(["question", "concepts", *styles], lines),
        ]
    )


def question(r: tuple) -> str:
    """What a row of card.csv asks, in words; '' for rows that repeat another one."""
    if r.measure == "zero_shot":
        fine = r.task.endswith("-fine")
        wanted = "accuracy" if fine else "balanced accuracy"
        classes = "one class per emoji" if fine else "subgroup classes"
        return f"zero-shot, {classes}" if r.metric == wanted else ""
    if r.measure in ("retrieval", "scenes"):
        return f"{r.measure} R@1, {r.task}" if r.metric.endswith("R@1") else ""
    if r.measure == "overlap":
        return f"zero-shot, {r.metric}"
    if r.measure == "attention":
        return "" if "other mask" in r.metric else r.metric
    if r.measure == "probe":
        return "16-shot probe, subgroup classes" if r.metric == "probe_16" else ""
    return f"emotions, {r.metric}"


PARTS = {
    "recipe": recipe,
    "beside": beside.beside,
    "targets": targets,
    "overlap": overlap,
    "probe": probe,
    "emotions": emotions,
    "attention": attention,
    "unclear": unclear,
    "groups": lambda frame, _: by_style(frame, "balanced accuracy", fine=False),
    "fine": lambda frame, _: by_style(frame, "accuracy", fine=True),
    "retrieval": lambda frame, _: ranking(frame, "retrieval"),
    "scenes": lambda frame, _: ranking(frame, "scenes"),
}
