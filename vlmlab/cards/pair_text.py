"""The generated parts of the cards of `tiny-siglip` and `tiny-janus` (see text.py)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from .cells import percent, table

LITTLE = 0.1  # of names, what is hardly more than chance


def trained(frame: pd.DataFrame, config: Path) -> str:
    """Size, blocks, training and the weights that were measured."""
    about = json.loads(config.read_text(encoding="utf-8"))
    beside = config.with_name("pretraining.json")
    run = about["pretraining"] if "pretraining" in about else json.loads(beside.read_text(encoding="utf-8"))
    size = frame.loc[frame["measure"] == "model", "value"].item()
    options = ", ".join(f"{k} {v:g}" for k, v in run.items() if k not in ("step", "samples"))
    return "\n".join(
        [
            f"- {size / 1e6:.1f} M parameters",
            *(
                f"- {what}"
                for what in (towers(about["model_cfg"]) if "model_cfg" in about else blocks(about))
            ),
            f"- training: {run['step']:,} steps, {run['samples']:,} images",
            f"- recipe (`vlmlab pretrain`): {options}",
            f"- weights measured here: sha256 `{frame['weights'].iloc[0]}`...",
        ]
    )


def towers(model: dict) -> list[str]:
    """Of open_clip's model_cfg."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    return [
        f"image tower: {vision['layers']} blocks of width {vision['width']}, patches of {vision['patch_size']} on "
        f"{vision['image_size']} x {vision['image_size']} pixels",
        f"text tower: {text['layers']} blocks of width {text['width']}, context {text['context_length']}, vocabulary "
        f"{text['vocab_size']:,}",
    ]


def blocks(about: dict) -> list[str]:
    """Of a JanusConfig."""
    vision, text = about["vision_config"], about["text_config"]
    return [
        f"vision tower: {vision['num_hidden_layers']} blocks of width {vision['hidden_size']}, patches of "
        f"{vision['patch_size']} on {vision['image_size']} x {vision['image_size']} pixels; aligner of "
        f"{vision['depth']} layers",
        f"language model: LLaMA of {text['num_hidden_layers']} blocks of width {text['hidden_size']}, "
        f"{text['num_attention_heads']} heads, vocabulary {text['vocab_size']:,}",
    ]


def shapes(frame: pd.DataFrame, _: Path) -> str:
    """A column per model."""
    rows = frame[(frame["measure"] == "shapes") & ~frame["metric"].str.contains("rank")]
    return side_by_side(rows, list(rows["style"].unique()), chance=True)


def side_by_side(rows: pd.DataFrame, styles: list[str], chance: bool = False) -> str:
    """Percent, a row for each task and metric, a column for each style."""
    lines = []
    for (task, metric), part in rows.groupby(["task", "metric"], sort=False):
        cell = part.set_index("style")
        said = [f"{percent(cell.loc[s, 'value'], 1)} ± {percent(cell.loc[s, 'se'], 1)}" for s in styles]
        lines.append([task, metric, f"{cell['n'].iloc[0]:,}", *said])
        lines[-1] += [percent(cell["chance"].iloc[0], 1)] if chance else []
    return table(["task", "quantity", "n", *styles, *(["chance"] if chance else [])], lines)


def of_measure(measure: str):
    """The part of a measure whose styles are what was shown."""

    def part(frame: pd.DataFrame, _: Path) -> str:
        rows = frame[frame["measure"] == measure]
        return side_by_side(rows, list(rows["style"].unique()))

    return part


def loss(frame: pd.DataFrame, _: Path) -> str:
    """Nats, not percent."""
    rows = frame[frame["measure"] == "loss"]
    styles, lines = list(rows["style"].unique()), []
    for task, part in rows.groupby("task", sort=False):
        cell = part.set_index("style")
        said = [f"{cell.loc[s, 'value']:.3f} ± {cell.loc[s, 'se']:.3f}" for s in styles]
        even = cell["chance"].iloc[0]
        lines.append([task, f"{cell['n'].iloc[0]:,}", *said, "" if pd.isna(even) else f"{even:.3f}"])
    return table(["task", "n", *styles, "drawn evenly"], lines)


def named(frame: pd.DataFrame, _: Path) -> str:
    rows = frame[frame["measure"] == "names"]
    lines = [
        [r.style, f"{r.n:,}", f"{percent(r.value, 1)} ± {percent(r.se, 1)}", percent(r.chance, 1)]
        for r in rows.itertuples()
    ]
    return table(["style", "n", "accuracy", "chance"], lines)


def unlearned(frame: pd.DataFrame, _: Path) -> str:
    """Questions answered no better than behind another image by two standard errors; names that are hardly known."""
    rows, lines = frame[frame["measure"] == "questions"], []
    for (task, metric), part in rows.groupby(["task", "metric"], sort=False):
        own, other = part.iloc[0], part.iloc[1]
        if own["value"] - other["value"] < 2 * np.hypot(own["se"], other["se"]):
            said = f"{percent(own['value'])} % behind {own['style']}, {percent(other['value'])} % behind {other['style']}"
            lines.append(f"- {task}, {metric}: {said}")
    for r in frame[frame["measure"] == "names"].itertuples():
        if r.value - r.chance < LITTLE:
            lines.append(
                f"- names of emoji, {r.style}: {percent(r.value, 1)} %, by chance {percent(r.chance, 1)} %"
            )
    return "\n".join(lines or ["- nothing of this"])


PARTS = {
    "trained": trained,
    "shapes": shapes,
    "captions": of_measure("captions"),
    "questions": of_measure("questions"),
    "loss": loss,
    "named": named,
    "unlearned": unlearned,
}
