"""The embedded image-text set: emoji drawn by artists in nine styles (`data/emoji/`).

`concepts()` lists what is drawn, `art(styles)` holds the pictures as RGBA arrays. Splits
are made by emoji, never by image, from md5 digests, hence fixed without files.
"""

import functools
import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ...paths import EMBEDDED, data_dir, how_to_restore

MONO_STYLES = ("emojione-mono", "game-icons")  # black on nothing
PRETRAIN_STYLES = ("twemoji", "noto-v1", "emojione-v2", "fxemoji", "streamline", "icon-park", *MONO_STYLES)
CLIPART = "openclipart"  # many hands; downstream train and test, of concepts of its own
SOURCE_STYLES = ("noto", "fluent-flat")  # downstream train and test
SHIFT_STYLES = ("fluent-3d", "fluent-hc")  # evaluation only: rendition, sketch
FACES = (
    "face-smiling",
    "face-affection",
    "face-tongue",
    "face-hand",
    "face-neutral-skeptical",
    "face-sleepy",
    "face-unwell",
    "face-hat",
    "face-glasses",
    "face-concerned",
    "face-negative",
    "face-costume",
    "cat-face",
    "monkey-face",
)


def present(path: Path) -> Path:
    """`path` itself, or FileNotFoundError with the fix."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {how_to_restore()}")
    return path


def read_parquet(path: Path) -> pd.DataFrame:
    """A parquet table, or one error that names the file and the fix.

    Raises FileNotFoundError when it is missing, ValueError when it is not readable.
    """
    present(path)
    try:
        return pd.read_parquet(path)
    except Exception as e:
        raise ValueError(f"{path} is not a readable parquet file ({e}); {how_to_restore()}") from e


@functools.cache
def concepts() -> pd.DataFrame:
    """One row per emoji: hexcode, emoji, name, tags, keywords, group, subgroup, novel, split.

    `split` is 'train' or 'test' (60/40 within each subgroup, by md5), 'novel' for the concepts
    no pretraining has seen in any style.
    """
    frame = read_parquet(data_dir() / "emoji/concepts.parquet")
    known = ~frame["novel"]
    frame["split"] = "novel"
    frame.loc[known, "split"] = parts(frame["hexcode"][known], frame["subgroup"][known], 0.6)
    return frame


@functools.cache
def images() -> pd.DataFrame:
    """One row per picture: style, hexcode, image (64 x 64 RGBA WebP bytes); emoji first, then `data/drawings`."""
    known = {*PRETRAIN_STYLES, *SOURCE_STYLES, *SHIFT_STYLES, CLIPART}
    frames = []
    for folder in EMBEDDED:
        path = data_dir() / folder / "images.parquet"
        frame = read_parquet(path)
        frames.append(frame.assign(style=frame["style"].astype(str)))
        if unknown := sorted(set(frames[-1]["style"]) - known):
            raise ValueError(f"{path} has unknown styles {unknown}; {how_to_restore()}")
    return pd.concat(frames, ignore_index=True)


@functools.cache
def drawings() -> pd.DataFrame:
    """One row per concept of `data/drawings`: hexcode (its key), name, subgroup ('' for things), split.

    Things are named icons that only pretraining draws; the others are clip art, whose concepts are split into
    'train' and 'test' (30/70) within each subgroup, as the emoji are.
    """
    frame = read_parquet(data_dir() / "drawings/concepts.parquet")
    return frame.assign(split=parts(frame["hexcode"], frame["subgroup"], 0.3))


def parts(hexcode: pd.Series, subgroup: pd.Series, train: float) -> np.ndarray:
    """'train' for this share of each subgroup, 'test' for the others, by md5."""
    digest = hexcode.map(lambda h: hashlib.md5(f"split:{h}".encode()).hexdigest())
    rank = digest.groupby(subgroup).rank(method="first")
    size = subgroup.map(subgroup.value_counts())
    return np.where(rank <= np.ceil(train * size), "train", "test")


def decode(data: bytes, what: str) -> np.ndarray:
    """WebP bytes -> (64, 64, 4) uint8 RGBA; ValueError names the picture when they are corrupt."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    except Exception as e:
        path = data_dir() / "emoji/images.parquet"
        raise ValueError(f"picture {what} in {path} is corrupt ({e}); {how_to_restore()}") from e


@functools.cache
def art(style: str) -> tuple[np.ndarray, pd.Series]:
    """All pictures of one style.

    Returns an (n, 64, 64, 4) uint8 RGBA array and a Series hexcode -> row of that array.
    """
    rows = images().query("style == @style")
    if rows.empty:
        raise ValueError(f"unknown style {style!r}; there are {sorted(images()['style'].unique())}")
    stack = np.stack([decode(b, f"{style}/{h}") for h, b in zip(rows["hexcode"], rows["image"], strict=True)])
    return stack, pd.Series(np.arange(len(rows)), index=rows["hexcode"].to_numpy())


@functools.cache
def webp() -> dict[tuple[str, str], bytes]:
    """(style, hexcode) -> WebP bytes, for all pictures."""
    table = images()
    keys = zip(table["style"].astype(str), table["hexcode"], strict=True)
    return dict(zip(keys, table["image"], strict=True))


@functools.lru_cache(maxsize=6000)
def rgba(style: str, hexcode: str) -> np.ndarray:
    """One picture as (64, 64, 4) uint8 with straight alpha; do not write to it.

    Raises ValueError when there is no such picture or its bytes are corrupt.
    """
    if (style, hexcode) not in webp():
        raise ValueError(f"there is no picture {style}/{hexcode} in {data_dir() / 'emoji/images.parquet'}")
    return decode(webp()[style, hexcode], f"{style}/{hexcode}")


@functools.cache
def clipart() -> pd.DataFrame:
    """One row per drawing of the clip art, in the columns of `concepts()` that tasks read.

    hexcode is the drawing's key, "clipart-1a2b3c4d-0"; drawings of one concept share its split.
    """
    table = drawings().query("subgroup != ''").set_index("hexcode")
    keys = pd.Series([h for style, h in webp() if style == CLIPART])
    rows = table.loc[keys.str.rsplit("-", n=1).str[0]].reset_index(drop=True)
    return rows.assign(hexcode=keys, novel=False)


@functools.cache
def near_duplicates() -> frozenset[tuple[str, str]]:
    """(style, hexcode) of downstream pictures that pretraining has all but seen; no test may use them.

    The list is data/emoji/near_duplicates.csv, made by `python -m vlmlab.tasks.emoji.near_duplicates`.
    """
    table = pd.read_csv(present(data_dir() / "emoji/near_duplicates.csv"), dtype={"hexcode": str})
    return frozenset(zip(table["style"], table["hexcode"], strict=True))


@functools.cache
def mirrorable() -> frozenset[str]:
    """Hexcodes of emoji that mean the same in a mirror: no symbols, flags, clocks, hands, sides, writing."""
    table = concepts()
    sided = table["name"].str.contains(
        "left|right|clock|hand|index|thumb|fist|hundred|medal|8 ball|calendar|"
        "news|yen|banknote|book|page|card|mahjong|receipt"
    )
    sided |= table["group"].isin(["symbols", "flags"])
    return frozenset(table["hexcode"][~sided])


@functools.cache
def classes() -> pd.DataFrame:
    """The subgroup classes of the embedded tasks: task, subgroup, name."""
    return pd.read_csv(present(data_dir() / "emoji/classes.csv"))


@functools.cache
def emotions() -> pd.DataFrame:
    """Soft emotion labels of faces by the words of `data/emoji/emotions.csv`, see `felt`."""
    table = pd.read_csv(present(data_dir() / "emoji/emotions.csv"))
    return felt(table.set_index("emotion")["words"])


def felt(lexicon: pd.Series) -> pd.DataFrame:
    """Soft emotion labels of faces: index hexcode, one column per emotion, rows sum to 1.

    lexicon: emotion -> words. A face scores one point per word of it among its name and tags; faces without any
    such word are left out.
    """
    lexicon = lexicon.str.split()
    faces = concepts()[concepts()["subgroup"].isin(FACES)].set_index("hexcode")
    words = [
        set(" ".join([n, *t]).replace("-", " ").split())
        for n, t in zip(faces["name"], faces["tags"], strict=True)
    ]
    points = {e: [len(w & set(lex)) for w in words] for e, lex in lexicon.items()}
    score = pd.DataFrame(points, index=faces.index)
    score = score[score.sum(axis=1) > 0]
    return score.div(score.sum(axis=1), axis=0)
