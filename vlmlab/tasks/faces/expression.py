"""What a mixture of emotions does to a face: weights of emotions times prototypes, from the tables in `data/faces`.

A prototype is the sum of what its action units and its emoji-like signs move, so that parameters are linear in the
weights and the weights can be read off them.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from ...paths import data_dir, how_to_restore

# What units move, 0 on a neutral face. Pixels of a frame of 64, upwards, outwards or larger where positive:
LENGTHS = (
    "brow_inner",  # height of the ends of the brows
    "brow_outer",
    "brow_gap",  # half the distance between the brows
    "brow_skew",  # of one brow alone
    "lid_upper",  # how far the upper lid opens
    "lid_lower",  # how far the lower lid rises, which closes the eye
    "pupil",  # radius
    "gaze",  # of the pupils, to one side
    "mouth_curve",  # corners against the middle
    "mouth_open",
    "mouth_width",  # half of it
    "mouth_skew",  # of one corner alone
)
# and how much of it there is, 0 to 1:
SHARES = ("teeth", "tongue", "dimple", "tears", "blush", "sweat", "wrinkle", "red", "green", "blue")
PARAMETERS = (*LENGTHS, *SHARES)
CONCENTRATION = (
    0.1  # of the Dirichlet distribution, per emotion: two emotions above a tenth in the average face
)


def tables() -> tuple[Path, Path]:
    """The files with the emotions and with the units."""
    return data_dir() / "faces/emotions.csv", data_dir() / "faces/units.csv"


def read(path: Path) -> pd.DataFrame:
    """A table of texts by its first column; FileNotFoundError where it is missing."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {how_to_restore()}")
    return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=0)


@functools.cache
def emotions() -> pd.DataFrame:
    """One row per emotion, in the order of labels: units, signs, and the words that emoji have for it."""
    return read(tables()[0])


@functools.cache
def units() -> pd.DataFrame:
    """What each unit moves: (unit, parameter) float64. ValueError names what is no parameter."""
    path = tables()[1]
    found = {}
    for unit, moves in read(path)["moves"].items():
        pairs = [move.partition("=")[::2] for move in moves.split()]
        if unknown := [name for name, _ in pairs if name not in PARAMETERS]:
            raise ValueError(f"{path}: unit {unit} moves {unknown[0]!r}; there are {', '.join(PARAMETERS)}")
        found[unit] = {name: float(value) for name, value in pairs}
    return pd.DataFrame.from_dict(found, orient="index", columns=PARAMETERS).fillna(0.0)


@functools.cache
def prototypes() -> np.ndarray:
    """float64 (emotion, parameter); do not write to it."""
    used = [f"{row.units} {row.signs}".split() for row in emotions().itertuples()]
    return np.stack([units().loc[names].to_numpy().sum(0) for names in used])


def weights(rng: np.random.Generator, label: int) -> np.ndarray:
    """(emotion,) of a face whose strongest emotion is `label`, from a symmetric Dirichlet distribution.

    With labels in turn the faces are a sample of that distribution, stratified by the largest weight.
    """
    drawn = rng.dirichlet(np.full(len(prototypes()), CONCENTRATION))
    first = int(drawn.argmax())
    drawn[[first, label]] = drawn[[label, first]]
    return drawn


def parameters(weights: np.ndarray) -> dict[str, float]:
    """Parameter -> value."""
    return dict(zip(PARAMETERS, (weights @ prototypes()).tolist()))
