"""How the usual sets of emotions are laid out, where that differs from other folders and tables.

Emotion6 (`table:ground_truth.txt`: tabs, "[image_filename]", "[valence]", "[prob. anger]" ...), Flickr_LDL and
Twitter_LDL (one column of votes an emotion) are tables with soft labels like any other, once their columns are read
by `columns.plain`. FER2013 (`table:fer2013.csv`) holds its images as numbers in a column `pixels`. RAF-DB has folders
named by the numbers of its emotions.
"""

import re

import numpy as np
import pandas as pd
from PIL import Image

from .listing import Listing

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # labels 0 to 6
RAF_DB = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")  # folders 1 to 7
RAF_FILE = re.compile(r"(train|test)_\d+(_aligned)?\.\w+", re.IGNORECASE)


def call_raf(listing: Listing) -> None:
    """Name the classes of RAF-DB's folders 1 to 7; its files are called train_00001_aligned.jpg and so on."""
    files = [path.rpartition("/")[2] for path in listing.paths]
    if sorted(listing.names) == list("1234567") and all(map(RAF_FILE.fullmatch, files)):
        listing.names = tuple(RAF_DB[int(name) - 1] for name in listing.names)
        listing.notes.append(f"the folders 1 to 7 are called as in RAF-DB: {', '.join(RAF_DB)}")


def take_pixels(listing: Listing, cells: dict[str, pd.Series]) -> bool:
    """The images of a column like "70 80 82", row by row, grey and square, all of one size, and names for their
    labels; whether all is well."""
    before = len(listing.problems)
    listing.base, listing.paths = listing.place, [f"row {i + 1}" for i in range(len(cells["pixels"]))]
    listing.pixels = pixels_of(listing, cells["pixels"])
    if "label" in cells and "name" not in cells:
        cells["name"] = called_as_fer(listing, cells["label"])
    return len(listing.problems) == before


def pixels_of(listing: Listing, cells: pd.Series) -> np.ndarray | None:
    """uint8 (image, side, side); None, and why, where the cells are no such images."""
    sizes = cells.str.count(r"\S+")
    side = int(np.sqrt(sizes.mode().iloc[0]))
    if len(odd := np.flatnonzero((sizes != side**2) | (sizes == 0))):
        wanted = f"{side} x {side} as most others" if side else "a square"
        listing.wrong(
            f"{len(odd):,} images have a wrong number of pixels, the first in row {odd[0] + 1}: "
            f"{sizes.iloc[odd[0]]:,}, which is not {wanted}; was the file cut off?"
        )
        return None
    try:
        pixels = np.stack([np.array(cell.split(), dtype=np.int64) for cell in cells])
    except ValueError as e:
        listing.wrong(f"the column {cells.name} holds what is no whole number ({e})")
        return None
    if len(odd := np.flatnonzero((pixels.min(1) < 0) | (pixels.max(1) > 255))):
        low, high = pixels[odd[0]].min(), pixels[odd[0]].max()
        listing.wrong(f"the pixels in row {odd[0] + 1} go from {low} to {high}, not 0 to 255")
        return None
    return pixels.astype(np.uint8).reshape(-1, side, side)


def called_as_fer(listing: Listing, label: pd.Series) -> pd.Series:
    """The name of each label of FER2013. Notes a problem where one is none of its labels."""
    known = {str(i): name for i, name in enumerate(FER2013)}
    if unknown := [cell for cell in dict.fromkeys(label) if cell not in known]:
        listing.wrong(
            f"the column {label.name} says {unknown[0]!r}; the emotions of FER2013 are 0 to 6 "
            f"({', '.join(FER2013)})"
        )
    return label.map(known)


def pixel_image(pixels: np.ndarray, id: str, rng: np.random.Generator | None = None) -> Image.Image:
    """The image of "row 17" as RGB."""
    return Image.fromarray(pixels[int(id.split()[1]) - 1]).convert("RGB")
