"""Which downstream pictures pretraining has all but seen: `python -m vlmlab.tasks.emoji.near_duplicates`.

Different artists draw some signs almost alike. A downstream picture whose mean absolute RGB
difference from a pretraining picture, both on white, is below THRESHOLD (of 1) is listed in
`data/emoji/near_duplicates.csv` and left out of every test. An emoji is compared with pictures of the
same emoji, clip art with all pictures, and there a thin drawing must also be less than half as far from its
twin as from a white page, which else is near to every thin drawing.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from . import data as emoji

THRESHOLD = 0.04
COLUMNS = ["style", "hexcode", "twin_style", "twin", "distance"]


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 RGBA (..., 4) composited on white -> float32 RGB (..., 3) in [0, 1]."""
    x = rgba.astype(np.float32) / 255
    return x[..., :3] * x[..., 3:] + 1 - x[..., 3:]


def pairs(hexcodes: Iterable[str] | None = None) -> pd.DataFrame:
    """Near-duplicates, recomputed from the pictures (half a minute for all).

    hexcodes: the emoji and clip art to look at, all by default. Returns the columns style and hexcode (downstream),
    twin_style and twin (pretraining, of each style the nearest) and distance, rounded to 4 decimals, sorted.
    """
    table = emoji.images()
    wanted = table if hexcodes is None else table[table["hexcode"].isin(set(hexcodes))]
    clips = wanted["style"] == emoji.CLIPART
    found = [*of_same_emoji(wanted[~clips]), *of_anything(wanted[clips], table)]
    frame = pd.DataFrame(found, columns=COLUMNS).sort_values([*COLUMNS[:3], "distance"], ignore_index=True)
    return frame.drop_duplicates(COLUMNS[:3], ignore_index=True)


def pixels(rows: pd.DataFrame) -> list[np.ndarray]:
    return [on_white(emoji.decode(r.image, f"{r.style}/{r.hexcode}")) for r in rows.itertuples()]


def of_same_emoji(table: pd.DataFrame) -> Iterator[tuple]:
    for hexcode, rows in table.groupby("hexcode", sort=True):
        art = dict(zip(rows["style"], pixels(rows), strict=True))
        for style in (*emoji.SOURCE_STYLES, *emoji.SHIFT_STYLES):
            for twin in emoji.PRETRAIN_STYLES:
                if style in art and twin in art:
                    distance = float(np.abs(art[style] - art[twin]).mean())
                    if distance < THRESHOLD:
                        yield style, hexcode, twin, hexcode, round(distance, 4)


def of_anything(clips: pd.DataFrame, table: pd.DataFrame) -> Iterator[tuple]:
    """Means over cells of 8 x 8 pixels are at most as far apart as the pixels, so they tell what need not be compared."""
    if clips.empty:
        return
    others = table[table["style"].isin(emoji.PRETRAIN_STYLES)]

    def cells(art: list[np.ndarray]) -> np.ndarray:
        return np.stack([x.reshape(8, 8, 8, 8, 3).mean((1, 3)).ravel() for x in art])

    ours = pixels(clips)
    first, theirs = cells(ours), [cells(pixels(part)) for _, part in blocks(others)]
    near = np.argwhere(cdist(first, np.concatenate(theirs), "cityblock") / first.shape[1] < THRESHOLD)
    for i, j in near:
        clip, twin = clips.iloc[i], others.iloc[[j]]
        distance = float(np.abs(ours[i] - pixels(twin)[0]).mean())
        if distance < min(THRESHOLD, float(1 - ours[i].mean()) / 2):
            yield (
                clip["style"],
                clip["hexcode"],
                twin["style"].item(),
                twin["hexcode"].item(),
                round(distance, 4),
            )


def blocks(table: pd.DataFrame, size: int = 1000) -> Iterator[tuple[int, pd.DataFrame]]:
    """A table in parts, so that not all pictures are in memory at once."""
    return ((i, table.iloc[i : i + size]) for i in range(0, len(table), size))


def main() -> None:
    """Write the list anew."""
    path, frame = emoji.data_dir() / "emoji/near_duplicates.csv", pairs()
    temporary = path.with_suffix(".tmp")
    frame.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    temporary.replace(path)
    print(f"{path}: {len(frame)} pairs, {len(frame.groupby(['style', 'hexcode']))} downstream pictures")


if __name__ == "__main__":
    main()
