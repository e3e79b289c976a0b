"""Captions of the embedded set: what pretraining reads, and what it must never read."""

import functools

import numpy as np
import pandas as pd

from . import data as emoji

TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}.",
    "a photo of a {}.",
    "{}",
    "a {}.",
    "an image of a {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "an emoji of a {}.",
    "a cartoon of a {}.",
    "a photo of the {}.",
)
STYLE_TEMPLATES = {
    "twemoji": "a flat drawing of a {}.",
    "noto-v1": "a cartoon of a {}.",
    "emojione-v2": "a flat drawing of a {}.",
    "fxemoji": "a flat drawing of a {}.",
    "streamline": "a flat drawing of a {}.",
    "icon-park": "a line drawing of a {}.",
    "emojione-mono": "a black and white sketch of a {}.",
    "game-icons": "a black and white sketch of a {}.",
}
FACE_TEMPLATES = ("a {} face.", "a photo of a {} face.", "a photo of a face that feels {}.")
SCENE = "a {} and a {}."


@functools.cache
def pretraining_concepts() -> pd.DataFrame:
    """Concepts that pretraining may draw, indexed from 0: all emoji but the novel ones, then things of other icons."""
    things = emoji.drawings().query("subgroup == ''").assign(group="things")
    none = [[] for _ in range(len(things))]
    things = things.assign(emoji="", tags=none, keywords=none, novel=False)
    return pd.concat([emoji.concepts().query("split != 'novel'"), things], ignore_index=True)


@functools.cache
def attributes() -> tuple[np.ndarray, list[str], list[dict[str, list[int]]]]:
    """What captions may say about a concept besides its name.

    Returns a bool matrix (concept, attribute), the attribute words, and per concept the columns by
    kind: 'tags' for every pretraining concept; 'class' (subgroup class names) and 'emotion' for
    train-split concepts only. Tags of test emoji may still hold the same words; the model card measures it.
    """
    frame = pretraining_concepts()
    class_of = emoji.classes().set_index("subgroup")["name"]
    mood = emoji.emotions()
    kinds = []
    for c in frame.itertuples():
        seen = c.split == "train"
        kinds.append(
            {
                "tags": list(c.tags),
                "class": [class_of[c.subgroup]] if seen and c.subgroup in class_of else [],
                "emotion": list(mood.columns[mood.loc[c.hexcode] >= 0.3])
                if seen and c.hexcode in mood.index
                else [],
            }
        )
    words = sorted({w for k in kinds for ws in k.values() for w in ws})
    column = {w: i for i, w in enumerate(words)}
    matrix = np.zeros((len(frame), len(words)), dtype=bool)
    for row, k in enumerate(kinds):
        matrix[row, [column[w] for ws in k.values() for w in ws]] = True
    return matrix, words, [{kind: [column[w] for w in ws] for kind, ws in k.items()} for k in kinds]


def caption(rng: np.random.Generator, concept: int, style: str) -> tuple[str, list[int]]:
    """A random caption of one concept and the attribute columns that make another image match it.

    An empty list means that the caption names the concept, so only its own image matches.
    """
    _, words, kinds = attributes()
    kind, name = kinds[concept], pretraining_concepts()["name"][concept]
    pick = rng.random()
    if kind["emotion"] and pick < 0.35:
        chosen = [int(rng.choice(kind["emotion"]))]
        return str(rng.choice(FACE_TEMPLATES)).format(words[chosen[0]]), chosen
    if kind["class"] and pick < 0.45 and rng.random() < 0.3:
        return str(rng.choice(TEMPLATES)).format(words[kind["class"][0]]), kind["class"]
    if kind["tags"] and pick > 0.82:
        chosen = [
            int(t)
            for t in rng.choice(kind["tags"], min(len(kind["tags"]), int(rng.integers(1, 5))), replace=False)
        ]
        return ", ".join(words[t] for t in chosen), chosen
    if kind["tags"] and pick > 0.64:
        tags = rng.choice(kind["tags"], min(len(kind["tags"]), 3), replace=False)
        return ", ".join([name, *(words[t] for t in tags)]), []
    template = STYLE_TEMPLATES[style] if rng.random() < 0.15 else str(rng.choice(TEMPLATES))
    return template.format(name), []


def corpus() -> list[str]:
    """Every text that pretraining can read, plus the words that prompts commonly use."""
    frame, (_, words, _) = pretraining_concepts(), attributes()
    usual = [
        "this is a type of pet food texture that shows some, here are many photos and "
        "pictures: what who where . ? !",
        "left right above below small large red orange yellow green blue purple pink brown black white grey",
    ]
    return [*frame["name"], *words, *TEMPLATES, *STYLE_TEMPLATES.values(), *FACE_TEMPLATES, SCENE, *usual]
