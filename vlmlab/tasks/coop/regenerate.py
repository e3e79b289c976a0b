"""Splits of CoOp's data sets made anew, by the rules of its code, for want of the published files.

The published splits were drawn at random too, so these have other images. CoOp shuffles with the seed of
the run that first finds no split file and in the order that the disk lists files; here it is always one
stream `random.Random(1)` over sorted names.
"""

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

from .layouts import CAT_TO_NAME_PAGE, Layout

SEED = 1
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
IGNORED = ("BACKGROUND_Google", "Faces_easy")  # of Caltech101
NAMES = {
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}
Items = list[tuple[str, int, str]]  # (path below the images, label, class name)


def rows(layout: Layout, folder: Path) -> dict[str, Items]:
    """part -> rows of a data set in `folder`. Raises FileNotFoundError naming the list that is missing."""
    if layout.id == "oxford_flowers":
        return three_ways(flowers(folder))
    if layout.id in OFFICIAL:
        train_val, test = (list(items) for items in OFFICIAL[layout.id](folder))
        return {**two_ways(train_val), "test": test}
    return three_ways(class_folders(folder / layout.images))


def by_label(items: Iterator | Items) -> dict[int, Items]:
    """label -> items, labels in their order of first appearance."""
    groups: dict[int, Items] = {}
    for item in items:
        groups.setdefault(item[1], []).append(item)
    return groups


def three_ways(items: Iterator | Items) -> dict[str, Items]:
    """Of every class, half of the images train, a fifth validates and the rest tests."""
    stream, out = random.Random(SEED), {"train": [], "val": [], "test": []}
    for group in by_label(items).values():
        stream.shuffle(group)
        first, second = round(len(group) * 0.5), round(len(group) * 0.2)
        cut = {"train": group[:first], "val": group[first : first + second], "test": group[first + second :]}
        for part, chosen in cut.items():
            enough(chosen, group, part)
            out[part] += chosen
    return out


def two_ways(items: Items) -> dict[str, Items]:
    """Of every class, a fifth of the images validates, the rest trains."""
    stream, out = random.Random(SEED), {"train": [], "val": []}
    for group in by_label(items).values():
        stream.shuffle(group)
        n = round(len(group) * 0.2)
        enough(group[:n], group, "val")
        out["val"] += group[:n]
        out["train"] += group[n:]
    return out


def enough(chosen: Items, group: Items, part: str) -> None:
    if not chosen:
        raise ValueError(
            f"class {group[0][2]!r} has {len(group)} images, too few to have one in {part}; "
            "extract the data set again"
        )


def class_folders(folder: Path) -> Items:
    """One folder per class, labels in sorted order: Caltech101, Food101, DTD, EuroSAT."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; a split is made from the images in it")
    folders = sorted(
        f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".") and f.name not in IGNORED
    )
    return [
        (f"{f.name}/{image}", label, NAMES.get(f.name, f.name))
        for label, f in enumerate(folders)
        for image in sorted(filter(is_image, os.listdir(f)))
    ]


def is_image(name: str) -> bool:
    """Whether a file in a class folder is an image and not one that some system left there."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def flowers(folder: Path) -> Items:
    """imagelabels.mat numbers the class of each image, cat_to_name.json names the classes; both from 1."""
    path = folder / "cat_to_name.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; get it from {CAT_TO_NAME_PAGE}") from None
    labels = matlab(folder / "imagelabels.mat")["labels"][0]
    return [(f"image_{i:05d}.jpg", int(label) - 1, names[str(label)]) for i, label in enumerate(labels, 1)]


def matlab(path: Path) -> dict:
    from scipy.io import loadmat

    present(path)
    return loadmat(path)


def lines(path: Path) -> list[str]:
    """The lines of a text file, without those that are blank."""
    present(path)
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def present(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it comes with the images, get them again")


def pets(folder: Path) -> Iterator[Items]:
    """Lines 'Abyssinian_100 1 1 1': image and class from 1; the breed is the image without its number."""
    for name in ("trainval.txt", "test.txt"):
        fields = [line.split(" ") for line in lines(folder / "annotations" / name)]
        yield [(f"{f[0]}.jpg", int(f[1]) - 1, f[0].rpartition("_")[0].lower()) for f in fields]


def cars(folder: Path) -> Iterator[Items]:
    """Names of devkit/cars_meta.mat with the year, which they end in, moved to the front."""
    names = [str(name[0]).split(" ") for name in matlab(folder / "devkit/cars_meta.mat")["class_names"][0]]
    for images, lists in (
        ("cars_train", "devkit/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        rows = matlab(folder / lists)["annotations"][0]
        found = [(str(row["fname"][0]), int(row["class"][0, 0]) - 1) for row in rows]
        yield [
            (f"{images}/{image}", label, " ".join([names[label][-1], *names[label][:-1]]))
            for image, label in found
        ]


def sun(folder: Path) -> Iterator[Items]:
    """Lines '/a/apse/indoor/sun_x.jpg'; labels count ClassName.txt; /a/apse/indoor is named 'indoor apse'."""
    label = {line: i for i, line in enumerate(lines(folder / "ClassName.txt"))}
    for name in ("Training_01.txt", "Testing_01.txt"):
        pairs = [(line[1:], line.rpartition("/")[0]) for line in lines(folder / name)]
        yield [(image, label[cls], " ".join(reversed(cls.split("/")[2:]))) for image, cls in pairs]


def ucf(folder: Path) -> Iterator[Items]:
    """Lines 'YoYo/v_YoYo_g01_c01.avi'; the class is Yo_Yo, cut before capitals."""
    lists = folder / "ucfTrainTestlist"
    pairs = [line.split(" ") for line in lines(lists / "classInd.txt")]
    label = {name: int(number) - 1 for number, name in pairs}
    for name in ("trainlist01.txt", "testlist01.txt"):
        pairs = [line.split(" ")[0].split("/") for line in lines(lists / name)]
        cut = {action: "_".join(re.findall("[A-Z][^A-Z]*", action)) for action, _ in pairs}
        yield [
            (f"{cut[action]}/{video.replace('.avi', '.jpg')}", label[action], cut[action])
            for action, video in pairs
        ]


OFFICIAL = {"oxford_pets": pets, "stanford_cars": cars, "sun397": sun, "ucf101": ucf}
