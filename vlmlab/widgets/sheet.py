"""Thumbnails: which images are asked for, in which order, and a page of them as one picture."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from ..tasks.split import Split
from .given import OWN
from .reading import Reading

ROWS, COLUMNS, SIDE = 4, 6, 64  # of a page; pixels of a thumbnail with its border
EDGE = 4  # pixels of the border
CHOSEN, RIGHT, WRONG = (230, 159, 0), (0, 158, 115), (213, 94, 0)
EVERY = "all"
ANSWERS = {"all": EVERY, "right": "right", "wrong": "wrong"}
ORDERS = ("as they come", "low margin", "high margin", "low r(x)", "high r(x)")


def table(tests: Mapping[str, Split], readings: Mapping[tuple[str, str], Reading]) -> pd.DataFrame:
    """One row per image: test, sample (its number there), id, name of its class, and of each model predicted,
    probability, right, margin (logit of its class above the best other) and r(x).

    Of pictures whose class nobody said, name is empty and right and margin are missing.
    """
    frames = []
    for name, test in tests.items():
        known = test.provenance != OWN
        classes = np.array([c.replace("_", " ") for c in test.classnames])
        frame = pd.DataFrame({"test": name, "sample": np.arange(len(test)), "id": test.ids})
        frame["name"] = classes[test.labels] if known else ""
        for (model, of), reading in readings.items():
            if of == name:
                frame = frame.assign(**answers(model, reading, test.labels, classes, known))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def answers(model: str, reading: Reading, labels: np.ndarray, classes: np.ndarray, known: bool) -> dict:
    """The columns of one model."""
    logits, n = reading.logits.astype(float), len(labels)
    best = logits.argmax(1)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    others = logits.copy()
    others[np.arange(n), labels] = -np.inf
    margin = logits[np.arange(n), labels] - others.max(1)
    return {
        f"predicted {model}": classes[best],
        f"probability {model}": 1 / shares.sum(1),
        f"right {model}": best == labels if known else np.full(n, None),
        f"margin {model}": margin if known else np.full(n, np.nan),
        f"r {model}": reading.ratio,
    }


def found(
    rows: pd.DataFrame,
    model: str,
    text: str = "",
    test: str = EVERY,
    name: str = EVERY,
    answer: str = EVERY,
    order: str = ORDERS[0],
    r: tuple[float, float] | None = None,
) -> list[int]:
    """Numbers of the rows that are asked for, in the order asked for.

    text: stands in the id, the class or the prediction of a model. answer: "right" or "wrong" by this model,
    or "only <model>": right by that one alone. r: the least and the largest r(x), of this model or of the first that
    has one. Missing numbers come last.
    """
    keep = np.ones(len(rows), bool)
    if text.strip():
        places = rows[["id", "name", *[c for c in rows if c.startswith("predicted ")]]]
        keep &= (
            places.apply(lambda c: c.str.contains(text.strip(), case=False, regex=False))
            .any(axis=1)
            .to_numpy()
        )
    if test != EVERY:
        keep &= (rows["test"] == test).to_numpy()
    if name != EVERY:
        keep &= (rows["name"] == name).to_numpy()
    if answer.startswith("only "):
        one = answer.removeprefix("only ")
        for column in [c for c in rows if c.startswith("right ")]:
            keep &= (rows[column] == (column == f"right {one}")).to_numpy()
    elif answer != EVERY:
        keep &= (rows[f"right {model}"] == (answer == "right")).to_numpy()
    if r is not None:
        keep &= rows[with_r(rows, model)].between(*r).to_numpy()
    rows = rows[keep]
    if order != ORDERS[0]:
        column = f"{'margin' if 'margin' in order else 'r'} {model}"
        rows = rows.sort_values(column, ascending=order.startswith("low"), kind="stable")
    return rows.index.tolist()


def with_r(rows: pd.DataFrame, model: str) -> str | None:
    """The column of r(x) of a model, or of the first that has one; None where none has."""
    columns = [f"r {model}", *(c for c in rows if c.startswith("r "))]
    return next((c for c in columns if rows[c].notna().any()), None)


def told(row: pd.Series, models: Sequence[str]) -> str:
    """What is said of an image: its class and the answer of each model."""
    parts = [row["name"] or "class unknown"]
    for model in models:
        right = row[f"right {model}"]
        mark = "" if right is None else " (right)" if right else " (wrong)"
        parts.append(f"{model}: {row[f'predicted {model}']} {row[f'probability {model}']:.0%}{mark}")
    return f"{row['test']}, {'; '.join(parts)}"


def thumbnail(image: Image.Image) -> Image.Image:
    """At most SIDE - 2 EDGE pixels a side; a large JPEG is decoded small."""
    image = image.convert("RGB")
    image.thumbnail((SIDE - 2 * EDGE, SIDE - 2 * EDGE))
    return image


def page(
    rows: pd.DataFrame, numbers: Sequence[int], model: str, chosen: int, small: Callable[[int], Image.Image]
) -> np.ndarray:
    """ROWS × COLUMNS thumbnails as uint8 RGBA; the chosen one framed, and a tick or a cross by the answer of a model."""
    picture = Image.new("RGBA", (COLUMNS * SIDE, ROWS * SIDE))
    pen = ImageDraw.Draw(picture)
    for place, number in enumerate(numbers[: ROWS * COLUMNS]):
        left, top = place % COLUMNS * SIDE, place // COLUMNS * SIDE
        if number == chosen:
            pen.rounded_rectangle((left, top, left + SIDE - 1, top + SIDE - 1), 6, fill=CHOSEN)
        image = small(number)
        picture.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
        sign(pen, left + SIDE - 11, top + SIDE - 11, rows.at[number, f"right {model}"])
    return np.asarray(picture)


def sign(pen: ImageDraw.ImageDraw, x: int, y: int, right: bool | None) -> None:
    """A tick on green or a cross on red, told apart without colours too."""
    if right is None:
        return
    pen.ellipse((x - 8, y - 8, x + 8, y + 8), fill=RIGHT if right else WRONG)
    if right:
        pen.line([(x - 4, y), (x - 1, y + 3), (x + 4, y - 4)], fill="white", width=2)
    else:
        pen.line([(x - 3, y - 3), (x + 3, y + 3)], fill="white", width=2)
        pen.line([(x - 3, y + 3), (x + 3, y - 3)], fill="white", width=2)
