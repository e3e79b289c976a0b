"""Pictures with one caption each, to be found among all others."""

import re

import numpy as np
import pandas as pd

from ..captions import Captions
from . import data as emoji
from . import pictures
from .tasks import TEMPLATE

MOST_KEYWORDS = 8  # keeps captions inside the 32 tokens of the tiny models


def usable(style: str, novel: bool) -> pd.DataFrame:
    """Concepts that `style` draws, without near-duplicates: the known ones, or the novel ones."""
    known = (*emoji.SOURCE_STYLES, *emoji.SHIFT_STYLES)
    if style not in known:
        raise ValueError(
            f"style must be one of {', '.join(known)} (pretraining has seen the others), got {style!r}"
        )
    table, drawn = emoji.concepts(), emoji.webp().keys() - emoji.near_duplicates()
    return table[table["hexcode"].map(lambda h: (style, h) in drawn) & (table["novel"] == novel)]


def strict_keywords(name: str, tags: list[str], keywords: list[str]) -> str:
    """Keywords as one caption, '' where none is left.

    Kept are plain words that add something to the name and the tags, which pretraining reads:
    no numbered names ("dog2"), signs, or rearranged names ("flag ireland").
    """

    def letters(text):
        return set(re.findall("[a-z]+", text.lower()))

    seen, kept = letters(" ".join([name, *tags])), []
    for word in keywords:
        word = word.replace("\u00a0", " ").replace("\u2019", "'").strip()
        if re.fullmatch("[a-z][a-z' -]*", word) and not letters(word) <= seen and word not in kept:
            kept.append(word)
    return ", ".join(kept[:MOST_KEYWORDS])


def retrieval_set(
    style: str, captions: str = "names", limit: int | None = None, *, novel: bool = False
) -> Captions:
    """Pictures of one style, each with its own caption; near-duplicates of pretraining are left out.

    captions: "names" ("a photo of a dog face.") or "keywords" (strict: words that no pretraining
    caption has for this concept; concepts without any, or whose caption another one shares, are
    dropped). novel: only concepts that pretraining never saw, else only the others. limit: a fixed,
    mixed subset of this size. Image i has the caption `texts[i]` and shows its concept.
    """
    if captions not in ("names", "keywords"):
        raise ValueError(f'captions must be "names" or "keywords", got {captions!r}')
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, or None for all, got {limit}")
    table = usable(style, novel)
    if captions == "names":
        texts, template = table["name"], TEMPLATE
    else:
        texts = pd.Series(map(strict_keywords, table["name"], table["tags"], table["keywords"]), table.index)
        texts, template = texts[(texts != "") & ~texts.duplicated(keep=False)], "{}"
    if limit is not None:
        texts = texts.sample(min(limit, len(texts)), random_state=0).sort_index()
    kept = table.loc[texts.index]
    return Captions(
        [f"{style}/{h}" for h in kept["hexcode"]],
        tuple(template.format(text) for text in texts),
        np.arange(len(kept)),
        tuple((name,) for name in kept["name"]),
        read=pictures.image,
        content=pictures.content,
        concept=pictures.concept,
        flip=False,
    )
