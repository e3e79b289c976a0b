"""Small copies of CoOp's 15 data sets in their exact layout, with every file that a loader may read."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

# class folder (or name in the lists) -> name of the class, in the order of the labels
NAMES = {
    "caltech101": {"Faces": "face", "Leopards": "leopard", "accordion": "accordion"},
    "oxford_pets": {"Abyssinian": "abyssinian", "american_bulldog": "american_bulldog", "beagle": "beagle"},
    "stanford_cars": {
        "AM General Hummer SUV 2000": "2000 AM General Hummer SUV",
        "Acura RL Sedan 2012": "2012 Acura RL Sedan",
        "Acura TL Type-S 2008": "2008 Acura TL Type-S",
    },
    "oxford_flowers": {"1": "pink primrose", "2": "hard-leaved pocket orchid", "3": "canterbury bells"},
    "food101": {n: n for n in ("apple_pie", "baby_back_ribs", "baklava")},
    "fgvc_aircraft": {n: n for n in ("707-320", "F-16A/B", "Global Express")},
    "sun397": {"a/abbey": "abbey", "a/apse/indoor": "indoor apse", "b/bakery/shop": "shop bakery"},
    "dtd": {n: n for n in ("banded", "blotchy", "braided")},
    "eurosat": {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
    },
    "ucf101": {"ApplyEyeMakeup": "Apply_Eye_Makeup", "Archery": "Archery", "YoYo": "Yo_Yo"},
    "imagenet": {
        "n01440764": "tench",
        "n01443537": "goldfish",
        "n01484850": "great white shark",
        "n01491361": "tiger shark",
        "n01494475": "hammerhead shark",
        "n01496331": "electric ray",
        "n01498041": "stingray",
        "n01514668": "rooster",
        "n01514859": "hen",
        "n01518878": "ostrich",
        "n01530575": "brambling",
        "n01531178": "goldfinch",
    },
}
NAMES["imagenetv2"] = {str(i): name for i, name in enumerate(NAMES["imagenet"].values())}
NAMES["imagenet_sketch"] = NAMES["imagenet"]
NAMES["imagenet_a"] = {"n01498041": "stingray", "n01531178": "goldfinch"}
NAMES["imagenet_r"] = {"n01443537": "goldfish", "n01484850": "great white shark", "n01518878": "ostrich"}
COUNTS = {"train": 5, "val": 2, "test": 3}  # images per class

FOLDERS = {  # data set -> folder, images below it, split file
    "caltech101": ("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "oxford_pets": ("oxford_pets", "images", "split_zhou_OxfordPets.json"),
    "stanford_cars": ("stanford_cars", ".", "split_zhou_StanfordCars.json"),
    "oxford_flowers": ("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
    "food101": ("food-101", "images", "split_zhou_Food101.json"),
    "fgvc_aircraft": ("fgvc_aircraft", "images", ""),
    "sun397": ("sun397", "SUN397", "split_zhou_SUN397.json"),
    "dtd": ("dtd", "images", "split_zhou_DescribableTextures.json"),
    "eurosat": ("eurosat", "2750", "split_zhou_EuroSAT.json"),
    "ucf101": ("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"),
    "imagenet": ("imagenet", "images", ""),
    "imagenetv2": ("imagenetv2", "imagenetv2-matched-frequency-format-val", ""),
    "imagenet_sketch": ("imagenet-sketch", "images", ""),
    "imagenet_a": ("imagenet-adversarial", "imagenet-a", ""),
    "imagenet_r": ("imagenet-rendition", "imagenet-r", ""),
}


def make_miniature(root: Path, name: str) -> Path:
    """Write the data set `name` below `root`, 5 train, 2 val and 3 test images per class; returns its folder.

    Images of a class have its colour, so that a model can tell classes apart.
    """
    folder, images, split = FOLDERS[name]
    folder = Path(root) / folder
    if name.startswith("imagenet"):
        return imagenet(folder, images, name)
    rows = {part: [] for part in COUNTS}
    for path, part, label, classname in listed(name):
        picture(folder / images / path, label)
        rows[part].append([path, label, classname])
    if split:
        (folder / split).write_text(json.dumps(rows, indent=4))
    if name in LISTS:
        LISTS[name](folder, rows)
    return folder


def picture(path: Path, label: int) -> None:
    """A JPEG of 48 x 40 pixels with the colour of its class and noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([label, *path.name.encode()])
    colour = np.array([40 + 50 * (label % 4), 40 + 60 * (label // 4), 200 - 40 * (label % 4)])
    noise = rng.integers(-30, 31, (40, 48, 3))
    Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def listed(name: str) -> Iterator[tuple[str, str, int, str]]:
    """(path, part, label, class name) of all images; the flowers' classes in an order that is not sorted."""
    classes = [*enumerate(NAMES[name].items())]
    number = 0
    for label, (key, classname) in reversed(classes) if name == "oxford_flowers" else classes:
        for part, i in [(part, i) for part, n in COUNTS.items() for i in range(n)]:
            number += 1
            yield path_of(name, key, classname, part, i, number), part, label, classname


def path_of(name: str, key: str, classname: str, part: str, i: int, number: int) -> str:
    """The path of an image, relative to what the split file's paths are relative to."""
    unique = f"{part}{i}"
    return {
        "oxford_pets": f"{key}_{number}.jpg",
        "stanford_cars": f"cars_{'test' if part == 'test' else 'train'}/{number:05d}.jpg",
        "oxford_flowers": f"image_{number:05d}.jpg",
        "fgvc_aircraft": f"{number:07d}.jpg",
        "sun397": f"{key}/sun_{unique}.jpg",
        "ucf101": f"{classname}/v_{key}_{unique}.jpg",
    }.get(name, f"{key}/{unique}.jpg")


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def caltech(folder: Path, rows: dict) -> None:
    for ignored in ("BACKGROUND_Google", "Faces_easy"):
        picture(folder / "101_ObjectCategories" / ignored / "image_0001.jpg", 3)


def pets(folder: Path, rows: dict) -> None:
    for file, parts in (("trainval", ("train", "val")), ("test", ("test",))):
        items = [row for part in parts for row in rows[part]]
        write_lines(
            folder / f"annotations/{file}.txt",
            [f"{path.removesuffix('.jpg')} {label + 1} 1 1" for path, label, _ in items],
        )


def cars(folder: Path, rows: dict) -> None:
    (folder / "devkit").mkdir()
    names = np.array([[*NAMES["stanford_cars"]]], dtype=object)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    for file, parts in (
        ("devkit/cars_train_annos.mat", ("train", "val")),
        ("cars_test_annos_withlabels.mat", ("test",)),
    ):
        items = [(path.split("/")[1], label + 1) for p in parts for path, label, _ in rows[p]]
        table = np.zeros((1, len(items)), dtype=[("class", object), ("fname", object)])
        table[0] = [(np.array([[label]], dtype=np.uint8), image) for image, label in items]
        savemat(folder / file, {"annotations": table})


def flowers(folder: Path, rows: dict) -> None:
    labels = dict(sorted((path, label + 1) for part in rows.values() for path, label, _ in part))
    savemat(folder / "imagelabels.mat", {"labels": np.array([[*labels.values()]], dtype=np.uint8)})
    (folder / "cat_to_name.json").write_text(json.dumps(NAMES["oxford_flowers"]))


def aircraft(folder: Path, rows: dict) -> None:
    write_lines(folder / "variants.txt", [*NAMES["fgvc_aircraft"]])
    for part, found in rows.items():
        write_lines(
            folder / f"images_variant_{part}.txt",
            [f"{path.removesuffix('.jpg')} {name}" for path, _, name in found],
        )


def sun(folder: Path, rows: dict) -> None:
    write_lines(folder / "ClassName.txt", [f"/{key}" for key in NAMES["sun397"]])
    for file, parts in (("Training_01", ("train", "val")), ("Testing_01", ("test",))):
        write_lines(folder / f"{file}.txt", [f"/{path}" for p in parts for path, _, _ in rows[p]])


def ucf(folder: Path, rows: dict) -> None:
    lists, action = folder / "ucfTrainTestlist", [*NAMES["ucf101"]]
    write_lines(lists / "classInd.txt", [f"{i} {name}" for i, name in enumerate(action, 1)])
    for file, parts in (("trainlist01", ("train", "val")), ("testlist01", ("test",))):
        items = [row for part in parts for row in rows[part]]
        videos = [(f"{action[label]}/{Path(path).stem}.avi", label) for path, label, _ in items]
        write_lines(
            lists / f"{file}.txt",
            [video if file == "testlist01" else f"{video} {label + 1}" for video, label in videos],
        )


LISTS = {
    "caltech101": caltech,
    "oxford_pets": pets,
    "stanford_cars": cars,
    "oxford_flowers": flowers,
    "fgvc_aircraft": aircraft,
    "sun397": sun,
    "ucf101": ucf,
}


def imagenet(folder: Path, images: str, name: str) -> Path:
    """ImageNet and its variants: class folders, classnames.txt, and files that are no images."""
    parts = {"train": COUNTS["train"], "val": COUNTS["test"]} if name == "imagenet" else {".": COUNTS["test"]}
    wnids = [*NAMES["imagenet"]]
    for part, n in parts.items():
        for key in NAMES[name]:
            wnid = wnids[int(key)] if name == "imagenetv2" else key
            for i in range(n):
                picture(folder / images / part / key / f"{wnid}_{i}.JPEG", wnids.index(wnid))
        (folder / images / part / "README.txt").write_text("about these images\n")
    write_lines(folder / "classnames.txt", [f"{wnid} {text}" for wnid, text in NAMES["imagenet"].items()])
    return folder


def make_all(root: Path) -> Path:
    """All 15 below `root`; returns it."""
    for name in FOLDERS:
        make_miniature(root, name)
    return Path(root)


def without(folder: Path, name: str) -> None:
    """Remove a file or folder of a data set."""
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
