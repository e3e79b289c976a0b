"""The embedded tasks of images and texts. Both keep concepts apart: train-split ones are learnt from, test-split
and novel ones are tested on (data/emoji/README.md, "Leakage rules").

- `emoji/captions`: one drawing per image. Training captions hold names and tags, never keywords. Tests: `test` (noto,
  by name), `keywords` (noto, by words that no caption of pretraining or training has for the concept), the styles
  fluent-3d and fluent-hc, and `novel` (noto, concepts that pretraining never saw).
- `emoji/pretraining`: trains on what the embedded models saw, every drawing of the pretraining styles (augmented and
  captioned anew for each batch, see pretraining); the same tests.
- `emoji/scenes`: two drawings side by side (see scenes), with captions or, under the protocol vqa, with questions.
"""

import dataclasses
import functools

import numpy as np

from ..captions import Captions
from ..images import Images
from ..split import Dataset
from . import data as emoji
from . import pictures
from .captions import pretraining_concepts
from .pictures import parse
from .retrieval import retrieval_set, usable
from .scenes import questions, scenes
from .tasks import TEMPLATE

PROTOCOLS = {
    "emoji/captions": ("retrieval",),
    "emoji/pretraining": ("retrieval",),
    "emoji/scenes": ("retrieval", "vqa"),
}
TRAIN_SCENES, TEST_SCENES = 400, 200  # per style
TAGS = 3  # in a caption, as in pretraining
KEYWORDS = 6  # in a caption; with two more, one of them fills the 32 tokens of the tiny models


def names() -> list[str]:
    """Ids of the embedded tasks of images and texts."""
    return list(PROTOCOLS)


@functools.lru_cache(maxsize=8)
def dataset(id: str, protocol: str = "retrieval") -> Dataset:
    """The data of one of `names()`."""
    if id == "emoji/scenes":
        return scene_data(protocol)
    data = caption_data()
    return data if id == "emoji/captions" else dataclasses.replace(data, id=id, train=pretraining_pictures())


def caption_data() -> Dataset:
    """Train-split drawings with their captions; test-split and novel ones with one caption each."""
    first = emoji.SOURCE_STYLES[0]
    shifts = {"keywords": tested(first, "keywords"), **{style: tested(style) for style in emoji.SHIFT_STYLES}}
    return Dataset(
        "emoji/captions",
        training_captions(),
        tested(first),
        shifts={**shifts, "novel": retrieval_set(first, novel=True)},
        protocols=PROTOCOLS["emoji/captions"],
    )


def training_captions() -> Captions:
    """Every train-split drawing of the source styles: by name, and by name and tags where it has any."""
    rows = [
        (f"{style}/{c.hexcode}", c.name, c.tags)
        for style in emoji.SOURCE_STYLES
        for c in usable(style, novel=False).query("split == 'train'").itertuples(index=False)
    ]
    texts = [
        [TEMPLATE.format(name), *([", ".join([name, *tags[:TAGS]])] if len(tags) else [])]
        for _, name, tags in rows
    ]
    return Captions(
        [id for id, _, _ in rows],
        tuple(text for both in texts for text in both),
        np.repeat(np.arange(len(rows)), [len(both) for both in texts]),
        tuple((name,) for _, name, _ in rows),
        read=pictures.image,
        content=pictures.content,
        concept=pictures.concept,
        flip=False,
    )


def pretraining_pictures() -> Captions:
    """Every drawing of the pretraining styles by its name."""
    names = pretraining_concepts().set_index("hexcode")["name"]
    rows = [(s, h) for s in emoji.PRETRAIN_STYLES for h in emoji.art(s)[1].index if h in names.index]
    return Captions(
        [f"{style}/{hexcode}" for style, hexcode in rows],
        tuple(TEMPLATE.format(names[hexcode]) for _, hexcode in rows),
        np.arange(len(rows)),
        tuple((names[hexcode],) for _, hexcode in rows),
        read=pictures.image,
        content=pictures.content,
        concept=pictures.concept,
        flip=False,
    )


def tested(style: str, captions: str = "names") -> Captions:
    """The retrieval set of a style, test-split concepts only, with at most `KEYWORDS` keywords, which no
    other image shares."""
    table, found = emoji.concepts(), retrieval_set(style, captions)
    kept = set(table["hexcode"][table["split"] == "test"])
    found = found.select([i for i, id in enumerate(found.ids) if parse(id)[1] in kept])
    if captions == "names":
        return found
    short = [", ".join(text.split(", ")[:KEYWORDS]) for text in found.texts]
    found = dataclasses.replace(found, texts=tuple(short))
    return found.select([i for i, text in enumerate(short) if short.count(text) == 1])


def scene_data(protocol: str) -> Dataset:
    """Scenes of train-split concepts in the source styles; of test-split ones in noto and in the shifts' styles."""
    train = joined([scenes(TRAIN_SCENES, 1, style, part="train") for style in emoji.SOURCE_STYLES])
    styles = (emoji.SOURCE_STYLES[0], *emoji.SHIFT_STYLES)
    test, *shifted = (scenes(TEST_SCENES, 2, style, part="test") for style in styles)
    parts: list[Images] = [train, test, *shifted]
    if protocol == "vqa":
        parts = [questions(part) for part in parts]
    shifts = dict(zip(emoji.SHIFT_STYLES, parts[2:], strict=True))
    return Dataset("emoji/scenes", *parts[:2], shifts=shifts, protocols=PROTOCOLS["emoji/scenes"])


def joined(parts: list[Captions]) -> Captions:
    """One after the other; all are read the same way."""
    starts = np.cumsum([0, *map(len, parts)])
    return dataclasses.replace(
        parts[0],
        ids=[id for part in parts for id in part.ids],
        texts=tuple(text for part in parts for text in part.texts),
        image_of=np.concatenate([start + part.image_of for start, part in zip(starts, parts)]),
        shows=tuple(shown for part in parts for shown in part.shows),
    )
