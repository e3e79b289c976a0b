"""The embedded tasks, made from `data/emoji` and `data/drawings`. Kinds, all with md5-fixed splits:

- `emoji/animals`: subgroup classes (mammal, bird, ...). Train and test emoji are disjoint; both come
  in the styles noto and fluent-flat.
- `emoji/animals-fine`: one class per emoji. The noto drawing trains (one image per class, at most 4
  shots by repetition), the fluent-flat drawing tests; zero-shot is tested on both. This way round,
  because fluent-3d and fluent-hc are the fluent-flat drawing in other materials: a shift must not
  show the twin of a training picture.
- `drawings/animals`: the classes of `emoji/animals` with the clip art of many hands beside the emoji, in
  training and in test: more concepts in every class, hence smaller errors. Clip art is on white alone.
- `photos/animals`: `drawings/animals`, tested on photographs too (shift `photo`), where they are installed
  (stamps.py).
- `emoji/emotions`: faces with soft labels over seven emotions; `labels` is their first maximum.

Shifts: fluent-3d, fluent-hc, `noise` (the test drawings in one source style on coloured noise) and `novel`
(concepts that pretraining never saw; fine tasks ask for them among their own names). A shift may
lack classes: no fluent style draws families.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pandas as pd

from ..split import Dataset, Split
from . import data as emoji
from . import pictures, stamps

TEMPLATE = "a photo of a {}."
FACE_TEMPLATE = "a photo of a {} face."
GROUPS = {
    "smileys": "smileys-emotion",
    "people": "people-body",
    "animals": "animals-nature",
    "food": "food-drink",
    "travel": "travel-places",
    "symbols": "symbols",
    "objects": "objects",
    "activities": "activities",
}
WIDENED = (
    "animals",
    "food",
    "travel",
    "objects",
    "symbols",
)  # clip art adds concepts in most of their classes
PROTOCOLS = ("zero_shot", "few_shot", "domain_shift", "base_to_new", "cross_dataset")


def names() -> list[str]:
    """Ids of the embedded tasks."""
    emoji_tasks = [f"emoji/{g}" for g in GROUPS] + [f"emoji/{g}-fine" for g in GROUPS] + ["emoji/emotions"]
    return emoji_tasks + [f"drawings/{g}" for g in WIDENED] + stamps.names()


@functools.lru_cache(maxsize=64)
def dataset(id: str, backgrounds: int = 2) -> Dataset:
    """The data of one of `names()`; each test image comes on `backgrounds` grounds, the first white."""
    world, task = id.split("/")
    if world == "photos":
        of = {
            "id": id,
            "shifts": photos(task, backgrounds),
            "others": {},
            "protocols": ("zero_shot", "domain_shift"),
        }
        return dataclasses.replace(subgroups(task, backgrounds, clipart=True), **of)
    if world == "drawings":
        return subgroups(task, backgrounds, clipart=True)
    if task == "emotions":
        return emotions(backgrounds)
    return fine(task, backgrounds) if task.endswith("-fine") else subgroups(task, backgrounds)


def grounds(backgrounds: int) -> list[str]:
    return ["", *(f"+{v}" for v in range(1, backgrounds))]


def noise(backgrounds: int) -> list[str]:
    return [f"+noise{v}" for v in range(backgrounds)]


def split(
    members: pd.DataFrame,
    styles: tuple[str, ...],
    classnames: tuple[str, ...],
    variants: list[str] | None = None,
    *,
    template: str = TEMPLATE,
    soft: pd.DataFrame | None = None,
) -> Split:
    """Pictures of the emoji in `members` (columns hexcode, label), by class, in Unicode order.

    Test splits name their background `variants` and lose the near-duplicates of pretraining
    pictures; without `variants` it is a training split: every drawing once. soft: hexcode -> soft label.
    """
    left_out = emoji.near_duplicates() if variants else frozenset()
    table = members.sort_values("label", kind="stable")
    rows = [
        (f"{style}/{hexcode}{v}", label, hexcode)
        for hexcode, label in zip(table["hexcode"], table["label"], strict=True)
        for style in styles
        if (style == stamps.STYLE or (style, hexcode) in emoji.webp()) and (style, hexcode) not in left_out
        for v in (variants if variants and style != emoji.CLIPART else [""])
    ]
    distributions = None if soft is None else soft.loc[[h for _, _, h in rows]].to_numpy(np.float32)
    return Split(
        [i for i, _, _ in rows],
        np.array([label for _, label, _ in rows]),
        classnames,
        template,
        distributions,
        read=pictures.image,
        content=pictures.content,
        concept=pictures.concept,
        flip=False,
    )  # the picture itself is mirrored where that keeps its meaning


def shifts(
    test: pd.DataFrame,
    novel: pd.DataFrame,
    classnames: tuple[str, ...],
    backgrounds: int,
    *,
    noisy: str = "noto",
    novel_names: tuple[str, ...] | None = None,
    **options,
) -> dict[str, Split]:
    """The four shifts; `noisy` is the style that is put on noise."""
    variants = grounds(backgrounds)
    out = {style: split(test, (style,), classnames, variants, **options) for style in emoji.SHIFT_STYLES}
    out["noise"] = split(test, (noisy,), classnames, noise(backgrounds), **options)
    out["novel"] = split(novel, emoji.SOURCE_STYLES, novel_names or classnames, variants, **options)
    return out


def photos(task: str, backgrounds: int) -> dict[str, Split]:
    """The shift `photo`: photographs of the classes that have some."""
    classnames, label = labels(task)
    table = stamps.table()
    table = table[table["subgroup"].isin(label.index)]
    table = table.assign(label=table["subgroup"].map(label).astype(int))
    return {"photo": split(table, (stamps.STYLE,), classnames, grounds(backgrounds))}


def labels(task: str) -> tuple[tuple[str, ...], pd.Series]:
    """The classes of a group, the names in `data/emoji/classes.csv` in its order, and subgroup -> label."""
    rows = emoji.classes().query("task == @task")
    classnames = tuple(rows["name"].drop_duplicates())
    return classnames, rows.set_index("subgroup")["name"].map(classnames.index)


def subgroups(task: str, backgrounds: int, clipart: bool = False) -> Dataset:
    """The subgroups of the emoji as classes; clipart: the drawings of many hands too."""
    classnames, label = labels(task)
    table = emoji.concepts()
    styles, tasks = emoji.SOURCE_STYLES, [f"emoji/{g}" for g in GROUPS]
    if clipart:
        styles, tasks = (*styles, emoji.CLIPART), [f"drawings/{g}" for g in WIDENED]
        table = pd.concat([table, emoji.clipart()], ignore_index=True)
    table = table[table["subgroup"].isin(label.index)]
    table = table.assign(label=table["subgroup"].map(label).astype(int))
    train, test, novel = (table[table["split"] == s] for s in ("train", "test", "novel"))
    world = "drawings" if clipart else "emoji"
    return Dataset(
        f"{world}/{task}",
        split(train, styles, classnames),
        split(test, styles, classnames, grounds(backgrounds)),
        shifts=shifts(test, novel, classnames, backgrounds),
        others=others(f"{world}/{task}", tasks, backgrounds),
        protocols=PROTOCOLS,
        repeat=True,
    )


def fine(task: str, backgrounds: int) -> Dataset:
    """Classes: the concepts that both source styles draw, neither as a near-duplicate."""
    table = emoji.concepts()
    table = table[table["group"] == GROUPS[task.removesuffix("-fine")]]
    usable = emoji.webp().keys() - emoji.near_duplicates()
    table = table[[all((s, h) in usable for s in emoji.SOURCE_STYLES) for h in table["hexcode"]]]
    known, novel = (t.assign(label=range(len(t))) for t in (table[~table["novel"]], table[table["novel"]]))
    classnames, variants = tuple(known["name"]), grounds(backgrounds)
    train, test = emoji.SOURCE_STYLES
    return Dataset(
        f"emoji/{task}",
        split(known, (train,), classnames),
        split(known, (test,), classnames, variants),
        whole=split(known, emoji.SOURCE_STYLES, classnames, variants),
        shifts=shifts(known, novel, classnames, backgrounds, noisy=test, novel_names=tuple(novel["name"])),
        others=others(f"emoji/{task}", [f"emoji/{g}-fine" for g in GROUPS], backgrounds),
        protocols=PROTOCOLS,
        repeat=True,
    )


def emotions(backgrounds: int) -> Dataset:
    """Faces with the emotions that their words tell."""
    soft = emoji.emotions()
    train, test, novel = faces(soft)
    classnames = tuple(soft.columns)
    options = {"template": FACE_TEMPLATE, "soft": soft}
    return Dataset(
        "emoji/emotions",
        split(train, emoji.SOURCE_STYLES, classnames, **options),
        split(test, emoji.SOURCE_STYLES, classnames, grounds(backgrounds), **options),
        shifts=shifts(test, novel, classnames, backgrounds, **options),
        protocols=("zero_shot", "few_shot", "domain_shift", "label_distribution"),
        repeat=True,
    )


def faces(soft: pd.DataFrame) -> list[pd.DataFrame]:
    """The faces of `soft` (hexcode, emotion) to train and to test on, and the novel ones, with labels. A test face
    whose own name is in a prompt ("neutral face") gives its label away: left out."""
    table = emoji.concepts()
    table = table[table["hexcode"].isin(soft.index)]
    table = table.assign(label=soft.to_numpy()[soft.index.get_indexer(table["hexcode"])].argmax(1))
    prompts = [FACE_TEMPLATE.format(c) for c in soft.columns]
    given_away = table["name"].map(lambda name: any(name in p for p in prompts))
    parts = [table[table["split"] == s] for s in ("train", "test", "novel")]
    return [parts[0], *(part[~given_away.loc[part.index]] for part in parts[1:])]


def others(task: str, tasks: list[str], backgrounds: int) -> dict[str, Callable[[], Split]]:
    """The tests of the other tasks, built when called for."""
    return {t: lambda t=t: dataset(t, backgrounds).test for t in tasks if t != task}
