"""`faces/emotions`: generated faces with exact soft labels over seven emotions and neutral.

Each face mixes the prototypes of `data/faces/emotions.csv` with weights from a Dirichlet distribution: the weights are
its label distribution, the largest its label. 4,000 faces train, 500 validate, 1,500 test, each a function of its id.

`faces/emotions-500` is the same with the first 500 test faces alone, for whoever measures often.

Shifts: the test faces as line drawings (`lines`), without colours (`grey`), turned (`rotated`), partly covered
(`covered`); and `emoji`, the test and novel faces of `emoji/emotions` that artists drew, labelled among the same classes by the
words in their names and tags. Across data sets the test is `emoji/emotions` itself, with its own classes.
"""

import functools

import numpy as np
import pandas as pd

from ..captions import Captions
from ..emoji import data as emoji
from ..emoji import tasks as emoji_tasks
from ..split import Dataset, Split
from . import captions, expression, pictures
from .drawing import REGIONS

ID = "faces/emotions"
SHORT, FIRST = "faces/emotions-500", 500  # the task with the first test faces alone, and how many
PROTOCOLS = ("zero_shot", "few_shot", "domain_shift", "cross_dataset", "label_distribution")
READ = {"read": pictures.image, "content": pictures.content, "concept": pictures.concept, "flip": False}


def names() -> list[str]:
    """Ids of the tasks of generated faces."""
    return [ID, SHORT]


@functools.lru_cache(maxsize=8)
def dataset(id: str = ID, backgrounds: int = 2) -> Dataset:
    """The data of one of `names()`; `backgrounds` is that of the emoji."""

    def test(look: str = "") -> Split:
        faces = part("test", look)
        return faces if id == ID else faces.select(range(FIRST))

    shifts = {look: test(look) for look in pictures.LOOKS}
    return Dataset(
        id,
        part("train"),
        test(),
        part("val"),
        shifts={**shifts, "emoji": by_artists(backgrounds)},
        others={"emoji/emotions": lambda: emoji_tasks.dataset("emoji/emotions", backgrounds).test},
        protocols=PROTOCOLS,
    )


def ids(part: str, look: str = "") -> list[str]:
    return [f"{part}/{i}{look and '+' + look}" for i in range(pictures.PARTS[part][1])]


@functools.cache
def weights(part: str) -> np.ndarray:
    """float64 (face, emotion), rows sum to 1; do not write to it."""
    return np.stack([pictures.felt(part, i)[0] for i in range(pictures.PARTS[part][1])])


def part(part: str, look: str = "") -> Split:
    """The faces of a part in one look."""
    soft = weights(part)
    classnames = tuple(expression.emotions().index)
    return Split(
        ids(part, look),
        soft.argmax(1),
        classnames,
        emoji_tasks.FACE_TEMPLATE,
        soft.astype(np.float32),
        mask_of=pictures.masks,
        regions=REGIONS,
        **READ,
    )


def by_artists(backgrounds: int) -> Split:
    """The test and novel faces of `emoji/emotions` that a word tells an emotion of, with the labels of `faces/emotions`."""
    soft = emoji.felt(expression.emotions()["words"])
    _, test, novel = emoji_tasks.faces(soft)
    options = {"template": emoji_tasks.FACE_TEMPLATE, "soft": soft}
    classnames, variants = tuple(soft.columns), emoji_tasks.grounds(backgrounds)
    return emoji_tasks.split(pd.concat([test, novel]), emoji.SOURCE_STYLES, classnames, variants, **options)


def faces(n: int, part: str = "train", *, look: str = "") -> Captions:
    """The first `n` faces of a part with a caption each, "a very sad and slightly angry face.", and masks.

    `shows` names the regions of the masks: brows, eyes, mouth and rest. ValueError for more faces than there are, an
    unknown part or look.
    """
    pictures.parse(f"{part}/0{look and '+' + look}")
    if not 1 <= n <= pictures.PARTS[part][1]:
        raise ValueError(f"{part} has {pictures.PARTS[part][1]:,} faces, got n={n}")
    return Captions(
        ids(part, look)[:n],
        tuple(captions.caption(row) for row in weights(part)[:n]),
        np.arange(n),
        (REGIONS,) * n,
        mask_of=pictures.masks,
        **READ,
    )
