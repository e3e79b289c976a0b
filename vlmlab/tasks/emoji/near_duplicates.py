"""Which downstream pictures pretraining has all but seen: `python -m vlmlab.tasks.emoji.near_duplicates`.

Different artists draw some signs almost alike. A downstream picture whose mean absolute RGB
difference from a pretraining picture of the same emoji, both on white, is below THRESHOLD (of 1)
is listed in `data/emoji/near_duplicates.csv` and left out of every test.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from . import data as emoji

THRESHOLD = 0.04


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 RGBA (..., 4) composited on white -> float32 RGB (..., 3) in [0, 1]."""
    x = rgba.astype(np.float32) / 255
    return x[..., :3] * x[..., 3:] + 1 - x[..., 3:]


def pairs(hexcodes: Iterable[str] | None = None) -> pd.DataFrame:
    """Near-duplicates, recomputed from the pictures (a few seconds for all).

    hexcodes: the emoji to look at, all by default. Returns the columns style (downstream), hexcode,
    twin_style (pretraining) and distance, rounded to 4 decimals, sorted by the first three.
    """
    table = emoji.images()
    if hexcodes is not None:
        table = table[table["hexcode"].isin(set(hexcodes))]
    found = []
    for hexcode, rows in table.groupby("hexcode", sort=True):
        art = {
            str(r.style): on_white(emoji.decode(r.image, f"{r.style}/{hexcode}")) for r in rows.itertuples()
        }
        for style in (*emoji.SOURCE_STYLES, *emoji.SHIFT_STYLES):
            for twin in emoji.PRETRAIN_STYLES:
                if style in art and twin in art:
                    distance = float(np.abs(art[style] - art[twin]).mean())
                    if distance < THRESHOLD:
                        found.append((style, hexcode, twin, round(distance, 4)))
    frame = pd.DataFrame(found, columns=["style", "hexcode", "twin_style", "distance"])
    return frame.sort_values(["style", "hexcode", "twin_style"], ignore_index=True)


def main() -> None:
    """Write the list anew."""
    path, frame = emoji.data_dir() / "emoji/near_duplicates.csv", pairs()
    temporary = path.with_suffix(".tmp")
    frame.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    temporary.replace(path)
    print(f"{path}: {len(frame)} pairs, {len(frame.groupby(['style', 'hexcode']))} downstream pictures")


if __name__ == "__main__":
    main()
